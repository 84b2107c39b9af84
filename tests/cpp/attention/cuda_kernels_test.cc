// The CUDA kernels, run on the CPU (support/cuda_on_cpu.h), against the definition in float64. Not covered: what a GPU
// alone can show, such as the launch itself and its registers; see docs/cuda.md.
#include "support/cuda_on_cpu.h"
// The emulator's names must be known before the kernels.
#include <cstdio>

#include "attention/attention_case.h"
#include "hetsp/attention/cuda/backward.cuh"
#include "hetsp/attention/cuda/bucket.h"
#include "hetsp/attention/cuda/cu_seqlens.cuh"
#include "hetsp/attention/cuda/forward.cuh"
#include "hetsp/attention/cuda/merge.cuh"
#include "hetsp/attention/cuda/segment_index.cuh"
#include "support/check.h"

using namespace attention_case;
namespace cuda = hetsp::attention::cuda;

namespace {

// Rounding errors allowed, in units of attention_case::worst_error. A key too many or too few costs 10^4 and more in
// float32, and 10^12 in float64.
constexpr double kUnits = 8;

// Few blocks, so that each one takes several tiles and must leave shared memory fit for the next.
constexpr unsigned kBlocks = 3;

struct Nothing {};

struct Index {
  std::vector<cuda::SegmentRange> ranges;
  cuda::SegmentIndex index{};
};

Index build_index(const std::vector<Segment>& segments, const Shape& shape) {
  const auto blocks = [](std::int64_t rows) { return (rows + cuda::index_rows - 1) / cuda::index_rows; };
  Index result;
  result.ranges.assign(static_cast<std::size_t>(blocks(shape.total_q) + blocks(shape.total_k)), {123456, 654321});
  result.index = {result.ranges.data(), result.ranges.data() + blocks(shape.total_q)};
  const auto count = static_cast<std::int64_t>(result.ranges.size());
  cuda_on_cpu::launch<Nothing>(2, cuda::block_threads, [&](Nothing&) { cuda::clear_index(result.ranges.data(), count); });
  cuda_on_cpu::launch<Nothing>(2, cuda::block_threads, [&](Nothing&) {
    cuda::mark_segments(segments.data(), static_cast<std::int64_t>(segments.size()), shape, result.index);
  });
  return result;
}

struct Output {
  Array out, lse;
};

Output run_forward(const Case& c) {
  const Shape& s = c.shape;
  Output result{Array(c.out_dtype(), s.total_q, s.heads, s.head_dim_v, s.heads * s.head_dim_v + 3, s.head_dim_v),
                Array(c.acc(), s.heads * s.total_q)};
  const Index index = build_index(c.segments, s);
  const ForwardParams params{s,
                             c.score,
                             c.segments.data(),
                             static_cast<std::int64_t>(c.segments.size()),
                             c.q.view(),
                             c.k.view(),
                             c.v.view(),
                             c.sink.data(),
                             c.seed_out.view(),
                             c.seed_lse.data(),
                             result.out.view(),
                             c.out_is_acc,
                             result.lse.data()};
  cuda::select(s, [&](auto acc, auto bucket) {
    using Shared = cuda::ForwardShared<decltype(acc), decltype(bucket)::value>;
    cuda_on_cpu::launch<Shared>(kBlocks, cuda::block_threads,
                                [&](Shared& shared) { cuda::forward_tiles(params, index.index, shared); });
  });
  return result;
}

struct Gradients {
  Array dq, dk, dv, dsink;
};

Gradients run_backward(const Case& c, const Output& output) {
  const Shape& s = c.shape;
  Gradients result{Array(c.grad_dtype(), s.total_q, s.heads, s.head_dim, s.heads * s.head_dim, s.head_dim),
                   Array(c.grad_dtype(), s.total_k, s.heads_kv, s.head_dim, s.heads_kv * s.head_dim + 1, s.head_dim),
                   Array(c.grad_dtype(), s.total_k, s.heads_kv, s.head_dim_v, s.head_dim_v, s.total_k * s.head_dim_v),
                   Array(c.acc(), c.has_sink ? s.heads : 0)};
  const Array delta(c.acc(), s.heads * s.total_q);
  const Index index = build_index(c.segments, s);
  const BackwardParams params{s,
                              c.score,
                              c.segments.data(),
                              static_cast<std::int64_t>(c.segments.size()),
                              c.q.view(),
                              c.k.view(),
                              c.v.view(),
                              output.out.view(),
                              c.dout.view(),
                              c.out_is_acc,
                              output.lse.data(),
                              c.has_dlse ? c.dlse.data() : nullptr,
                              c.has_sink ? c.sink.data() : nullptr,
                              delta.data(),
                              result.dq.view(),
                              result.dk.view(),
                              result.dv.view(),
                              c.grads_are_acc,
                              c.has_sink ? result.dsink.data() : nullptr};
  cuda::select(s, [&](auto acc, auto bucket) {
    using Acc = decltype(acc);
    using Shared = cuda::BackwardShared<Acc, decltype(bucket)::value>;
    using Partial = Acc[cuda::groups][cuda::lanes];
    using Sums = double[cuda::block_threads];
    cuda_on_cpu::launch<Partial>(kBlocks, cuda::block_threads,
                                 [&](Partial& partial) { cuda::backward_delta(params, partial); });
    if (c.has_sink)
      cuda_on_cpu::launch<Sums>(2, cuda::block_threads, [&](Sums& partial) { cuda::backward_dsink<Acc>(params, partial); });
    cuda_on_cpu::launch<Shared>(kBlocks, cuda::block_threads,
                                [&](Shared& shared) { cuda::backward_dq(params, index.index, shared); });
    cuda_on_cpu::launch<Shared>(kBlocks, cuda::block_threads,
                                [&](Shared& shared) { cuda::backward_dkdv(params, index.index, shared); });
  });
  return result;
}

double worst_seen = 0;

void check_close(const char* what, const Array& actual, const std::vector<Sum>& expected, DType dtype, DType acc) {
  const double worst = worst_error(actual.values(), expected, dtype, acc);
  worst_seen = std::max(worst_seen, worst);
  if (worst > kUnits) check::fail(__FILE__, __LINE__, std::string(what) + " is off by " + std::to_string(worst) + " units");
}

void check_case(const Case& c) {
  check::context() = c.label;
  const Forward expected = forward(c);
  const Output output = run_forward(c);
  check_close("out", output.out, expected.out, c.out_dtype(), c.acc());
  check_close("lse", output.lse, expected.lse, c.acc(), c.acc());
  const Backward gradient = backward(c, output.out, output.lse);
  const Gradients actual = run_backward(c, output);
  check_close("dq", actual.dq, gradient.dq, c.grad_dtype(), c.acc());
  check_close("dk", actual.dk, gradient.dk, c.grad_dtype(), c.acc());
  check_close("dv", actual.dv, gradient.dv, c.grad_dtype(), c.acc());
  if (c.has_sink) check_close("dsink", actual.dsink, gradient.dsink, c.acc(), c.acc());
}

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr unsigned kSeeds = 2;  // 10 to 20 times slower there, and it is addresses and barriers that are looked at
#else
constexpr unsigned kSeeds = 12;
#endif

void check_random(DType dtype, const std::vector<Dims>& all_dims, std::int64_t most_tokens) {
  worst_seen = 0;
  unsigned seed = 1000 * static_cast<unsigned>(dtype);
  for (const Dims& dims : all_dims)
    for (unsigned i = 0; i < kSeeds; ++i) check_case(random_case(seed++, dtype, dims, most_tokens));
  std::printf("     %s: %zu cases, worst error %.1f of %.0f units\n", name(dtype), all_dims.size() * kSeeds, worst_seen,
              kUnits);
}

}  // namespace

TEST(random_float32) { check_random(DType::float32, {{64, 64}, {17, 40}, {80, 64}, {128, 128}, {1, 1}}, 150); }
TEST(random_float64) { check_random(DType::float64, {{64, 64}, {40, 17}, {96, 128}}, 150); }
TEST(random_bfloat16) { check_random(DType::bfloat16, {{64, 64}, {72, 72}}, 150); }
TEST(random_float16) { check_random(DType::float16, {{64, 64}, {16, 32}}, 150); }
TEST(random_wide_heads) {
  check_random(DType::float32, {{256, 256}, {192, 128}}, 66);
  check_random(DType::float64, {{129, 256}}, 66);
}

TEST_MAIN()
