// The forward for Hopper on the CPU (support/hopper_on_cpu.h), against the definition in float64, element by element.
#include "support/hopper_on_cpu.h"
// The emulator's names must be known before the kernels.
#include <cstdio>

#include "attention/attention_call.h"
#include "attention/attention_case.h"
#include "attention/attention_truth.h"
#include "attention/hopper_boxes.h"
#include "attention/tile_list_reference.h"
#include "hetsp/attention/cuda/hopper/forward.cuh"
#include "support/check.h"

using namespace attention_case;
namespace cuda = hetsp::attention::cuda;
namespace hopper = hetsp::attention::cuda::hopper;

namespace {

// Rounding errors allowed beyond those of the weights and of the result, in units of float32's.
constexpr double kUnits = 16;

struct Run {
  unsigned blocks = 2;
  std::int32_t together = 1;
  cuda_on_cpu::Options options{};
  bool wide = true;  // rows of out begin at multiples of 16 bytes: the usual way to write them
};

template <class Config>
void run_kernel(const Case& c, const ForwardParams& params, const Run& run) {
  const Shape& s = c.shape;
  const std::vector<cuda::Tile> tiles = attention_test::reference_tiles(c.segments, s, Axis::queries);
  const auto count = static_cast<std::int32_t>(tiles.size());
  std::int32_t next_item = 0;
  const hopper::ForwardArguments arguments{{map_of(c.q.view(), s.dtype, s.total_q, s.heads, s.head_dim, Config::rows),
                                            map_of(c.k.view(), s.dtype, s.total_k, s.heads_kv, s.head_dim, Config::keys),
                                            map_of(c.v.view(), s.dtype, s.total_k, s.heads_kv, s.head_dim_v, Config::keys)},
                                           params,
                                           hopper::score_factors(params.score),
                                           {tiles.data(), &count},
                                           &next_item,
                                           std::min(run.together, static_cast<std::int32_t>(s.heads))};
  using Shared = hopper::ForwardShared<Config>;
  cuda_on_cpu::launch_hopper<Shared>(
      run.blocks, hopper::forward_threads, [&](Shared& shared) { hopper::forward_block<Config>(arguments, shared); },
      run.options);
}

template <class Element, bool Squashed>
void run_bucket(const Case& c, const ForwardParams& params, const Run& run) {
  switch (hopper::forward_tile(c.shape).dim) {
    case 64:
      return run_kernel<hopper::ForwardConfig<Element, 64, Squashed>>(c, params, run);
    case 128:
      return run_kernel<hopper::ForwardConfig<Element, 128, Squashed>>(c, params, run);
    case 192:
      return run_kernel<hopper::ForwardConfig<Element, 192, Squashed>>(c, params, run);
    default:
      return run_kernel<hopper::ForwardConfig<Element, 256, Squashed>>(c, params, run);
  }
}

template <class Element>
void run_element(const Case& c, const ForwardParams& params, const Run& run) {
  if (hopper::score_factors(params.score).squashed) return run_bucket<Element, true>(c, params, run);
  run_bucket<Element, false>(c, params, run);
}

Output run_forward(const Case& c, const Run& run = {}) {
  Output output = empty_output(c);
  const std::int64_t width = c.shape.heads * c.shape.head_dim_v;
  if (run.wide)
    output.out = Array(c.out_dtype(), c.shape.total_q, c.shape.heads, c.shape.head_dim_v, width + 8, c.shape.head_dim_v);
  const ForwardParams params = forward_params(c, output);
  if (c.shape.total_q == 0) return output;
  if (c.shape.dtype == DType::bfloat16) run_element<BFloat16>(c, params, run);
  if (c.shape.dtype == DType::float16) run_element<Float16>(c, params, run);
  return output;
}

double worst_seen = 0;  // share of what is allowed

// Each weight and the result are rounded to 16 bits once: at most roundoff (sum_j p |v| + |out|). Float32 does the rest.
void check_close(const char* what, const Array& actual, const std::vector<Sum>& expected, const std::vector<Sum>& weighed,
                 DType dtype, double weights) {
  const std::vector<double> values = actual.values();
  CHECK_EQ(values.size(), expected.size());
  double worst = 0;
  std::size_t where = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] == expected[i].value) continue;  // infinities too
    const double stored = dtype == DType::float32 ? 0 : roundoff(dtype) * std::abs(expected[i].value) * (1 + weights);
    const double least = dtype == DType::float16 ? 0x1p-25 : 0x1p-130;
    const double allowed = weights * weighed[i].mass + stored + kUnits * roundoff(DType::float32) * expected[i].mass + least;
    const double share = std::abs(values[i] - expected[i].value) / allowed;
    if (!(share <= worst)) worst = std::isnan(share) ? kInfinity : share, where = i;
  }
  worst_seen = std::max(worst_seen, worst);
  if (worst > 1)
    check::fail(__FILE__, __LINE__,
                std::string(what) + "[" + std::to_string(where) + "] is " + std::to_string(values[where]) + " for " +
                    std::to_string(expected[where].value) + ", " + std::to_string(worst) + " of what is allowed");
}

// sum_j p |v| of every element of out, without the seed, which is not rounded.
std::vector<Sum> weighed_values(const Case& c, const Forward& expected) {
  const Shape& s = c.shape;
  std::vector<Sum> result(expected.out.size());
  for (std::int64_t row = 0; row < s.total_q; ++row)
    for (std::int64_t head = 0; head < s.heads; ++head) {
      const std::int64_t head_kv = head / (s.heads / s.heads_kv);
      const double lse = expected.lse[static_cast<std::size_t>(head * s.total_q + row)].value;
      for (const Segment& segment : c.segments)
        for (std::int64_t key = segment.k_begin; key < segment.k_end; ++key) {
          if (!visible(segment, row, key)) continue;
          const double weight = std::exp(scored(c, row, head, key).value - lse);
          for (std::int64_t i = 0; i < s.head_dim_v; ++i)
            result[static_cast<std::size_t>((row * s.heads + head) * s.head_dim_v + i)].add(weight * c.v.at(key, head_kv, i));
        }
    }
  return result;
}

void check_case(const Case& c, const Run& run = {}) {
  check::context() = c.label;
  const Forward expected = forward(c);
  const Output output = run_forward(c, run);
  check_close("out", output.out, expected.out, weighed_values(c, expected), c.out_dtype(), roundoff(c.shape.dtype));
  check_close("lse", output.lse, expected.lse, expected.lse, DType::float32, 0);
  CHECK_EQ(output.out.strays(), 0);
}

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr unsigned kSeeds = 1;
#else
constexpr unsigned kSeeds = 6;
#endif

void check_random(DType dtype, const std::vector<Dims>& all_dims, std::int64_t most_tokens) {
  worst_seen = 0;
  unsigned seed = 1000 * static_cast<unsigned>(dtype) + 500;
  for (const Dims& dims : all_dims)
    for (unsigned i = 0; i < kSeeds; ++i, ++seed) {
      Case c = random_case(seed, dtype, dims, most_tokens);
      Random random(seed);
      make_boxable(random, c);
      check_case(c, {1 + seed % 3, 1 + static_cast<std::int32_t>(seed % 4), {1 + seed % 2, seed % 4}, seed % 3 != 0});
    }
  std::printf("     %s: %zu cases, at most %.2f of what is allowed\n", name(dtype), all_dims.size() * kSeeds, worst_seen);
}

}  // namespace

TEST(random_bfloat16) {
  check_random(DType::bfloat16, {{128, 128}, {64, 64}, {72, 72}, {192, 128}, {16, 40}, {256, 256}}, 200);
}
TEST(random_float16) { check_random(DType::float16, {{128, 128}, {64, 32}, {136, 80}, {200, 256}}, 200); }

// Several key tiles a row, and many steps of the pipeline, in every order that the emulator knows.
TEST(long_documents) {
  for (unsigned seed = 0; seed < 4; ++seed) {
    const std::int64_t q = 300, k = 700;
    Case c = plain_case(
        {q + 140, k + 140, 2, 1, 128, 128, DType::bfloat16},
        {{0, q, 0, k, k - q, 0, seed == 1 ? 150 : -1, seed == 2 ? -1 : 0}, {q, q + 140, k, k + 140, 0, 0, -1, 0}}, seed);
    c.label = "long, seed " + std::to_string(seed);
    check_case(c, {1 + seed % 2, 2, {1 + seed % 2, seed}});
  }
}

// Rows of a tile are written beside later steps of the block: tiles of one step after longer ones, steps that a warpgroup does
// not see, in blocks that do many.
TEST(short_documents) {
  const std::vector<std::int64_t> lengths{300, 1, 7, 64, 0, 65, 130, 3, 200, 16, 31, 128, 40, 40, 40, 129};
  for (unsigned seed = 0; seed < 6; ++seed) {
    std::vector<Segment> segments;
    std::int64_t begin = 0;
    for (const std::int64_t length : lengths) {
      segments.push_back({begin, begin + length, begin, begin + length, 0, 0, -1, seed % 2 == 0 ? 0 : -1});
      begin += length;
    }
    Case c = plain_case({begin, begin, 2, 1, 128, 128, DType::bfloat16}, segments, seed);
    c.label = "short, seed " + std::to_string(seed);
    check_case(c, {1 + seed % 3, 1 + static_cast<std::int32_t>(seed % 2), {1, seed}, seed != 5});
  }
}

// A row's bits do not depend on what shares its tile, its batch or its block.
TEST(a_sequence_alone_equals_itself_in_a_batch_bitwise) {
  const std::int64_t tokens = 190, q0 = 37, k0 = 11, heads = 2, dim = 64;
  for (const std::int64_t left : {-1, 20}) {
    const Case batch = plain_case({q0 + tokens, k0 + tokens, heads, 1, dim, dim, DType::bfloat16},
                                  {{0, q0, 0, k0, k0 - q0, 0, -1, 0}, {q0, q0 + tokens, k0, k0 + tokens, 0, 0, left, 0}}, 5);
    Case alone = plain_case({tokens, tokens, heads, 1, dim, dim, DType::bfloat16}, {{0, tokens, 0, tokens, 0, 0, left, 0}}, 6);
    for (std::int64_t i = 0; i < tokens; ++i)
      for (std::int64_t x = 0; x < dim; ++x) {
        for (std::int64_t h = 0; h < heads; ++h) alone.q.set(i, h, x, batch.q.at(q0 + i, h, x));
        alone.k.set(i, 0, x, batch.k.at(k0 + i, 0, x)), alone.v.set(i, 0, x, batch.v.at(k0 + i, 0, x));
      }
    const Output one = run_forward(alone), many = run_forward(batch, {3, 2, {2, 3}});
    int different = 0;
    for (std::int64_t i = 0; i < tokens; ++i)
      for (std::int64_t h = 0; h < heads; ++h) {
        different += one.lse.at(h * tokens + i) != many.lse.at(h * (q0 + tokens) + q0 + i);
        for (std::int64_t x = 0; x < dim; ++x) different += one.out.at(i, h, x) != many.out.at(q0 + i, h, x);
      }
    CHECK_EQ(different, 0);
  }
}

TEST(a_visible_nan_comes_out_and_a_hidden_one_does_not) {
  Case c =
      plain_case({100, 100, 1, 1, 64, 64, DType::bfloat16}, {{0, 60, 0, 60, 0, 0, -1, 0}, {60, 100, 60, 100, 0, 0, -1, 0}}, 3);
  c.k.set(30, 0, 4, kNaN), c.v.set(20, 0, 7, kNaN), c.v.set(70, 0, 9, kInfinity);
  const Output output = run_forward(c);
  for (std::int64_t row = 0; row < 100; ++row) {
    CHECK_EQ(std::isnan(output.lse.at(row)), row >= 30 && row < 60);
    CHECK_EQ(std::isnan(output.out.at(row, 0, 6)), row >= 30 && row < 60);
    CHECK_EQ(std::isnan(output.out.at(row, 0, 7)), row >= 20 && row < 60);
    CHECK_EQ(std::isinf(output.out.at(row, 0, 9)), row >= 70);
  }
  Case clean = plain_case({100, 100, 1, 1, 64, 64, DType::bfloat16}, c.segments, 3);
  const Forward expected = forward(clean);
  for (std::int64_t row = 0; row < 20; ++row)
    for (std::int64_t i = 0; i < 64; ++i)
      CHECK_NEAR(output.out.at(row, 0, i), expected.out[static_cast<std::size_t>(row * 64 + i)].value, 0.02);
}

TEST(scores_far_below_zero) {  // where a finite stand-in for minus infinity would win
  Case c = plain_case({100, 100, 1, 1, 64, 64, DType::bfloat16}, {{0, 100, 0, 100, 0, 0, -1, 0}}, 8);
  for (std::int64_t i = 0; i < 100; ++i) c.q.set(i, 0, 0, 1024), c.k.set(i, 0, 0, -8192);
  check_case(c);
}

// Key tiles are walked from the last to the first, and a row's weights are kept against the maximum of the first that it saw,
// until they grow too far: by little, by much, by more than a float holds; in some rows of a warp and not in others.
TEST(weights_that_outgrow_their_origin) {
  for (const DType dtype : {DType::bfloat16, DType::float16}) {
    Case c = plain_case({200, 512, 2, 1, 64, 64, dtype}, {{0, 200, 0, 512, 0, 0, -1, -1}}, 11);
    c.label = "outgrown";
    const std::vector<double> steps{512, 24, 8, -32};  // of the tiles of 128 keys
    for (std::int64_t key = 0; key < 512; ++key)
      for (std::int64_t i = 0; i < 8; ++i) c.k.set(key, 0, i, i == 0 ? steps[static_cast<std::size_t>(key / 128)] : 0);
    for (std::int64_t row = 0; row < 200; ++row) c.q.set(row, 0, 0, row % 5 == 0 ? 8 : row % 5 - 2), c.q.set(row, 1, 0, 1);
    check_case(c);
  }
}

TEST(a_scale_of_zero_or_less) {
  for (const double scale : {0.0, -0.2}) {
    Case c = plain_case({150, 150, 1, 1, 64, 64, DType::bfloat16}, {{0, 150, 0, 150, 0, 0, -1, 0}}, 9);
    c.score.softmax_scale = scale;
    check_case(c);
  }
}

TEST(nothing_at_all) {
  for (const Shape& shape : {Shape{0, 0, 2, 1, 64, 64, DType::bfloat16}, Shape{0, 9, 2, 1, 64, 64, DType::bfloat16},
                             Shape{9, 0, 2, 1, 64, 64, DType::bfloat16}, Shape{200, 9, 2, 1, 64, 64, DType::bfloat16}})
    for (const bool listed : {false, true})
      check_case(plain_case(shape,
                            listed ? std::vector<Segment>{{0, 0, 0, 0, 0, 0, -1, 0}, {0, shape.total_q, 0, 0, 0, 0, -1, 0}}
                                   : std::vector<Segment>{},
                            10));
}

// Contents of segments cannot be checked on the device: rows outside the tensors are cut off, and nothing else is touched.
TEST(segments_outside_the_tensors_are_cut) {
  Case c = plain_case({50, 70, 1, 1, 64, 64, DType::bfloat16}, {}, 4);
  const std::int64_t far = std::int64_t{1} << 40;
  c.segments = {{-7, 20, -30, 40, 0, 0, -1, 5}, {10, far, 60, far, 3, 3, 4, -1}, {far, 2 * far, 0, 70, 0, 0, -1, -1},
                {30, 10, 20, 5, 0, 0, -1, -1},  {0, 50, 0, 70, far, 0, -1, 0},   {0, 50, 0, 70, -far, 0, -1, 0}};
  Case cut = plain_case({50, 70, 1, 1, 64, 64, DType::bfloat16}, {}, 4);
  cut.segments = {{0, 20, 0, 40, 7, 30, -1, 5}, {10, 50, 60, 70, 3, 3, 4, -1}, {0, 50, 0, 70, 1000, 0, -1, 0}};
  const std::vector<cuda::Tile> tiles{{0, 50, 0, 5, 1}};
  Output all = empty_output(c);
  ForwardParams params = forward_params(c, all);
  const std::int32_t count = 1;
  std::int32_t next_item = 0;
  using Config = hopper::ForwardConfig<BFloat16, 64, false>;
  const hopper::ForwardArguments arguments{
      {map_of(c.q.view(), DType::bfloat16, 50, 1, 64, 128), map_of(c.k.view(), DType::bfloat16, 70, 1, 64, 128),
       map_of(c.v.view(), DType::bfloat16, 70, 1, 64, 128)},
      params,
      hopper::score_factors(params.score),
      {tiles.data(), &count},
      &next_item,
      1};
  using Shared = hopper::ForwardShared<Config>;
  cuda_on_cpu::launch_hopper<Shared>(1, hopper::forward_threads,
                                     [&](Shared& shared) { hopper::forward_block<Config>(arguments, shared); });
  const Output expected = run_forward(cut);
  CHECK(all.out.values() == expected.out.values());
  CHECK(all.lse.values() == expected.lse.values());
}

TEST_MAIN()
