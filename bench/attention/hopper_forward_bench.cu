// The forward for Hopper alone, without torch: right first, then how fast, for each of its instantiations.
//
//   hopper_forward_bench check [NAME]    every case whose name holds NAME, every instantiation that takes it, against float64
//                                        maths on the CPU
//   hopper_forward_bench time [NAME]     medians of 10 calls after 3, the L2 cache flushed before each, in useful TFLOP/s
//                                        (causal counts its visible pairs)
//   hopper_forward_bench whole [NAME]    as a call of the op: offsets to segments, list of tiles, forward; medians of 20
//
// Build: nvcc -std=c++20 -O3 -DNDEBUG --expt-relaxed-constexpr -Icsrc -Itests/cpp -gencode arch=compute_90a,code=sm_90a, with
// csrc/hetsp/attention/segment.cc and csrc/hetsp/attention/cuda/{tile_list,segment_index}.cu.
#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "hetsp/attention/cuda/hopper/forward_launch.cuh"
#include "hetsp/attention/cuda/hopper/item_order.h"
#include "hetsp/attention/cuda_kernels.h"
#include "hopper_forward_cases.cuh"

using namespace hetsp::attention;
using namespace hetsp::attention::cuda;
using namespace hetsp::attention::cuda::hopper;
using namespace hopper_forward_bench;

namespace {

hopper::TensorMap make_map(const ConstView& view, DType dtype, std::int64_t tokens, std::int64_t heads, std::int64_t dim,
                           int rows) {
  static const auto encode = [] {
    void* symbol = nullptr;
    cudaDriverEntryPointQueryResult found{};
    must(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000, cudaEnableDefault, &found), "entry point");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(symbol);
  }();
  hopper::TensorMap map{};
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(dim), static_cast<cuuint64_t>(heads), static_cast<cuuint64_t>(tokens)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(view.head_stride * 2), static_cast<cuuint64_t>(view.token_stride * 2)};
  const cuuint32_t box[3] = {64, 1, static_cast<cuuint32_t>(rows)}, steps[3] = {1, 1, 1};
  const CUresult result =
      encode(reinterpret_cast<CUtensorMap*>(&map),
             dtype == DType::float16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3,
             const_cast<void*>(view.data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) std::printf("FAIL tensor map: error %d\n", static_cast<int>(result)), std::exit(1);
  return map;
}

struct Variant {
  const char* name;
  int dim, keys;
  DType dtype;
  void (*launch)(const ForwardArguments&, void*);
  void (*launch_squashed)(const ForwardArguments&, void*);
};
template <class Element, int Dim>
Variant variant(const char* name) {
  using Config = ForwardConfig<Element, Dim, false>;
  return {name,
          Dim,
          Config::keys,
          std::is_same_v<Element, BFloat16> ? DType::bfloat16 : DType::float16,
          launch_forward<Config>,
          launch_forward<ForwardConfig<Element, Dim, true>>};
}

std::vector<Variant> variants() {
  using B = BFloat16;
  return {
      variant<B, 128>("128"),
      variant<B, 64>("64"),
      variant<B, 192>("192"),
      variant<B, 256>("256"),
      variant<Float16, 128>("128 fp16"),
  };
}

ForwardArguments arguments_of(const Variant& v, const Data& d, std::int32_t together) {
  const Shape& s = d.shape;
  const ForwardMaps maps{make_map(d.params.q, s.dtype, s.total_q, s.heads, s.head_dim, static_cast<int>(tile_rows)),
                         make_map(d.params.k, s.dtype, s.total_k, s.heads_kv, s.head_dim, v.keys),
                         make_map(d.params.v, s.dtype, s.total_k, s.heads_kv, s.head_dim_v, v.keys)};
  return {maps, d.params, score_factors(d.params.score), d.queries, d.next_item, together};
}

std::int32_t usual_together(const Shape& s) {
  return heads_together(s.total_k * (s.head_dim + s.head_dim_v) * 2, s.heads, s.heads_kv);
}

// The worst error of sampled rows, as a share of what rounding the weights and the result to 16 bits may cost at most:
// roundoff (sum_j p |v| + |out|).
void check_problem(const Variant& v, const Problem& p) {
  const auto kernel = p.softcap > 0 ? v.launch_squashed : v.launch;
  if (kernel == nullptr) return;
  const Data d = make_data(p);
  const Shape& s = d.shape;
  must(cudaMemset(d.next_item, 0, 4), "counter");
  kernel(arguments_of(v, d, usual_together(s)), nullptr);
  must(cudaDeviceSynchronize(), v.name);
  const auto q = to_host(static_cast<const std::uint16_t*>(d.params.q.data), s.total_q * s.heads * s.head_dim);
  const auto k = to_host(static_cast<const std::uint16_t*>(d.params.k.data), s.total_k * s.heads_kv * s.head_dim);
  const auto values = to_host(static_cast<const std::uint16_t*>(d.params.v.data), s.total_k * s.heads_kv * s.head_dim_v);
  const std::int64_t outs = s.total_q * s.heads * s.head_dim_v;
  std::vector<std::uint16_t> out16;
  std::vector<float> out32, seed_out, seed_lse, sink;
  if (p.acc) out32 = to_host(static_cast<const float*>(d.params.out.data), outs);
  if (!p.acc) out16 = to_host(static_cast<const std::uint16_t*>(d.params.out.data), outs);
  const auto lse = to_host(static_cast<const float*>(d.params.lse), s.total_q * s.heads);
  if (p.seed) seed_out = to_host(static_cast<const float*>(d.params.seed_out.data), outs);
  if (p.seed) seed_lse = to_host(static_cast<const float*>(d.params.seed_lse), s.total_q * s.heads);
  if (p.sink) sink = to_host(static_cast<const float*>(d.params.sink), s.heads);
  const auto number = [&](std::uint16_t bits) {
    return static_cast<double>(p.dtype == DType::float16 ? to_float(Float16{bits}) : to_float(BFloat16{bits}));
  };
  const double roundoff = p.dtype == DType::float16 ? 0x1p-11 : 0x1p-8;
  std::mt19937 random(7);
  const bool all = s.total_q * s.heads * s.total_k * s.head_dim < 400'000'000;
  const std::int64_t samples = all ? s.total_q * s.heads : 96;
  double worst = 0, worst_lse = 0;
  std::int64_t bad = 0;
  std::string first_bad;
  for (std::int64_t n = 0; n < samples; ++n) {
    const std::int64_t row = all      ? n / s.heads
                             : n == 0 ? 0
                             : n == 1 ? s.total_q - 1
                                      : static_cast<std::int64_t>(random() % s.total_q);
    const std::int64_t head = all ? n % s.heads : static_cast<std::int64_t>(random() % s.heads),
                       head_kv = head / (s.heads / s.heads_kv);
    std::vector<double> scores;
    std::vector<std::int64_t> keys;
    for (const Segment& segment : d.segments) {
      if (row < segment.q_begin || row >= segment.q_end) continue;
      const RowRange run = visible_keys(segment, row);
      for (std::int64_t key = run.begin; key < run.end; ++key) {
        double x = 0;
        for (std::int64_t i = 0; i < s.head_dim; ++i)
          x += number(q[static_cast<std::size_t>((row * s.heads + head) * s.head_dim + i)]) *
               number(k[static_cast<std::size_t>((key * s.heads_kv + head_kv) * s.head_dim + i)]);
        x *= d.params.score.softmax_scale;
        if (p.softcap > 0) x = p.softcap * std::tanh(x / p.softcap);
        scores.push_back(x), keys.push_back(key);
      }
    }
    const double seed = p.seed ? seed_lse[static_cast<std::size_t>(head * s.total_q + row)] : -INFINITY;
    const double sunk = p.sink ? sink[static_cast<std::size_t>(head)] : -INFINITY;
    double top = std::max(seed, sunk), total = 0;
    for (const double x : scores) top = std::max(top, x);
    if (top == -INFINITY) top = 0;
    total = std::exp(seed - top) + std::exp(sunk - top);
    for (const double x : scores) total += std::exp(x - top);
    const double want_lse = top + std::log(total), got_lse = lse[static_cast<std::size_t>(head * s.total_q + row)];
    const double lse_error = want_lse == got_lse ? 0 : std::abs(want_lse - got_lse) / (2e-5 * (1 + std::abs(want_lse)));
    double row_worst = 0;
    for (std::int64_t i = 0; i < s.head_dim_v; ++i) {
      const auto at = static_cast<std::size_t>((row * s.heads + head) * s.head_dim_v + i);
      double want = p.seed ? std::exp(seed - top) / total * seed_out[at] : 0, mass = 0;
      for (std::size_t j = 0; j < keys.size(); ++j) {
        const double term = std::exp(scores[j] - top) / total *
                            number(values[static_cast<std::size_t>((keys[j] * s.heads_kv + head_kv) * s.head_dim_v + i)]);
        want += term, mass += std::abs(term);
      }
      if (total == 0) want = 0;
      const double got = p.acc ? static_cast<double>(out32[at]) : number(out16[at]);
      const double error = std::abs(got - want) / (roundoff * (mass + std::abs(want)) + 1e-6);
      row_worst = error <= row_worst ? row_worst : error;
      if (error != error) row_worst = INFINITY;
    }
    worst = std::max(worst, row_worst), worst_lse = !(lse_error <= worst_lse) ? lse_error : worst_lse;
    if (!(row_worst <= 1) || !(lse_error <= 1)) {
      if (bad++ == 0)
        first_bad = "row " + std::to_string(row) + " head " + std::to_string(head) + " lse " + std::to_string(got_lse) +
                    " for " + std::to_string(want_lse);
    }
  }
  std::printf("%s %-18s %-26s out %.3f lse %.3f of what is allowed, %lld of %lld rows bad %s\n", bad == 0 ? "ok  " : "FAIL",
              v.name, p.name.c_str(), worst, worst_lse, static_cast<long long>(bad), static_cast<long long>(samples),
              first_bad.c_str());
}

struct Contender {
  Variant variant;
  std::int32_t together;
  std::vector<float> milliseconds{};
};

void flush_cache() {
  constexpr std::int64_t bytes = 256 << 20;
  static char* const memory = device_array<char>(bytes);
  must(cudaMemsetAsync(memory, 0, bytes), "flush");
}

// In turns, so that clock and temperature are the same for all.
void time_problem(const Problem& p, const std::string& only) {
  const Data d = make_data(p);
  const auto heads = static_cast<std::int32_t>(p.heads), group = static_cast<std::int32_t>(p.heads / p.heads_kv);
  std::vector<Contender> contenders;
  for (const Variant& v : variants()) {
    if (v.dim != forward_tile(d.shape).dim || v.dtype != p.dtype || (!only.empty() && only != v.name)) continue;
    contenders.push_back({v, usual_together(d.shape)});
    if (!contenders.empty() && std::string(v.name).find(' ') != std::string::npos) continue;
    for (std::int32_t together = group; only.empty() && together <= heads; together *= 2)
      if (together != usual_together(d.shape) && together * 4 >= heads) contenders.push_back({v, together});
  }
  cudaEvent_t begin, end;
  must(cudaEventCreate(&begin), "event"), must(cudaEventCreate(&end), "event");
  for (int round = 0; round < 13; ++round)
    for (Contender& c : contenders) {
      const ForwardArguments arguments = arguments_of(c.variant, d, c.together);
      flush_cache();
      must(cudaMemsetAsync(d.next_item, 0, 4), "counter");
      must(cudaEventRecord(begin), "event");
      c.variant.launch(arguments, nullptr);
      must(cudaEventRecord(end), "event");
      must(cudaEventSynchronize(end), c.variant.name);
      float milliseconds = 0;
      must(cudaEventElapsedTime(&milliseconds, begin, end), "event");
      if (round >= 3) c.milliseconds.push_back(milliseconds);
    }
  for (Contender& c : contenders) {
    std::sort(c.milliseconds.begin(), c.milliseconds.end());
    const double milliseconds = c.milliseconds[c.milliseconds.size() / 2];
    std::printf("%-26s %-18s %2d heads at a time %9.3f ms %7.1f TFLOP/s (best %.1f)\n", p.name.c_str(), c.variant.name,
                c.together, milliseconds, d.flops / milliseconds * 1e-9, d.flops / c.milliseconds[0] * 1e-9);
  }
}

__global__ void be_busy(long long cycles) {
  for (const long long begin = clock64(); clock64() - begin < cycles;) {
  }
}

// Behind a busy stream, so that the host's time to queue the kernels is not measured.
void time_whole(const Problem& p) {
  Data d = make_data(p);
  std::vector<Variant> fitting = variants();
  std::erase_if(fitting, [&](const Variant& v) { return v.dim != forward_tile(d.shape).dim || v.dtype != p.dtype; });
  std::vector<std::int32_t> offsets{0};
  for (const Document& document : p.documents) offsets.push_back(offsets.back() + static_cast<std::int32_t>(document.queries));
  CuSeqlens in{};
  in.q = in.k = to_device(offsets), in.batch = static_cast<std::int64_t>(p.documents.size());
  in.total_q = d.shape.total_q, in.total_k = d.shape.total_k, in.left = p.left, in.right = p.right;
  const ListRequest request{d.params.segments, d.params.segment_count, d.shape, true, false};
  char* const memory = device_array<char>(tile_list_bytes(request));
  cudaEvent_t begin, end;
  must(cudaEventCreate(&begin), "event"), must(cudaEventCreate(&end), "event");
  std::vector<float> milliseconds;
  for (int round = 0; round < 23; ++round) {
    flush_cache();
    be_busy<<<1, 1>>>(400'000);
    must(cudaEventRecord(begin), "event");
    cu_seqlens_to_segments(in, const_cast<Segment*>(d.params.segments), nullptr);
    const TileLists lists = build_tile_lists(request, memory, nullptr);
    d.queries = lists.queries, d.next_item = lists.counters;
    fitting[0].launch(arguments_of(fitting[0], d, usual_together(d.shape)), nullptr);
    must(cudaEventRecord(end), "event");
    must(cudaEventSynchronize(end), "whole");
    float each = 0;
    must(cudaEventElapsedTime(&each, begin, end), "event");
    if (round >= 3) milliseconds.push_back(each);
  }
  std::sort(milliseconds.begin(), milliseconds.end());
  const double median = milliseconds[milliseconds.size() / 2];
  std::printf("%-26s whole %9.4f ms %7.1f TFLOP/s\n", p.name.c_str(), median, d.flops / median * 1e-9);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "", wanted = argc > 2 ? argv[2] : "", only = argc > 3 ? argv[3] : "";
  if (mode == "check") {
    for (const Variant& v : variants()) {
      if (std::string(v.name).find(wanted) == std::string::npos || (!only.empty() && only != v.name)) continue;
      const std::int64_t dim = v.dim, dim_v = v.dim == 192 ? 128 : v.dim;
      for (const Problem& p : problems_to_check(dim, dim_v, v.dtype)) check_problem(v, p), std::fflush(stdout);
    }
    return 0;
  }
  if (mode == "time") {
    for (const Problem& p : problems_to_time())
      if (p.name.find(wanted) != std::string::npos) time_problem(p, only), std::fflush(stdout);
    return 0;
  }
  if (mode == "whole") {
    for (const Problem& p : problems_to_time())
      if (p.name.find(wanted) != std::string::npos) time_whole(p), std::fflush(stdout);
    return 0;
  }
  std::printf("usage: %s check|time|whole [NAME] [VARIANT]\n", argv[0]);
  return 2;
}
