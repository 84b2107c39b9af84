// The portable tensor-core kernels: each pass of each plan that was considered, and whole calls. bfloat16, causal, medians of
// 5; `program` runs all, `program WORD...` those whose name holds a word. TFLOP/s of a pass count its own products: the forward
// 2, dq and dk 3, dv 2, dk and dv together 4, each of the visible half of the square; those of a call 2 and 5, recomputed ones
// left out.
//
//   nvcc -std=c++17 -O3 -DNDEBUG --expt-relaxed-constexpr -Icsrc -gencode arch=compute_90a,code=sm_90a -cudart static
//     bench/attention/mma_bench.cu csrc/hetsp/attention/cuda/mma/{forward,backward,repair}.cu -o mma_bench
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "hetsp/attention/cuda/mma/backward.cuh"
#include "hetsp/attention/cuda/mma/backward.h"
#include "hetsp/attention/cuda/mma/forward.cuh"
#include "hetsp/attention/cuda/mma/forward.h"
#include "hetsp/attention/cuda/scalar/backward.cuh"

using namespace hetsp::attention;  // NOLINT(google-build-using-namespace)
namespace mma = hetsp::attention::cuda::mma;
using mma::Gradient;

namespace {

std::vector<std::string> wishes;

void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

bool wanted(const std::string& name) {
  return wishes.empty() ||
         std::any_of(wishes.begin(), wishes.end(), [&](const auto& wish) { return name.find(wish) != std::string::npos; });
}

double median_ms(const std::function<void()>& body) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin)), check(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < 6; ++i) {
    check(cudaEventRecord(begin));
    body();
    check(cudaEventRecord(end)), check(cudaEventSynchronize(end));
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end));
    if (i > 0) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  return static_cast<double>(times[times.size() / 2]);
}

class Arena {  // device memory, freed together
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() {
    for (void* memory : all_) cudaFree(memory);
  }
  void* take(std::int64_t bytes, const void* data = nullptr) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, static_cast<std::size_t>(bytes)));
    all_.push_back(memory);
    if (data != nullptr) check(cudaMemcpy(memory, data, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice));
    return memory;
  }

 private:
  std::vector<void*> all_;
};

// About normal.
__global__ void fill(BFloat16* data, std::int64_t count, unsigned seed) {
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < count;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    unsigned hash = static_cast<unsigned>(i) * 2654435761u + seed;
    float sum = 0;
    for (int j = 0; j < 4; ++j) {
      hash ^= hash >> 15, hash *= 2246822519u, hash ^= hash >> 13;
      sum += static_cast<float>(hash & 0xffffu) / 65536.0f - 0.5f;
    }
    data[i] = to_bfloat16(sum * 1.7f);
  }
}

__global__ void delta_kernel(const __grid_constant__ DeltaParams params) {
  __shared__ double partial[cuda::groups][cuda::lanes];
  cuda::backward_delta<float>(params, partial);
}

// Documents of `length` tokens, packed, with the tiles of a forward (last rows first) and of a backward.
struct Problem {
  Arena arena;
  ForwardParams forward{};
  BackwardParams backward{};
  cuda::TileList queries{}, keys{};
  std::int32_t* words = nullptr;
  double flops = 0;  // of one product

  Problem(std::int64_t tokens, std::int64_t length, std::int64_t heads, std::int64_t heads_kv, std::int64_t dim) {
    const auto tensor = [&](std::int64_t h, unsigned seed) {
      auto* data = static_cast<BFloat16*>(arena.take(tokens * h * dim * 2));
      fill<<<1024, 256>>>(data, tokens * h * dim, seed);
      return data;
    };
    const auto input = [&](std::int64_t h, unsigned seed) { return ConstView{tensor(h, seed), h * dim, dim}; };
    const auto output = [&](std::int64_t h) { return View{tensor(h, 9), h * dim, dim}; };
    std::vector<Segment> segments;
    std::vector<cuda::Tile> rising;
    for (std::int64_t begin = 0; begin < tokens; begin += length)
      segments.push_back({begin, begin + length, begin, begin + length, 0, 0, -1, 0});
    const auto count = static_cast<std::int64_t>(segments.size());
    for (std::int64_t row = 0; row < length; row += cuda::tile_rows)
      for (std::int32_t s = 0; s < count; ++s)
        rising.push_back({s * length + row, static_cast<std::int32_t>(std::min(cuda::tile_rows, length - row)), s, s, 1});
    const std::vector<cuda::Tile> falling(rising.rbegin(), rising.rend());
    const auto tiles = static_cast<std::int32_t>(rising.size());
    const auto tile_bytes = static_cast<std::int64_t>(rising.size() * sizeof(cuda::Tile));
    const auto* size = static_cast<std::int32_t*>(arena.take(4, &tiles));
    queries = {static_cast<cuda::Tile*>(arena.take(tile_bytes, falling.data())), size};
    keys = {static_cast<cuda::Tile*>(arena.take(tile_bytes, rising.data())), size};
    const Shape shape{tokens, tokens, heads, heads_kv, dim, dim, DType::bfloat16};
    const Score score{1 / std::sqrt(static_cast<double>(dim)), 0};
    const auto* list = static_cast<Segment*>(arena.take(count * static_cast<std::int64_t>(sizeof(Segment)), segments.data()));
    auto* const lse = static_cast<float*>(arena.take(tokens * heads * 4));
    auto* const delta = static_cast<float*>(arena.take(tokens * heads * 4));
    const ConstView q = input(heads, 1), k = input(heads_kv, 2), v = input(heads_kv, 3), dout = input(heads, 4);
    const View out = output(heads);
    const ConstView given{out.data, out.token_stride, out.head_stride};
    forward = {shape, score, list, count, q, k, v, nullptr, {nullptr, 0, 0}, nullptr, out, false, lse};
    backward.shape = shape, backward.score = score, backward.segments = list, backward.segment_count = count;
    backward.q = q, backward.k = k, backward.v = v, backward.out = given, backward.dout = dout, backward.lse = lse;
    backward.delta = delta, backward.dq = output(heads), backward.dk = output(heads_kv), backward.dv = output(heads_kv);
    words = static_cast<std::int32_t*>(arena.take(mma::scratch_words * 4));
    flops = static_cast<double>(length) * static_cast<double>(tokens * heads * dim);
    reset();
    mma::forward(forward, queries, words, nullptr);
    delta_kernel<<<1024, cuda::block_threads>>>({tokens, heads, dim, DType::bfloat16, given, dout, lse, nullptr, delta});
    check(cudaDeviceSynchronize());
  }
  void reset() const { check(cudaMemsetAsync(words, 0, mma::zeroed_words * 4)); }
};

void report(const std::string& name, double ms, double flops, const std::string& about) {
  std::printf("%-36s %8.3f ms %5.0f TFLOP/s%s\n", name.c_str(), ms, flops / ms * 1e-9, about.c_str());
}

template <int Dim, class Plan>
__global__ void __launch_bounds__(Plan::warps * 32, Plan::blocks)
    forward_kernel(const __grid_constant__ ForwardParams params, const __grid_constant__ cuda::TileList tiles,
                   const __grid_constant__ mma::Scratch scratch) {
  extern __shared__ __align__(128) unsigned char memory[];
  mma::forward_items<BFloat16, Dim>(params, tiles, scratch, *reinterpret_cast<mma::ForwardShared<Dim, Plan>*>(memory));
}

template <int Dim, Gradient G, class Plan>
__global__ void __launch_bounds__(Plan::warps * 32, Plan::blocks)
    backward_kernel(const __grid_constant__ BackwardParams params, const __grid_constant__ cuda::TileList tiles,
                    const __grid_constant__ mma::Scratch scratch) {
  extern __shared__ __align__(128) unsigned char memory[];
  mma::backward_items<BFloat16, Dim, G>(params, tiles, scratch, *reinterpret_cast<mma::BackwardShared<Dim, G, Plan>*>(memory));
}

template <class Plan, class Params>
void run_pass(const std::string& pass, const Problem& problem, void (*kernel)(Params, cuda::TileList, mma::Scratch),
              const Params& params, const cuda::TileList& tiles, std::size_t shared_bytes, int products,
              const std::string& stage) {
  const std::string name =
      pass + " " + std::to_string(Plan::warps) + " warps of " + std::to_string(16 * Plan::m) + ", " + stage;
  if (!wanted(name)) return;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  int fit = 0, processors = 0;
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fit, kernel, Plan::warps * 32, shared_bytes));
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
  cudaFuncAttributes about{};
  check(cudaFuncGetAttributes(&about, kernel));
  const double ms = median_ms([&] {
    problem.reset();
    kernel<<<static_cast<unsigned>(processors * fit), Plan::warps * 32, shared_bytes>>>(params, tiles,
                                                                                        mma::scratch_of_pass(problem.words, 0));
  });
  report(name, ms, products * problem.flops,
         "  " + std::to_string(about.numRegs) + " registers, " + std::to_string(about.localSizeBytes) + " spilt, " +
             std::to_string(shared_bytes / 1024) + " KB, " + std::to_string(fit) + " blocks");
}

template <int Dim, class Plan>
void run_forward(const Problem& problem) {
  run_pass<Plan>("forward " + std::to_string(Dim), problem, forward_kernel<Dim, Plan>, problem.forward, problem.queries,
                 sizeof(mma::ForwardShared<Dim, Plan>), 2,
                 "keys " + std::to_string(Plan::keys) + "/" + std::to_string(Plan::columns));
}

template <int Dim, Gradient G, class Plan>
void run_backward(const Problem& problem) {
  constexpr bool dq = G == Gradient::dq;
  const char* const pass = dq ? "dq " : G == Gradient::dk ? "dk " : G == Gradient::dv ? "dv " : "dk dv ";
  run_pass<Plan>(pass + std::to_string(Dim), problem, backward_kernel<Dim, G, Plan>, problem.backward,
                 dq ? problem.queries : problem.keys, sizeof(mma::BackwardShared<Dim, G, Plan>),
                 G == Gradient::dv      ? 2
                 : G == Gradient::dk_dv ? 4
                                        : 3,
                 "others " + std::to_string(Plan::others) + "/" + std::to_string(Plan::columns));
}

void run_call(std::int64_t tokens, std::int64_t length, std::int64_t heads, std::int64_t heads_kv, std::int64_t dim) {
  const std::string shape = std::to_string(tokens) + " by " + std::to_string(length) + ", " + std::to_string(heads) + ":" +
                            std::to_string(heads_kv) + " of " + std::to_string(dim);
  if (!wanted("call " + shape)) return;
  const Problem problem(tokens, length, heads, heads_kv, dim);
  report("call " + shape + " forward", median_ms([&] {
           problem.reset();
           mma::forward(problem.forward, problem.queries, problem.words, nullptr);
         }),
         2 * problem.flops, "");
  report("call " + shape + " backward", median_ms([&] {
           problem.reset();
           mma::backward(problem.backward, problem.queries, problem.keys, problem.words, nullptr);
         }),
         5 * problem.flops, "");
}

void run_all() {
  run_call(16384, 16384, 16, 16, 128);
  run_call(16384, 16384, 32, 32, 64);
  run_call(16384, 16384, 8, 8, 256);
  run_call(32768, 512, 16, 4, 128);
  using mma::ForwardSides;
  using mma::Sides;
  {
    const Problem p(16384, 16384, 32, 32, 64);
    run_forward<64, ForwardSides<4, 2, 128, 64, 2>>(p);
    run_forward<64, ForwardSides<4, 2, 128, 32, 2>>(p);
    run_forward<64, ForwardSides<4, 2, 64, 64, 2>>(p);
    run_backward<64, Gradient::dq, Sides<4, 2, 64, 16, 3>>(p);
    run_backward<64, Gradient::dq, Sides<4, 2, 64, 32, 2>>(p);
    run_backward<64, Gradient::dk_dv, Sides<4, 2, 64, 16, 2>>(p);
    run_backward<64, Gradient::dk_dv, Sides<4, 2, 64, 32, 2>>(p);
  }
  {
    const Problem p(16384, 16384, 16, 16, 128);
    run_forward<128, ForwardSides<4, 2, 64, 32, 2>>(p);
    run_forward<128, ForwardSides<4, 2, 64, 64, 2>>(p);
    run_forward<128, ForwardSides<8, 1, 64, 64, 1>>(p);
    run_backward<128, Gradient::dq, Sides<4, 2, 32, 32, 2>>(p);
    run_backward<128, Gradient::dq, Sides<8, 1, 32, 32, 1>>(p);
    run_backward<128, Gradient::dk_dv, Sides<8, 1, 32, 32, 1>>(p);
    run_backward<128, Gradient::dk_dv, Sides<4, 1, 32, 32, 2>>(p);
  }
  const Problem p(16384, 16384, 8, 8, 256);
  run_forward<256, ForwardSides<8, 1, 16, 16, 1>>(p);
  run_forward<256, ForwardSides<8, 1, 32, 32, 1>>(p);
  run_backward<256, Gradient::dq, Sides<4, 1, 16, 16, 2>>(p);
  run_backward<256, Gradient::dq, Sides<8, 1, 32, 32, 1>>(p);
  run_backward<256, Gradient::dk, Sides<4, 1, 16, 16, 2>>(p);
  run_backward<256, Gradient::dk, Sides<8, 1, 32, 32, 1>>(p);
  run_backward<256, Gradient::dv, Sides<4, 1, 16, 16, 2>>(p);
  run_backward<256, Gradient::dv, Sides<8, 1, 32, 32, 1>>(p);
}

}  // namespace

int main(int argc, char** argv) {
  wishes.assign(argv + 1, argv + argc);
  try {
    cudaDeviceProp device{};
    check(cudaGetDeviceProperties(&device, 0));
    std::printf("%s, %d multiprocessors\n", device.name, device.multiProcessorCount);
    run_all();
  } catch (const std::exception& error) {
    std::printf("FAILED %s\n", error.what());
    return 1;
  }
}
