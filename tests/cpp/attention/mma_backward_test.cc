// The backward of the tensor-core kernels, run on the CPU (support/mma_on_cpu.h), against the definition in float64.
#include "support/mma_on_cpu.h"
// The emulator's names must be known before the kernels.
#include <type_traits>

#include "attention/attention_call.h"
#include "attention/attention_case.h"
#include "attention/attention_truth.h"
#include "attention/mma_case.h"
#include "attention/mma_check.h"
#include "hetsp/attention/cuda/mma/backward.cuh"
#include "hetsp/attention/cuda/mma/repair.cuh"
#include "support/check.h"

using namespace attention_case;
namespace cuda = hetsp::attention::cuda;
namespace mma = hetsp::attention::cuda::mma;

namespace {

struct Tiles {
  HostTiles queries, keys;
};

Tiles tiles_of(Random& random, const Case& c) { return {query_tiles(random, c), key_tiles(random, c)}; }

struct Run {
  Gradients gradients;
  std::int32_t suspects = 0;
};

// out and lse as a forward would give them, in the types of the call.
Output exact_output(const Case& c) {
  Output output = empty_output(c);
  const Forward truth = forward(c);
  const Shape& s = c.shape;
  std::size_t i = 0;
  for (std::int64_t row = 0; row < s.total_q; ++row)
    for (std::int64_t head = 0; head < s.heads; ++head)
      for (std::int64_t x = 0; x < s.head_dim_v; ++x) output.out.set(row, head, x, truth.out[i++].value);
  for (std::int64_t j = 0; j < s.heads * s.total_q; ++j) output.lse.set(j, truth.lse[static_cast<std::size_t>(j)].value);
  return output;
}

template <class Element, int Dim>
Run run_as(const Case& c, const Output& output, const Tiles& tiles) {
  Run run{empty_gradients(c), 0};
  const Array delta(c.acc(), c.shape.heads * c.shape.total_q);
  const BackwardParams params = backward_params(c, output, run.gradients, delta);
  using Partial = double[cuda::groups][cuda::lanes];
  cuda_on_cpu::launch<Partial>(1, cuda::block_threads,
                               [&](Partial& sums) { cuda::backward_delta<float>(delta_params(params), sums); });
  std::vector<std::int32_t> words = fresh_scratch();
  int pass = 0;
  using Repair = mma::RepairBackwardShared<Dim>;
  const auto items = [&](auto gradient, const HostTiles& own) {
    constexpr mma::Gradient g = decltype(gradient)::value;
    using Shared = mma::BackwardShared<Dim, g>;
    const mma::Scratch scratch = mma::scratch_of_pass(words.data(), pass++);
    cuda_on_cpu::launch<Shared>(kBlocks, mma::BackwardPlan<Dim, g>::warps * mma::warp_lanes, [&](Shared& shared) {
      mma::backward_items<Element, Dim, g>(params, own.list(), scratch, shared);
    });
    run.suspects += *scratch.suspect_count;
    cuda_on_cpu::launch<Repair>(kBlocks, cuda::block_threads, [&](Repair& shared) {
      if (g == mma::Gradient::dq) return mma::repair_dq_items(params, own.list(), scratch, shared);
      mma::repair_dkdv_items(params, own.list(), scratch, shared);
    });
  };
  using mma::Gradient;
  items(std::integral_constant<Gradient, Gradient::dq>(), tiles.queries);
  if constexpr (Dim <= 128) {
    items(std::integral_constant<Gradient, Gradient::dk_dv>(), tiles.keys);
  } else {
    items(std::integral_constant<Gradient, Gradient::dk>(), tiles.keys);
    items(std::integral_constant<Gradient, Gradient::dv>(), tiles.keys);
  }
  return run;
}

Run run_backward(const Case& c, const Output& output, const Tiles& tiles) {
  const std::int64_t dim = std::max(c.shape.head_dim, c.shape.head_dim_v);
  const auto bucket = [&](auto element) {
    using Element = decltype(element);
    return dim <= 64    ? run_as<Element, 64>(c, output, tiles)
           : dim <= 128 ? run_as<Element, 128>(c, output, tiles)
                        : run_as<Element, 256>(c, output, tiles);
  };
  return c.shape.dtype == DType::bfloat16 ? bucket(BFloat16{}) : bucket(Float16{});
}

void check_case(const Case& c, const Tiles& tiles) {
  check::context() = c.label;
  const Output output = exact_output(c);
  const Backward expected = backward(c, output.out, output.lse);
  const Run run = run_backward(c, output, tiles);
  suspects_seen += run.suspects;
  check_close("dq", run.gradients.dq, expected.dq, c.grad_dtype());
  check_close("dk", run.gradients.dk, expected.dk, c.grad_dtype());
  check_close("dv", run.gradients.dv, expected.dv, c.grad_dtype());
}

void check_random(DType dtype, unsigned first_seed, const std::vector<Dims>& all_dims, std::int64_t most_tokens) {
  attention_case::check_random(dtype, first_seed, all_dims, most_tokens,
                               [](const Case& c, Random& random) { check_case(c, tiles_of(random, c)); });
}

}  // namespace

TEST(random_float16) { check_random(DType::float16, 8000, {{64, 64}, {17, 40}, {1, 1}, {72, 128}}, 200); }
TEST(random_bfloat16) { check_random(DType::bfloat16, 8100, {{64, 64}, {80, 64}, {128, 96}}, 200); }
TEST(random_wide_heads) {
  check_random(DType::float16, 8200, {{256, 256}, {192, 128}}, 130);
  check_random(DType::bfloat16, 8300, {{130, 256}}, 130);
}

// A document alone, and the same one behind another and cut into other tiles: its sums must be grouped alike.
TEST(a_sequence_alone_equals_itself_in_a_batch_bitwise) {
  const std::int64_t tokens = 150, q0 = 37, k0 = 11, dim = 40;
  for (const std::int64_t left : {-1, 20}) {
    const Case batch = plain_case({q0 + tokens, k0 + tokens, 2, 1, dim, dim, DType::bfloat16},
                                  {{0, q0, 0, k0, k0 - q0, 0, -1, 0}, {q0, q0 + tokens, k0, k0 + tokens, 0, 0, left, 0}}, 5);
    Case alone = plain_case({tokens, tokens, 2, 1, dim, dim, DType::bfloat16}, {{0, tokens, 0, tokens, 0, 0, left, 0}}, 6);
    for (std::int64_t i = 0; i < tokens; ++i)
      for (std::int64_t x = 0; x < dim; ++x) {
        for (std::int64_t h = 0; h < 2; ++h)
          alone.q.set(i, h, x, batch.q.at(q0 + i, h, x)), alone.dout.set(i, h, x, batch.dout.at(q0 + i, h, x));
        alone.k.set(i, 0, x, batch.k.at(k0 + i, 0, x)), alone.v.set(i, 0, x, batch.v.at(k0 + i, 0, x));
      }
    Random random(7);
    const Tiles few = tiles_of(random, alone), more = tiles_of(random, batch);
    const Run one = run_backward(alone, exact_output(alone), few), many = run_backward(batch, exact_output(batch), more);
    int different = 0;
    for (std::int64_t i = 0; i < tokens; ++i)
      for (std::int64_t x = 0; x < dim; ++x) {
        for (std::int64_t h = 0; h < 2; ++h) different += one.gradients.dq.at(i, h, x) != many.gradients.dq.at(q0 + i, h, x);
        different += one.gradients.dk.at(i, 0, x) != many.gradients.dk.at(k0 + i, 0, x);
        different += one.gradients.dv.at(i, 0, x) != many.gradients.dv.at(k0 + i, 0, x);
      }
    CHECK_EQ(different, 0);
  }
}

// Causal, two documents. The first has a NaN in q, k, v and dout of one row each; the second must not notice, nor those rows
// of the first that are hidden from it.
TEST(a_visible_nan_comes_out_a_hidden_one_does_not_and_nobody_else_notices) {
  const std::int64_t tokens = 140, first = 100, dim = 16, at = 40;
  const std::vector<Segment> segments{{0, first, 0, first, 0, 0, -1, 0}, {first, tokens, first, tokens, 0, 0, -1, 0}};
  const Case plain = plain_case({tokens, tokens, 1, 1, dim, dim, DType::bfloat16}, segments, 3);
  const Output output = exact_output(plain);
  Random random(3);
  const Tiles tiles = tiles_of(random, plain);
  const Run without = run_backward(plain, output, tiles);
  CHECK_EQ(without.suspects, 0);
  const Backward expected = backward(plain, output.out, output.lse);
  for (const int which : {0, 1, 2, 3}) {
    Case c = plain_case(plain.shape, segments, 3);
    Array* const poisoned[] = {&c.q, &c.k, &c.v, &c.dout};
    poisoned[which]->set(at, 0, 3, kNaN);
    check::context() = "NaN in array " + std::to_string(which);
    const Run run = run_backward(c, output, tiles);
    CHECK(run.suspects > 0);
    const auto check = [&](const Array& actual, const Array& clean, const std::vector<Sum>& truth, auto touched) {
      for (std::int64_t row = 0; row < tokens; ++row)
        for (std::int64_t x = 0; x < dim; ++x) {
          const double value = actual.at(row, 0, x);
          CHECK_EQ(std::isnan(value), row < first && touched(row, x));
          if (row >= first) CHECK_EQ(value, clean.at(row, 0, x));
          const Sum& sum = truth[static_cast<std::size_t>(row * dim + x)];
          if (!std::isnan(value))
            CHECK_NEAR(value, sum.value, roundoff(DType::bfloat16) * std::abs(sum.value) + sum.coarse + 0x1p-20 * sum.mass);
        }
    };
    const bool in_query = which == 0 || which == 3;  // row `at` is seen by no key behind it, key `at` sees no row before it
    check(run.gradients.dq, without.gradients.dq, expected.dq,
          [&](std::int64_t row, std::int64_t) { return in_query ? row == at : row >= at; });
    check(run.gradients.dk, without.gradients.dk, expected.dk,
          [&](std::int64_t row, std::int64_t) { return in_query ? row <= at : row == at; });
    check(run.gradients.dv, without.gradients.dv, expected.dv, [&](std::int64_t row, std::int64_t x) {
      return which == 0 ? row <= at : which == 1 ? row == at : which == 3 && row <= at && x == 3;
    });
  }
}

// float16 ends at 65504. Score gradients beyond it are computed again in float32.
TEST(an_overflowing_score_gradient_is_repaired) {
  Case c = plain_case({40, 40, 1, 1, 16, 16, DType::float16}, {{0, 40, 0, 40, 0, 0, -1, -1}}, 12);
  c.grads_are_acc = true;
  for (std::int64_t i = 0; i < 40; ++i)
    for (std::int64_t x = 0; x < 16; ++x)
      c.dout.set(i, 0, x, 3e4 * c.dout.at(i, 0, x) / 4), c.v.set(i, 0, x, 30 * c.v.at(i, 0, x));
  Random random(12);
  suspects_seen = 0;
  check_case(c, tiles_of(random, c));
  CHECK(suspects_seen > 0);
}

TEST_MAIN()
