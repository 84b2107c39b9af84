// The forward of the tensor-core kernels, run on the CPU (support/mma_on_cpu.h), against the definition in float64.
#include "support/mma_on_cpu.h"
// The emulator's names must be known before the kernels.
#include <type_traits>

#include "attention/attention_call.h"
#include "attention/attention_case.h"
#include "attention/attention_truth.h"
#include "attention/mma_case.h"
#include "attention/mma_check.h"
#include "hetsp/attention/cuda/mma/forward.cuh"
#include "hetsp/attention/cuda/mma/repair.cuh"
#include "support/check.h"

using namespace attention_case;
namespace cuda = hetsp::attention::cuda;
namespace mma = hetsp::attention::cuda::mma;

namespace {

struct Run {
  Output output;
  std::int32_t suspects;
};

template <class Element, int Dim, class Plan = mma::ForwardPlan<Dim>>
Run run_as(const Case& c, const HostTiles& tiles) {
  Run run{empty_output(c), 0};
  const ForwardParams params = forward_params(c, run.output);
  std::vector<std::int32_t> words = fresh_scratch();
  const mma::Scratch scratch = mma::scratch_of_pass(words.data(), 0);
  using Shared = mma::ForwardShared<Dim, Plan>;
  cuda_on_cpu::launch<Shared>(kBlocks, Plan::warps * mma::warp_lanes, [&](Shared& shared) {
    mma::forward_items<Element, Dim, Plan>(params, tiles.list(), scratch, shared);
  });
  run.suspects = *scratch.suspect_count;
  using Repair = mma::RepairForwardShared<Dim>;
  cuda_on_cpu::launch<Repair>(kBlocks, cuda::block_threads,
                              [&](Repair& shared) { mma::repair_forward_items(params, tiles.list(), scratch, shared); });
  return run;
}

Run run_forward(const Case& c, const HostTiles& tiles) {
  const std::int64_t dim = std::max(c.shape.head_dim, c.shape.head_dim_v);
  const auto bucket = [&](auto element) {
    using Element = decltype(element);
    if (dim > 128 && c.shape.total_q % 2 == 0) return run_as<Element, 256, mma::WideForwardPlan>(c, tiles);
    return dim <= 64    ? run_as<Element, 64>(c, tiles)
           : dim <= 128 ? run_as<Element, 128>(c, tiles)
                        : run_as<Element, 256>(c, tiles);
  };
  return c.shape.dtype == DType::bfloat16 ? bucket(BFloat16{}) : bucket(Float16{});
}

void check_case(const Case& c, const HostTiles& tiles) {
  check::context() = c.label;
  const Forward expected = forward(c);
  const Run run = run_forward(c, tiles);
  suspects_seen += run.suspects;
  check_close("out", run.output.out, expected.out, c.out_dtype());
  check_close("lse", run.output.lse, expected.lse, DType::float32);
}

void check_random(DType dtype, unsigned first_seed, const std::vector<Dims>& all_dims, std::int64_t most_tokens) {
  attention_case::check_random(dtype, first_seed, all_dims, most_tokens,
                               [](const Case& c, Random& random) { check_case(c, query_tiles(random, c)); });
}

}  // namespace

TEST(random_float16) { check_random(DType::float16, 7000, {{64, 64}, {17, 40}, {1, 1}, {72, 128}}, 200); }
TEST(random_bfloat16) { check_random(DType::bfloat16, 7100, {{64, 64}, {80, 64}, {128, 96}}, 200); }
TEST(random_wide_heads) {
  check_random(DType::float16, 7200, {{256, 256}, {192, 128}}, 130);
  check_random(DType::bfloat16, 7300, {{130, 256}}, 130);
}

// A document alone, and the same one behind another and cut into other tiles: its sums must be grouped alike.
TEST(a_sequence_alone_equals_itself_in_a_batch_bitwise) {
  const std::int64_t tokens = 150, q0 = 37, k0 = 11, dim = 40;
  for (const std::int64_t left : {-1, 20}) {
    const Case batch = plain_case({q0 + tokens, k0 + tokens, 1, 1, dim, dim, DType::bfloat16},
                                  {{0, q0, 0, k0, k0 - q0, 0, -1, 0}, {q0, q0 + tokens, k0, k0 + tokens, 0, 0, left, 0}}, 5);
    Case alone = plain_case({tokens, tokens, 1, 1, dim, dim, DType::bfloat16}, {{0, tokens, 0, tokens, 0, 0, left, 0}}, 6);
    for (std::int64_t i = 0; i < tokens; ++i)
      for (std::int64_t x = 0; x < dim; ++x) {
        alone.q.set(i, 0, x, batch.q.at(q0 + i, 0, x));
        alone.k.set(i, 0, x, batch.k.at(k0 + i, 0, x)), alone.v.set(i, 0, x, batch.v.at(k0 + i, 0, x));
      }
    Random random(7);
    const Run one = run_forward(alone, query_tiles(random, alone)), many = run_forward(batch, query_tiles(random, batch));
    int different = 0;
    for (std::int64_t i = 0; i < tokens; ++i) {
      different += one.output.lse.at(i) != many.output.lse.at(q0 + i);
      for (std::int64_t x = 0; x < dim; ++x) different += one.output.out.at(i, 0, x) != many.output.out.at(q0 + i, 0, x);
    }
    CHECK_EQ(different, 0);
  }
}

TEST(a_visible_nan_comes_out_a_hidden_one_does_not_and_nobody_else_notices) {
  const std::int64_t tokens = 140, nan_k = 30, nan_v = 20, dim = 16;
  const Case plain = plain_case({tokens, tokens, 1, 1, dim, dim, DType::bfloat16},
                                {{0, 100, 0, 100, 0, 0, -1, 0}, {100, tokens, 100, tokens, 0, 0, -1, 0}}, 3);
  Case c = plain_case(plain.shape, plain.segments, 3);
  c.k.set(nan_k, 0, 4, kNaN), c.v.set(nan_v, 0, 7, kNaN);
  Random random(3);
  const HostTiles tiles = query_tiles(random, c);
  const Run run = run_forward(c, tiles), without = run_forward(plain, tiles);
  CHECK(run.suspects > 0);
  CHECK_EQ(without.suspects, 0);
  const Forward expected = forward(plain);
  for (std::int64_t row = 0; row < tokens; ++row) {
    const bool sees_k = row >= nan_k && row < 100, sees_v = row >= nan_v && row < 100;
    CHECK_EQ(std::isnan(run.output.lse.at(row)), sees_k);
    for (std::int64_t x = 0; x < dim; ++x) {
      CHECK_EQ(std::isnan(run.output.out.at(row, 0, x)), sees_k || (sees_v && x == 7));
      if (row >= 100) CHECK_EQ(run.output.out.at(row, 0, x), without.output.out.at(row, 0, x));
      if (row >= nan_v) continue;  // hidden from these: exact, if not to the bit
      const Sum& sum = expected.out[static_cast<std::size_t>(row * dim + x)];
      CHECK_NEAR(run.output.out.at(row, 0, x), sum.value, roundoff(DType::bfloat16) * (std::abs(sum.value) + sum.mass));
    }
  }
}

TEST(scores_far_below_zero_and_scales_that_are_not_positive) {  // a finite stand-in for minus infinity would win
  Case c = plain_case({100, 100, 1, 1, 16, 16, DType::float16}, {{0, 100, 0, 100, 0, 0, -1, 0}}, 8);
  Random random(8);
  const HostTiles tiles = query_tiles(random, c);
  for (const double scale : {-0.3, 0.0}) {
    c.score.softmax_scale = scale;
    check_case(c, tiles);
  }
  c.score.softmax_scale = 0.25;
  for (std::int64_t i = 0; i < 100; ++i) c.q.set(i, 0, 0, 1e4), c.k.set(i, 0, 0, -1e4);
  check_case(c, tiles);
}

// Contents of segments cannot be checked on the device: rows outside the tensors are cut off, and nothing else is touched.
TEST(segments_outside_the_tensors_are_cut) {
  Case c = plain_case({50, 70, 1, 1, 16, 16, DType::bfloat16}, {}, 4);
  const std::int64_t far = std::int64_t{1} << 40;
  const HostTiles tiles{{{0, 50, 0, 4, 1}}, 1};
  c.segments = {{-7, 20, -30, 40, 0, 0, -1, 5},
                {10, far, 60, far, 3, 3, 4, -1},
                {far, 2 * far, 0, 70, 0, 0, -1, -1},
                {30, 10, 20, 5, 0, 0, -1, -1},
                {-far, -5, 0, 70, 0, 0, 0, 0}};
  const Run all = run_forward(c, tiles);
  c.segments = {{0, 20, 0, 40, 7, 30, -1, 5}, {10, 50, 60, 70, 3, 3, 4, -1}};  // positions of what is left
  const Run expected = run_forward(c, {{{0, 50, 0, 1, 1}}, 1});
  CHECK(all.output.out.values() == expected.output.out.values());
  CHECK(all.output.lse.values() == expected.output.lse.values());
}

TEST(more_suspects_than_the_list_holds_means_all) {
  Case c = plain_case({20, 20, 2, 1, 8, 8, DType::float16}, {{0, 20, 0, 20, 0, 0, -1, 0}}, 2);
  Output output = empty_output(c);
  const ForwardParams params = forward_params(c, output);
  std::vector<std::int32_t> words = fresh_scratch();
  const mma::Scratch scratch = mma::scratch_of_pass(words.data(), 0);
  *scratch.suspect_count = mma::most_suspects + 1;
  const HostTiles tiles{{{0, 20, 0, 0, 1}}, 1};
  using Repair = mma::RepairForwardShared<64>;
  cuda_on_cpu::launch<Repair>(kBlocks, cuda::block_threads,
                              [&](Repair& shared) { mma::repair_forward_items(params, tiles.list(), scratch, shared); });
  const Forward expected = forward(c);  // out was NaN: all of its rows are written
  CHECK(worst_error(output.out.values(), expected.out, c.out_dtype(), DType::float32) <= kUnits);
}

TEST_MAIN()
