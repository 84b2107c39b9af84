// The Hopper backward on fibers (support/hopper_on_cpu.h) against the definition in float64: its numbers, its masks, what it
// may not read or write, its barriers and its asynchronous copies. Not covered: what only a GPU shows; see docs/cuda.md.
#include "support/hopper_on_cpu.h"
// The emulator's names must be known before the kernels.
#include <cstdio>
#include <numeric>

#include "attention/hopper_backward_case.h"
#include "attention/tile_list_reference.h"
#include "hetsp/attention/cuda/hopper/backward.cuh"
#include "hetsp/attention/cuda/hopper/backward_prepare.cuh"
#include "support/check.h"

using namespace hopper_backward_case;
using hetsp::attention::Axis;
using hetsp::attention::BFloat16;
using hetsp::attention::Float16;
using hetsp::attention::cuda::Tile;

namespace {

template <class Element, int Dim, int Queries>
Results run(const Case& c, const Truth& t, unsigned seed) {
  const Shape& s = c.shape;
  Call call(c, t, seed);
  Array sums(DType::float32, s.total_q, s.heads, Dim, s.heads * Dim, Dim);
  for (std::int64_t i = 0; i < s.total_q; ++i)
    for (std::int64_t h = 0; h < s.heads; ++h)
      for (std::int64_t x = 0; x < Dim; ++x) sums.set(i, h, x, 0);
  const hopper::BackwardMaps maps{map_of(c.q, s.total_q, s.heads, s.head_dim), map_of(c.k, s.total_k, s.heads_kv, s.head_dim),
                                  map_of(c.v, s.total_k, s.heads_kv, s.head_dim_v),
                                  map_of(c.dout, s.total_q, s.heads, s.head_dim_v), map_of(sums, s.total_q, s.heads, Dim)};
  const std::vector<Tile> tiles = attention_test::reference_tiles(c.segments, s, Axis::keys);
  const auto count = static_cast<std::int32_t>(tiles.size());
  std::int32_t next_item = 0;
  using Shared = hopper::BackwardShared<Dim, Queries>;
  const auto launch = [&](auto softcap) {
    cuda_on_cpu::launch_hopper<Shared>(2, hopper::backward_threads,
                                       [&](Shared& shared) {
                                         hopper::backward_items<Element, Shared, decltype(softcap)::value>(
                                             call.params, {tiles.data(), &count}, &next_item, maps, shared);
                                       },
                                       {.together = 2, .seed = seed % 4});
  };
  c.score.softcap > 0 ? launch(std::true_type()) : launch(std::false_type());
  const std::int64_t groups = s.total_q * s.heads * (Dim / hopper::sums_group);
  for (std::int64_t i = 0; i < groups; ++i)
    hopper::finish_dq_group(call.params, static_cast<const float*>(sums.data()), Dim, i);
  return std::move(call.results);
}

void check_case(const Case& c, unsigned seed) {
  check::context() = c.label;
  const Truth t = truth(c);
  const auto each = [&](auto element) {
    using Element = decltype(element);
    const Results r = c.shape.head_dim <= 64 && c.shape.head_dim_v <= 64 ? run<Element, 64, 128>(c, t, seed)
                                                                         : run<Element, 128, 64>(c, t, seed);
    check_close("dq", r.dq, t.dq, c.shape.dtype);
    check_close("dk", r.dk, t.dk, c.shape.dtype);
    check_close("dv", r.dv, t.dv, c.shape.dtype);
  };
  c.shape.dtype == DType::bfloat16 ? each(BFloat16{}) : each(Float16{});
}

void check_random(DType dtype, const std::vector<Dims>& all_dims, unsigned seeds, std::int64_t most_tokens) {
  worst_seen = 0;
  unsigned seed = 7000 * static_cast<unsigned>(dtype);
  for (const Dims& dims : all_dims)
    for (unsigned i = 0; i < seeds; ++i, ++seed) check_case(random_hopper_case(seed, dtype, dims, most_tokens), seed);
  std::printf("     %s: %zu cases, worst error %.2f of its bound\n", name(dtype), all_dims.size() * seeds, worst_seen);
}

}  // namespace

TEST(one_tile) {
  check_case(hopper_case({64, 128, 1, 1, 128, 128, DType::bfloat16}, {{0, 64, 0, 128, 0, 0, -1, -1}}, 0), 0);
  check_case(hopper_case({128, 128, 1, 1, 64, 64, DType::bfloat16}, {{0, 128, 0, 128, 0, 0, -1, -1}}, 1), 1);
}
TEST(causal_over_several_tiles) {
  for (unsigned seed = 0; seed < 4; ++seed) {
    check_case(hopper_case({300, 300, 2, 1, 128, 128, DType::bfloat16}, {{0, 300, 0, 300, 0, 0, -1, 0}}, seed), seed);
    check_case(hopper_case({300, 300, 2, 1, 64, 64, DType::float16}, {{0, 300, 0, 300, 0, 0, -1, 0}}, seed), seed);
  }
}
TEST(random_bfloat16) { check_random(DType::bfloat16, {{128, 128}, {64, 64}, {72, 40}, {64, 128}, {16, 8}}, 6, 300); }
TEST(random_float16) { check_random(DType::float16, {{128, 128}, {64, 64}, {96, 104}}, 4, 300); }

// Documents that share tiles of rows and keys: what one of them holds, be it NaN, is nothing to the others.
TEST(a_document_of_nan_leaves_its_neighbours_alone) {
  for (const std::int64_t dim : {64, 128}) {
    const std::vector<Segment> segments{
        {0, 37, 0, 37, 0, 0, -1, 0}, {37, 107, 37, 107, 0, 0, -1, 0}, {107, 170, 107, 170, 0, 0, -1, 0}};
    Case c = hopper_case({170, 170, 2, 1, dim, dim, DType::bfloat16}, segments, 4);
    const auto results = [&](const Truth& t) {
      return dim == 64 ? run<BFloat16, 64, 128>(c, t, 2) : run<BFloat16, 128, 64>(c, t, 2);
    };
    const Truth t = truth(c);
    const Results good = results(t);
    for (std::int64_t row = 37; row < 107; ++row)
      for (std::int64_t i = 0; i < dim; ++i) {
        c.k.set(row, 0, i, kNaN), c.v.set(row, 0, i, kNaN);
        for (std::int64_t h = 0; h < 2; ++h) c.q.set(row, h, i, kNaN), c.dout.set(row, h, i, kNaN);
      }
    Truth of_nan = t;  // as the forward of NaN leaves it
    for (std::int64_t row = 37; row < 107; ++row)
      for (const std::int64_t h : {0, 1}) {
        of_nan.lse[static_cast<std::size_t>(h * 170 + row)] = row % 3 == 0 ? kNaN : 1;
        of_nan.delta[static_cast<std::size_t>(h * 170 + row)] = kNaN;
      }
    const Results bad = results(of_nan);
    for (std::int64_t i = 0; i < dim; ++i) {
      CHECK(std::isnan(bad.dk.at(50, 0, i)) && std::isnan(bad.dv.at(50, 0, i)) && std::isnan(bad.dq.at(50, 1, i)));
    }
    int different = 0;
    for (std::int64_t row = 0; row < 170; ++row) {
      if (row >= 37 && row < 107) continue;
      for (std::int64_t i = 0; i < dim; ++i) {
        different += good.dk.at(row, 0, i) != bad.dk.at(row, 0, i), different += good.dv.at(row, 0, i) != bad.dv.at(row, 0, i);
        for (std::int64_t h = 0; h < 2; ++h) different += good.dq.at(row, h, i) != bad.dq.at(row, h, i);
      }
    }
    CHECK_EQ(different, 0);
  }
}

TEST(nothing_to_see_gives_zeros) {
  const Case c = hopper_case({70, 200, 1, 1, 128, 128, DType::float16}, {{0, 70, 0, 0, 0, 0, -1, -1}}, 3);
  const Results r = run<Float16, 128, 64>(c, truth(c), 0);
  for (const Array* array : {&r.dq, &r.dk, &r.dv})
    for (const double x : array->values()) CHECK_EQ(x, 0.0);
}

// Contents of segments cannot be checked on the device: rows outside the tensors are cut off, positions of the rest stay.
TEST(segments_outside_the_tensors_are_cut) {
  const std::int64_t far = std::int64_t{1} << 40, before = -(1 << 16);  // the reference counts its way up to 0
  const Shape shape{150, 170, 1, 1, 64, 64, DType::bfloat16};
  Case wild = hopper_case(shape, {{0, 20, 0, 40, 7, 30, -1, 5}, {10, 150, 60, 170, 3, 3, 4, -1}}, 6);
  const Truth t = truth(wild);
  const Results expected = run<BFloat16, 64, 128>(wild, t, 0);
  wild.segments = {{-7, 20, -30, 40, 0, 0, -1, 5},
                   {10, far, 60, far, 3, 3, 4, -1},
                   {far, 2 * far, 0, 70, 0, 0, -1, -1},
                   {30, 10, 20, 5, 0, 0, -1, -1},
                   {before, -5, 0, 70, 0, 0, 0, 0}};
  const Results actual = run<BFloat16, 64, 128>(wild, t, 0);
  CHECK(actual.dk.values() == expected.dk.values());
  CHECK(actual.dv.values() == expected.dv.values());
  CHECK(actual.dq.values() == expected.dq.values());
}

// D, the zeroed sums and a float32 dout in 16 bits, at any stride; a row that sees nothing has D = 0 though its dout is NaN.
TEST(prepared_rows) {
  struct Nothing {};
  for (unsigned seed = 0; seed < 24; ++seed) {
    Random random(seed);
    const bool is_float = seed >= 12;
    Case c = random_hopper_case(seed + 900, seed % 2 ? DType::bfloat16 : DType::float16, {64, seed % 3 == 0 ? 128 : 40}, 100);
    check::context() = c.label;
    const Shape& s = c.shape;
    const Truth t = truth(c);
    const DType source = is_float ? DType::float32 : s.dtype;
    Array out = random_array(random, source, s.total_q, s.heads, s.head_dim_v, false);
    if (is_float) {
      c.dout = random_array(random, source, s.total_q, s.heads, s.head_dim_v, false);
      fill(random, c.dout, s.total_q, s.heads, s.head_dim_v, 1);
    }
    fill(random, out, s.total_q, s.heads, s.head_dim_v, 1);
    constexpr std::int64_t dim = 128;
    std::vector<float> lse(t.lse.begin(), t.lse.end()), dlse(lse.size()), delta(lse.size(), 7), sums;
    for (float& x : dlse) x = static_cast<float>(random.normal());
    sums.assign(static_cast<std::size_t>(s.total_q * s.heads * dim + 4), 7);
    BackwardParams params{};
    params.shape = s, params.out = out.view(), params.dout = c.dout.view(), params.lse = lse.data();
    params.dlse = seed % 4 == 0 ? nullptr : dlse.data();
    params.fill_delta = seed % 12 == 11 ? nullptr : delta.data(), params.out_is_acc = is_float;
    std::vector<std::uint16_t> rounded(static_cast<std::size_t>(is_float ? s.total_q * s.heads * s.head_dim_v : 0));
    cuda_on_cpu::launch<Nothing>(2, hopper::prepare_threads, [&](Nothing&) {
      const auto of = [&](auto element, auto from) {
        hopper::prepare_rows<decltype(element), decltype(from)>(params, sums.data(), static_cast<int>(dim), rounded.data());
      };
      if (s.dtype == DType::bfloat16) return is_float ? of(BFloat16{}, float{}) : of(BFloat16{}, BFloat16{});
      is_float ? of(Float16{}, float{}) : of(Float16{}, Float16{});
    });
    for (std::size_t i = 0; i < sums.size(); ++i) CHECK_EQ(sums[i], i + 4 < sums.size() ? 0.0f : 7.0f);
    const auto rounded_dout = [&](std::int64_t row, std::int64_t head, std::int64_t i) {
      const std::uint16_t bits = rounded[static_cast<std::size_t>((row * s.heads + head) * s.head_dim_v + i)];
      return static_cast<double>(s.dtype == DType::bfloat16 ? to_float(BFloat16{bits}) : to_float(Float16{bits}));
    };
    for (std::int64_t row = 0; row < s.total_q; ++row)
      for (std::int64_t head = 0; head < s.heads; ++head) {
        const auto at = static_cast<std::size_t>(head * s.total_q + row);
        double sum = params.dlse == nullptr ? 0 : -static_cast<double>(dlse[at]), mass = std::abs(sum);
        for (std::int64_t i = 0; i < s.head_dim_v; ++i) {
          const double x = out.at(row, head, i) * (is_float ? rounded_dout(row, head, i) : c.dout.at(row, head, i));
          sum += x, mass += std::abs(x);
        }
        for (std::int64_t i = 0; i < (is_float ? s.head_dim_v : 0); ++i) {
          const auto x = static_cast<float>(c.dout.at(row, head, i));
          const double nearest = s.dtype == DType::bfloat16 ? to_float(to_bfloat16(x)) : to_float(to_float16(x));
          CHECK_EQ(rounded_dout(row, head, i), nearest);
        }
        if (seed % 12 == 11)
          CHECK_EQ(delta[at], 7.0f);
        else if (t.lse[at] == -kInfinity)
          CHECK_EQ(delta[at], 0.0f);
        else
          CHECK_NEAR(static_cast<double>(delta[at]), sum, 16 * roundoff(DType::float32) * mass);
      }
  }
}

TEST_MAIN()
