// The portable tensor-core kernels on a GPU, by the cases and the truth of tests/cpp/attention, without torch.
//
//   program list             names of the cases
//   program NAME             one of them: "ok NAME worst error ..." or "FAILED NAME why"
//
//   nvcc -std=c++20 -O3 -DNDEBUG --expt-relaxed-constexpr -Icsrc -Itests/cpp -gencode arch=compute_90a,code=sm_90a
//     -cudart static
//     tests/gpu/mma_attention.cu csrc/hetsp/attention/cuda/mma/{forward,backward,repair}.cu -o mma_attention
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "attention/attention_call.h"
#include "attention/attention_case.h"
#include "attention/attention_truth.h"
#include "attention/mma_case.h"
#include "hetsp/attention/cuda/mma/backward.h"
#include "hetsp/attention/cuda/mma/forward.h"
#include "hetsp/attention/cuda/scalar/backward.cuh"

using namespace attention_case;
namespace cuda = hetsp::attention::cuda;
namespace mma = hetsp::attention::cuda::mma;

namespace {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

// Bytes on the device; freed with the process.
void* upload(const void* data, std::int64_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, static_cast<std::size_t>(std::max<std::int64_t>(bytes, 16))), "cudaMalloc");
  if (data != nullptr && bytes > 0)
    check(cudaMemcpy(memory, data, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice), "upload");
  return memory;
}

struct Mirror {  // an Array's copy on the device
  explicit Mirror(const Array& array) : array_(array), memory_(upload(array.memory(), array.size_bytes())) {}
  void* data() const {
    return array_.data() == nullptr ? nullptr : static_cast<unsigned char*>(memory_) + array_.origin_bytes();
  }
  void fetch() const {
    if (array_.size_bytes() > 0)
      check(cudaMemcpy(array_.memory(), memory_, static_cast<std::size_t>(array_.size_bytes()), cudaMemcpyDeviceToHost),
            "fetch");
  }

 private:
  const Array& array_;
  void* memory_;
};

cuda::TileList upload(const HostTiles& tiles) {
  return {static_cast<const cuda::Tile*>(
              upload(tiles.tiles.data(), static_cast<std::int64_t>(tiles.tiles.size() * sizeof(cuda::Tile)))),
          static_cast<const std::int32_t*>(upload(&tiles.count, sizeof(tiles.count)))};
}

struct Scratch {
  std::int32_t* words = static_cast<std::int32_t*>(upload(nullptr, mma::scratch_words * 4));
  void reset() const { check(cudaMemsetAsync(words, 0, mma::zeroed_words * 4), "memset"); }
};

__global__ void delta_kernel(const __grid_constant__ DeltaParams params) {
  __shared__ double partial[cuda::groups][cuda::lanes];
  cuda::backward_delta<float>(params, partial);
}

Segment* upload(const std::vector<Segment>& segments) {
  return static_cast<Segment*>(upload(segments.data(), static_cast<std::int64_t>(segments.size() * sizeof(Segment))));
}

double worst = 0;

void expect(const char* what, const Array& actual, const std::vector<Sum>& truth, DType dtype) {
  const double error = worst_error(actual.values(), truth, dtype, DType::float32, true);
  worst = std::max(worst, error);
  if (!(error <= 8)) throw std::runtime_error(std::string(what) + " is off by " + std::to_string(error) + " units");
  if (actual.strays() != 0) throw std::runtime_error(std::string(what) + ": wrote between its rows");
}

void run_case(const Case& c) {
  Random random(static_cast<unsigned>(c.shape.total_q + 7));
  const cuda::TileList queries = upload(query_tiles(random, c)), keys = upload(key_tiles(random, c));
  const Scratch scratch;
  Output output = empty_output(c);
  Gradients gradients = empty_gradients(c);
  const Array delta(DType::float32, c.shape.heads * c.shape.total_q);
  const Mirror q(c.q), k(c.k), v(c.v), sink(c.sink), seed_out(c.seed_out), seed_lse(c.seed_lse), dout(c.dout), dlse(c.dlse),
      out(output.out), lse(output.lse), dq(gradients.dq), dk(gradients.dk), dv(gradients.dv), d(delta);
  ForwardParams f = forward_params(c, output);
  f.segments = upload(c.segments);
  f.q.data = q.data(), f.k.data = k.data(), f.v.data = v.data(), f.sink = sink.data();
  f.seed_out.data = seed_out.data(), f.seed_lse = seed_lse.data(), f.out.data = out.data(), f.lse = lse.data();
  scratch.reset();
  mma::forward(f, queries, scratch.words, nullptr);
  check(cudaDeviceSynchronize(), "forward");
  out.fetch(), lse.fetch();
  const Forward truth = forward(c);
  expect("out", output.out, truth.out, c.out_dtype());
  expect("lse", output.lse, truth.lse, DType::float32);

  BackwardParams b = backward_params(c, output, gradients, delta);
  b.segments = f.segments, b.q.data = f.q.data, b.k.data = f.k.data, b.v.data = f.v.data;
  b.out.data = out.data(), b.dout.data = dout.data(), b.lse = lse.data(), b.dlse = c.has_dlse ? dlse.data() : nullptr;
  b.delta = b.fill_delta = d.data(), b.dq.data = dq.data(), b.dk.data = dk.data(), b.dv.data = dv.data();
  if (c.shape.total_q > 0) delta_kernel<<<64, cuda::block_threads>>>(delta_params(b));
  const Backward gradient = backward(c, output.out, output.lse);
  std::vector<double> first;
  for (int turn = 0; turn < 2; ++turn) {
    scratch.reset();
    mma::backward(b, queries, keys, scratch.words, nullptr);
    check(cudaDeviceSynchronize(), "backward");
    dq.fetch(), dk.fetch(), dv.fetch();
    expect("dq", gradients.dq, gradient.dq, c.grad_dtype());
    expect("dk", gradients.dk, gradient.dk, c.grad_dtype());
    expect("dv", gradients.dv, gradient.dv, c.grad_dtype());
    std::vector<double> all;
    for (const Array* array : {&gradients.dq, &gradients.dk, &gradients.dv})
      for (const double x : array->values()) all.push_back(x);
    if (turn == 1 && std::memcmp(all.data(), first.data(), all.size() * sizeof(double)) != 0)
      throw std::runtime_error("two runs differ");
    first = std::move(all);
  }
}

std::vector<std::pair<std::string, Case>> all_cases() {
  std::vector<std::pair<std::string, Case>> cases;
  const std::vector<Dims> dims{{64, 64}, {17, 40}, {1, 1}, {72, 128}, {128, 128}, {80, 64}, {256, 256}, {192, 128}};
  for (unsigned i = 0; i < 2 * dims.size(); ++i) {
    const DType dtype = i % 2 == 0 ? DType::bfloat16 : DType::float16;
    cases.emplace_back("random_" + std::to_string(9000 + i), random_case(9000 + i, dtype, dims[i / 2], 400));
  }
  const auto plain = [&](const char* name, const Shape& shape, std::vector<Segment> segments) {
    cases.emplace_back(name, plain_case(shape, std::move(segments), static_cast<unsigned>(cases.size())));
  };
  for (const DType dtype : {DType::bfloat16, DType::float16})
    for (const std::int64_t dim : {64, 128, 256})
      plain((std::string("causal_") + attention_case::name(dtype) + "_" + std::to_string(dim)).c_str(),
            {700, 700, 2, 1, dim, dim, dtype}, {{0, 700, 0, 700, 0, 0, -1, 0}});
  plain("full_128", {300, 513, 2, 2, 128, 128, DType::bfloat16}, {{0, 300, 0, 513, 0, 0, -1, -1}});
  plain("window_128", {600, 600, 1, 1, 128, 128, DType::float16}, {{0, 600, 0, 600, 0, 0, 100, 7}});
  plain("hidden_nan_128", {300, 300, 1, 1, 128, 128, DType::float16}, {{0, 300, 0, 300, 0, 0, -1, 0}});
  Case& nan = cases.back().second;
  nan.v.set(150, 0, 5, kNaN), nan.k.set(200, 0, 7, kNaN), nan.dout.set(40, 0, 3, kNaN), nan.q.set(90, 0, 1, kNaN);
  return cases;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string wish = argc > 1 ? argv[1] : "list";
  try {
    int ran = 0;
    for (const auto& [name, c] : all_cases()) {
      if (wish == "list") std::printf("%s\n", name.c_str());
      if (wish != name) continue;
      ++ran;
      run_case(c);
      std::printf("ok %s worst error %.2f of 8 units\n", name.c_str(), worst);
    }
    return wish != "list" && ran == 0;
  } catch (const std::exception& error) {
    std::printf("FAILED %s %s\n", wish.c_str(), error.what());
    return 1;
  }
}
