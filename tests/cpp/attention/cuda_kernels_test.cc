// The CUDA kernels, run on the CPU (support/cuda_on_cpu.h),
// against the definition in float64. Not covered: what a GPU alone can show, such as the launch itself and its registers; see
// docs/cuda.md.
#include "support/cuda_on_cpu.h"
// The emulator's names must be known before the kernels.
#include <cstdio>

#include "attention/attention_call.h"
#include "attention/attention_case.h"
#include "attention/attention_truth.h"
#include "hetsp/attention/cpu/backward.h"
#include "hetsp/attention/cpu/forward.h"
#include "hetsp/attention/cuda/bucket.h"
#include "hetsp/attention/cuda/cu_seqlens.cuh"
#include "hetsp/attention/cuda/merge.cuh"
#include "hetsp/attention/cuda/scalar/backward.cuh"
#include "hetsp/attention/cuda/scalar/forward.cuh"
#include "hetsp/attention/cuda/segment_index.cuh"
#include "hetsp/attention/cuda_kernels.h"
#include "hetsp/base/thread_pool.h"
#include "hetsp/device/device.h"
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

Output run_forward(const Case& c) {
  Output output = empty_output(c);
  const Index index = build_index(c.segments, c.shape);
  const ForwardParams params = forward_params(c, output);
  cuda::select(c.shape, [&](auto acc, auto bucket) {
    using Shared = cuda::ForwardShared<decltype(acc), decltype(bucket)::value>;
    cuda_on_cpu::launch<Shared>(kBlocks, cuda::block_threads,
                                [&](Shared& shared) { cuda::forward_tiles(params, index.index, shared); });
  });
  return output;
}

Gradients run_backward(const Case& c, const Output& output) {
  Gradients gradients = empty_gradients(c);
  const Array delta(c.acc(), c.shape.heads * c.shape.total_q);
  const Index index = build_index(c.segments, c.shape);
  const BackwardParams params = backward_params(c, output, gradients, delta);
  cuda::select(c.shape, [&](auto acc, auto bucket) {
    using Acc = decltype(acc);
    using Shared = cuda::BackwardShared<Acc, decltype(bucket)::value>;
    using Partial = double[cuda::groups][cuda::lanes];
    using Sums = double[cuda::block_threads];
    const auto run = [](const auto& body) { cuda_on_cpu::launch<Shared>(kBlocks, cuda::block_threads, body); };
    cuda_on_cpu::launch<Partial>(kBlocks, cuda::block_threads,
                                 [&](Partial& sums) { cuda::backward_delta<Acc>(delta_params(params), sums); });
    if (c.has_sink)
      cuda_on_cpu::launch<Sums>(2, cuda::block_threads, [&](Sums& sums) { cuda::backward_dsink<Acc>(params, sums); });
    run([&](Shared& shared) { cuda::backward_dq(params, index.index, shared); });
    run([&](Shared& shared) { cuda::backward_dkdv(params, index.index, shared); });
  });
  return gradients;
}

double worst_seen = 0;  // by the tests of this file so far

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

// Two implementations of one contract: whatever both read, write and leave out must be the same.
TEST(the_cpu_backend_agrees) {
  hetsp::ThreadPool pool(1);
  for (unsigned seed = 500; seed < 500 + 2 * kSeeds; ++seed) {
    const Case c = random_case(seed, seed % 2 ? DType::float32 : DType::float64, {40, 24}, 150);
    check::context() = c.label;
    const Forward expected = forward(c);
    const Output output = run_forward(c);
    Output cpu = empty_output(c);
    hetsp::attention::cpu::forward(forward_params(c, cpu), pool);
    check_close("out of the CPU", cpu.out, expected.out, c.out_dtype(), c.acc());
    check_close("lse of the CPU", cpu.lse, expected.lse, c.acc(), c.acc());
    Gradients host = empty_gradients(c);
    const Array delta(c.acc(), c.shape.heads * c.shape.total_q);
    hetsp::attention::cpu::backward(backward_params(c, output, host, delta), pool);
    const Backward gradient = backward(c, output.out, output.lse);
    check_close("dq of the CPU", host.dq, gradient.dq, c.grad_dtype(), c.acc());
    check_close("dk of the CPU", host.dk, gradient.dk, c.grad_dtype(), c.acc());
    check_close("dv of the CPU", host.dv, gradient.dv, c.grad_dtype(), c.acc());
  }
}

// A document alone, and the same one behind another: every sum must be grouped alike, or results depend on the neighbours.
TEST(a_sequence_alone_equals_itself_in_a_batch_bitwise) {
  const std::int64_t tokens = 150, q0 = 37, k0 = 11, heads = 2, dim = 40;
  for (const std::int64_t left : {-1, 20}) {
    const Case batch = plain_case({q0 + tokens, k0 + tokens, heads, 1, dim, dim, DType::float32},
                                  {{0, q0, 0, k0, k0 - q0, 0, -1, 0}, {q0, q0 + tokens, k0, k0 + tokens, 0, 0, left, 0}}, 5);
    Case alone = plain_case({tokens, tokens, heads, 1, dim, dim, DType::float32}, {{0, tokens, 0, tokens, 0, 0, left, 0}}, 6);
    const auto each = [&](const auto& body) {
      for (std::int64_t i = 0; i < tokens; ++i)
        for (std::int64_t h = 0; h < heads; ++h)
          for (std::int64_t x = 0; x < dim; ++x) body(i, h, x);
    };
    each([&](std::int64_t i, std::int64_t h, std::int64_t x) {
      alone.q.set(i, h, x, batch.q.at(q0 + i, h, x)), alone.dout.set(i, h, x, batch.dout.at(q0 + i, h, x));
      alone.k.set(i, 0, x, batch.k.at(k0 + i, 0, x)), alone.v.set(i, 0, x, batch.v.at(k0 + i, 0, x));
    });
    const Output one = run_forward(alone), many = run_forward(batch);
    const Gradients one_gradient = run_backward(alone, one), many_gradient = run_backward(batch, many);
    int different = 0;
    each([&](std::int64_t i, std::int64_t h, std::int64_t x) {
      different += one.lse.at(h * tokens + i) != many.lse.at(h * (q0 + tokens) + q0 + i);
      different += one.out.at(i, h, x) != many.out.at(q0 + i, h, x);
      different += one_gradient.dq.at(i, h, x) != many_gradient.dq.at(q0 + i, h, x);
      different += one_gradient.dk.at(i, 0, x) != many_gradient.dk.at(k0 + i, 0, x);
      different += one_gradient.dv.at(i, 0, x) != many_gradient.dv.at(k0 + i, 0, x);
    });
    CHECK_EQ(different, 0);
  }
}

// There D = dout . v, summed elsewhere in another order, and only what the two round differently would be left.
TEST(rows_with_one_key_have_no_gradient_by_their_score) {
  const std::int64_t rows = 70, dim = 96;
  const Case c = plain_case({rows, rows, 2, 1, dim, dim, DType::float32}, {{0, rows, 0, rows, 0, 0, 0, 0}}, 4);
  const Gradients gradient = run_backward(c, run_forward(c));
  int different = 0;
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t x = 0; x < dim; ++x) {
      different += gradient.dq.at(i, 0, x) != 0 || gradient.dq.at(i, 1, x) != 0;
      different += gradient.dk.at(i, 0, x) != 0;
    }
  CHECK_EQ(different, 0);
}

TEST(a_visible_nan_comes_out_and_a_hidden_one_does_not) {
  Case c = plain_case({40, 40, 1, 1, 16, 16, DType::float32}, {{0, 40, 0, 40, 0, 0, -1, 0}}, 3);
  c.k.set(30, 0, 4, kNaN), c.v.set(20, 0, 7, kNaN);
  const Output output = run_forward(c);
  const Gradients gradient = run_backward(c, output);
  for (std::int64_t row = 0; row < 40; ++row) {
    CHECK_EQ(std::isnan(output.lse.at(row)), row >= 30);
    CHECK_EQ(std::isnan(output.out.at(row, 0, 6)), row >= 30);
    CHECK_EQ(std::isnan(output.out.at(row, 0, 7)), row >= 20);
    CHECK_EQ(std::isnan(gradient.dq.at(row, 0, 0)), row >= 20);
  }
}

TEST(scores_far_below_zero) {  // where a finite stand-in for minus infinity would win
  Case c = plain_case({100, 100, 1, 1, 16, 16, DType::float32}, {{0, 100, 0, 100, 0, 0, -1, 0}}, 8);
  for (std::int64_t i = 0; i < 100; ++i) c.q.set(i, 0, 0, 1e4), c.k.set(i, 0, 0, -1e4);
  check_case(c);
}

// Contents of segments cannot be checked on the device: rows outside the tensors are cut off, and nothing else is touched.
TEST(segments_outside_the_tensors_are_cut) {
  Case c = plain_case({50, 70, 1, 1, 16, 16, DType::float32}, {}, 4);
  const std::int64_t far = std::int64_t{1} << 40;
  c.segments = {{-7, 20, -30, 40, 0, 0, -1, 5},
                {10, far, 60, far, 3, 3, 4, -1},
                {far, 2 * far, 0, 70, 0, 0, -1, -1},
                {30, 10, 20, 5, 0, 0, -1, -1},
                {-far, -5, 0, 70, 0, 0, 0, 0}};
  std::vector<Segment> cut = {{0, 20, 0, 40, 7, 30, -1, 5}, {10, 50, 60, 70, 3, 3, 4, -1}};  // positions of what is left
  const Output all = run_forward(c);
  const Gradients all_gradient = run_backward(c, all);
  c.segments = cut;
  const Output expected = run_forward(c);
  const Gradients gradient = run_backward(c, expected);
  CHECK(all.out.values() == expected.out.values());
  CHECK(all.lse.values() == expected.lse.values());
  CHECK(all_gradient.dq.values() == gradient.dq.values());
  CHECK(all_gradient.dk.values() == gradient.dk.values());
  CHECK(all_gradient.dv.values() == gradient.dv.values());
}

// Rows of 16-bit numbers that allow it are read eight at a time; `odd` more numbers between the rows forbid it.
TEST(delta_of_rows_in_eights_and_one_by_one) {
  const std::int64_t rows = 21, heads = 3;
  for (const DType type : {DType::bfloat16, DType::float16})
    for (const std::int64_t dim : {8, 64, 72, 136})
      for (const std::int64_t odd : {0, 1, 8}) {
        check::context() = std::string(name(type)) + ", dim " + std::to_string(dim) + ", odd " + std::to_string(odd);
        Random random(31);
        Array out(type, rows, heads, dim, heads * dim + odd, dim), dout(type, rows, heads, dim, dim, rows * dim + 8);
        Array lse(DType::float32, heads * rows), dlse(DType::float32, heads * rows), delta(DType::float32, heads * rows);
        for (std::int64_t i = 0; i < rows; ++i)
          for (std::int64_t h = 0; h < heads; ++h) {
            lse.set(h * rows + i, i % 5 == 0 ? -kInfinity : 1), dlse.set(h * rows + i, random.normal());
            for (std::int64_t x = 0; x < dim; ++x) out.set(i, h, x, random.normal()), dout.set(i, h, x, random.normal());
          }
        const DeltaParams params{rows, heads, dim, type, out.view(), dout.view(), lse.data(), dlse.data(), delta.data()};
        using Partial = double[cuda::groups][cuda::lanes];
        cuda_on_cpu::launch<Partial>(2, cuda::block_threads, [&](Partial& sums) { cuda::backward_delta<float>(params, sums); });
        for (std::int64_t i = 0; i < rows; ++i)
          for (std::int64_t h = 0; h < heads; ++h) {
            double sum = -dlse.at(h * rows + i), size = std::abs(sum);
            for (std::int64_t x = 0; x < dim; ++x) {
              const double term = out.at(i, h, x) * dout.at(i, h, x);
              sum += term, size += std::abs(term);
            }
            CHECK_NEAR(delta.at(h * rows + i), i % 5 == 0 ? 0 : sum, 4 * roundoff(DType::float32) * size);
          }
      }
}

TEST(merge_joins_two_halves) {
  const std::int64_t rows = 37, heads = 3, dim = 19;
  for (const DType type : {DType::float32, DType::float64}) {
    Random random(9);
    Array out_a = random_array(random, type, rows, heads, dim, false),
          out_b = random_array(random, type, rows, heads, dim, false);
    Array lse_a(type, heads * rows), lse_b(type, heads * rows), out(type, rows, heads, dim, heads * dim + 2, dim),
        lse(type, heads * rows);
    for (std::int64_t i = 0; i < heads * rows; ++i) {
      lse_a.set(i, i % 4 == 0 ? -kInfinity : 100 * random.normal()),
          lse_b.set(i, i % 6 == 0 ? -kInfinity : 100 * random.normal());
      const std::int64_t row = i % rows, head = i / rows;
      for (std::int64_t x = 0; x < dim && lse_a.at(i) != -kInfinity; ++x) out_a.set(row, head, x, random.normal());  // else NaN
      for (std::int64_t x = 0; x < dim && lse_b.at(i) != -kInfinity; ++x) out_b.set(row, head, x, random.normal());
    }
    const MergeParams params{rows,         heads,        dim,          type == DType::float64, out_a.view(),
                             out_b.view(), lse_a.data(), lse_b.data(), out.mutable_view(),     lse.data()};
    cuda_on_cpu::launch<Nothing>(2, cuda::block_threads, [&](Nothing&) {
      if (type == DType::float64) return cuda::merge_rows<double>(params);
      cuda::merge_rows<float>(params);
    });
    for (std::int64_t i = 0; i < heads * rows; ++i) {
      const double a = lse_a.at(i), b = lse_b.at(i), top = std::max(a, b);
      const double joined = top == -kInfinity ? -kInfinity : top + std::log(std::exp(a - top) + std::exp(b - top));
      CHECK_NEAR(lse.at(i), joined, 4 * roundoff(type) * (1 + std::abs(joined)));
      for (std::int64_t x = 0; x < dim; ++x) {
        const std::int64_t row = i % rows, head = i / rows;
        const double part_a = a == -kInfinity ? 0 : out_a.at(row, head, x) / (1 + std::exp(b - a));
        const double part_b = b == -kInfinity ? 0 : out_b.at(row, head, x) / (1 + std::exp(a - b));
        CHECK_NEAR(out.at(row, head, x), part_a + part_b,
                   4 * roundoff(type) * (std::abs(part_a) + std::abs(part_b)) * (std::isinf(a - b) ? 1 : 1 + std::abs(a - b)));
      }
    }
  }
}

TEST(cu_seqlens_become_segments) {
  const std::vector<std::int32_t> q{0, 3, 3, 10}, k{0, 5, 5, 6};
  std::vector<Segment> segments(3), expected(3);
  const CuSeqlens good{q.data(), k.data(), false, 3, 12, 6, 0, 0, 4, 0};
  cuda_on_cpu::launch<Nothing>(1, cuda::block_threads, [&](Nothing&) { cuda::write_segments(good, segments.data()); });
  cu_seqlens_to_segments({q.data(), k.data(), false, 3, 12, 6, 7, 5, 4, 0}, expected.data());
  for (std::size_t i = 0; i < 3; ++i) CHECK(std::memcmp(&segments[i], &expected[i], sizeof(Segment)) == 0);

  const std::vector<std::int32_t> used_q{2, 0, 7}, used_k{4, 0, 0};
  CuSeqlens used{q.data(), k.data(), false, 3, 12, 6, 7, 5, 4, 0, used_q.data(), used_k.data()};
  cu_seqlens_to_segments(used, expected.data());
  cuda_on_cpu::launch<Nothing>(1, cuda::block_threads, [&](Nothing&) { cuda::write_segments(used, segments.data()); });
  for (std::size_t i = 0; i < 3; ++i) CHECK(std::memcmp(&segments[i], &expected[i], sizeof(Segment)) == 0);
  const std::vector<std::int32_t> too_many{9, -1, 100};
  used.used_q = used.used_k = too_many.data();
  cuda_on_cpu::launch<Nothing>(1, cuda::block_threads, [&](Nothing&) { cuda::write_segments(used, segments.data()); });
  CHECK(segments[0].q_end == 3 && segments[1].q_end == 3 && segments[2].q_end == 10 && segments[2].k_end == 6);

  const std::vector<std::int64_t> wild{-5, std::int64_t{1} << 60, 4, 4, -(std::int64_t{1} << 60), 9};
  segments.resize(5);
  const CuSeqlens bad{wild.data(), wild.data(), true, 5, 8, 6, 0, 0, -1, -1};
  cuda_on_cpu::launch<Nothing>(1, cuda::block_threads, [&](Nothing&) { cuda::write_segments(bad, segments.data()); });
  for (const Segment& s : segments) {
    CHECK(0 <= s.q_begin && s.q_begin <= s.q_end && s.q_end <= 8);
    CHECK(0 <= s.k_begin && s.k_begin <= s.k_end && s.k_end <= 6);
  }
}

TEST(the_index_names_the_first_and_last_segment_of_every_block) {
  Random random(21);
  for (int round = 0; round < 20; ++round) {
    Case c;
    random_segments(random, c, 150);
    const Index actual = build_index(c.segments, c.shape);
    const auto check = [&](const cuda::SegmentRange* ranges, std::int64_t total, auto begin, auto end) {
      for (std::int64_t block = 0; block * cuda::index_rows < total; ++block) {
        cuda::SegmentRange range{0x7fffffff, -1};
        for (std::int32_t i = 0; i < static_cast<std::int32_t>(c.segments.size()); ++i) {
          const Segment& s = c.segments[static_cast<std::size_t>(i)];
          if (s.q_begin >= s.q_end || s.k_begin >= s.k_end || s.*begin >= (block + 1) * cuda::index_rows ||
              s.*end <= block * cuda::index_rows)
            continue;
          range = {std::min(range.first, i), i};
        }
        CHECK_EQ(ranges[block].first, range.first);
        CHECK_EQ(ranges[block].last, range.last);
      }
    };
    check(actual.index.queries, c.shape.total_q, &Segment::q_begin, &Segment::q_end);
    check(actual.index.keys, c.shape.total_k, &Segment::k_begin, &Segment::k_end);
  }
}

TEST(buckets_and_their_limit) {
  const auto bucket = [](std::int64_t dim, std::int64_t dim_v) {
    int chosen = 0;
    cuda::select({1, 1, 1, 1, dim, dim_v, DType::float32}, [&](auto, auto size) { chosen = decltype(size)::value; });
    return chosen;
  };
  CHECK_EQ(bucket(1, 64), 64);
  CHECK_EQ(bucket(65, 64), 128);
  CHECK_EQ(bucket(40, 129), 256);
  CHECK_THROWS(hetsp::InvalidArgument, "head_dim 64, head_dim_v 257", bucket(64, 257));
}

TEST(without_a_device_a_launch_says_why) {
  if (hetsp::device::cuda_device_count() > 0) return (void)std::printf("     skipped: this machine has a CUDA device\n");
  ForwardParams params{};
  params.shape = {1, 1, 1, 1, 8, 8, DType::float32};
  CHECK_THROWS(hetsp::device::DeviceError, "", cuda::forward(params, cuda::Family::scalar, nullptr, nullptr));
  if (!hetsp::device::cuda_compiled())
    CHECK_THROWS(hetsp::device::DeviceError, "attention on CUDA is absent: hetsp_ext was built without CUDA",
                 cuda::merge({}, nullptr));
}

TEST_MAIN()
