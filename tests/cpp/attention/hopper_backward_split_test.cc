// Hopper's backward in two kernels on fibers (support/hopper_on_cpu.h) against the definition in float64: numbers, masks, what
// they may not read or write, barriers and copies; and that the sums of a row depend on its own document alone.
#include "support/hopper_on_cpu.h"
// The emulator's names must be known before the kernels.
#include <cstdio>

#include "attention/hopper_backward_case.h"
#include "attention/tile_list_reference.h"
#include "hetsp/attention/cuda/hopper/split_keys.cuh"
#include "hetsp/attention/cuda/hopper/split_queries.cuh"
#include "support/check.h"

using namespace hopper_backward_case;
using hetsp::attention::Axis;
using hetsp::attention::BFloat16;
using hetsp::attention::Float16;
using hetsp::attention::cuda::Tile;

namespace {

hopper::SplitMaps maps_of(const Case& c, hopper::SplitBoxes boxes) {
  const Shape& s = c.shape;
  return {map_of(c.q, s.total_q, s.heads, s.head_dim, boxes.queries),
          map_of(c.k, s.total_k, s.heads_kv, s.head_dim, boxes.keys),
          map_of(c.v, s.total_k, s.heads_kv, s.head_dim_v, boxes.keys),
          map_of(c.dout, s.total_q, s.heads, s.head_dim_v, boxes.queries)};
}

template <class Element, int Dim>
Results run(const Case& c, const Truth& t, unsigned seed, unsigned blocks = 2) {
  using Config = hopper::SplitConfig<Element, Dim>;
  Call call(c, t, seed);
  const auto launch = [&](auto shared, Axis axis, hopper::SplitBoxes boxes, const auto& body) {
    using Shared = typename decltype(shared)::type;
    const std::vector<Tile> tiles = attention_test::reference_tiles(c.segments, c.shape, axis);
    const auto count = static_cast<std::int32_t>(tiles.size());
    std::int32_t next_item = 0;
    const hopper::SplitMaps maps = maps_of(c, boxes);
    const hetsp::attention::cuda::TileList list{tiles.data(), &count};
    cuda_on_cpu::launch_hopper<Shared>(blocks, hopper::backward_threads,
                                       [&](Shared& memory) { body(list, &next_item, maps, memory); },
                                       {.together = 2, .seed = seed % 4});
  };
  const auto heads_kv = static_cast<std::int32_t>(c.shape.heads_kv);
  launch(std::type_identity<hopper::SplitKeysShared<Config>>{}, Axis::keys, hopper::split_keys_boxes(Config::tile),
         [&](const auto& list, std::int32_t* next_item, const auto& maps, auto& memory) {
           hopper::split_keys_items<Config>(call.params, list, next_item, 1 + static_cast<std::int32_t>(seed) % heads_kv, maps,
                                            memory);
         });
  const auto together = static_cast<std::int32_t>(seed % 2 == 0 ? c.shape.heads : c.shape.heads / c.shape.heads_kv);
  launch(std::type_identity<hopper::SplitQueriesShared<Config>>{}, Axis::queries, hopper::split_queries_boxes(Config::tile),
         [&](const auto& list, std::int32_t* next_item, const auto& maps, auto& memory) {
           hopper::split_queries_items<Config>(call.params, list, next_item, together, maps, memory);
         });
  return std::move(call.results);
}

template <class Element>
Results run_any(const Case& c, const Truth& t, unsigned seed, unsigned blocks = 2) {
  switch (hopper::split_tile(c.shape).dim) {
    case 128:
      return run<Element, 128>(c, t, seed, blocks);
    case 192:
      return run<Element, 192>(c, t, seed, blocks);
    default:
      return run<Element, 256>(c, t, seed, blocks);
  }
}
Results run_any(const Case& c, const Truth& t, unsigned seed, unsigned blocks = 2) {
  return c.shape.dtype == DType::bfloat16 ? run_any<BFloat16>(c, t, seed, blocks) : run_any<Float16>(c, t, seed, blocks);
}

void check_case(const Case& c, unsigned seed) {
  check::context() = c.label;
  const Truth t = truth(c);
  const Results r = run_any(c, t, seed);
  check_close("dq", r.dq, t.dq, c.shape.dtype);
  check_close("dk", r.dk, t.dk, c.shape.dtype);
  check_close("dv", r.dv, t.dv, c.shape.dtype);
}

void check_random(DType dtype, const std::vector<Dims>& all_dims, unsigned seeds, std::int64_t most_tokens) {
  worst_seen = 0;
  unsigned seed = 9000 * (1 + static_cast<unsigned>(dtype));
  for (const Dims& dims : all_dims)
    for (unsigned i = 0; i < seeds; ++i, ++seed) check_case(random_hopper_case(seed, dtype, dims, most_tokens), seed);
  std::printf("     %s: %zu cases, worst error %.2f of its bound\n", name(dtype), all_dims.size() * seeds, worst_seen);
}

const std::vector<Dims> kBuckets{{128, 128}, {192, 128}, {256, 256}};

}  // namespace

TEST(one_tile) {
  for (const Dims& dims : kBuckets)
    check_case(hopper_case({64, 64, 1, 1, dims.head_dim, dims.head_dim_v, DType::bfloat16}, {{0, 64, 0, 64, 0, 0, -1, -1}}, 0),
               0);
}
TEST(causal_over_several_tiles) {
  for (const Dims& dims : kBuckets)
    for (unsigned seed = 0; seed < 4; ++seed)
      check_case(hopper_case({300, 300, 2, 1, dims.head_dim, dims.head_dim_v, seed % 2 ? DType::bfloat16 : DType::float16},
                             {{0, 300, 0, 300, 0, 0, -1, 0}}, seed),
                 seed);
}
TEST(random_bfloat16) { check_random(DType::bfloat16, {{128, 128}, {192, 128}, {256, 256}, {72, 40}, {64, 200}}, 5, 300); }
TEST(random_float16) { check_random(DType::float16, {{128, 128}, {136, 104}, {256, 248}}, 4, 300); }

// Documents that share tiles of rows and keys: what one of them holds, be it NaN, is nothing to the others.
TEST(a_document_of_nan_leaves_its_neighbours_alone) {
  for (const Dims& dims : kBuckets) {
    const std::vector<Segment> segments{
        {0, 37, 0, 37, 0, 0, -1, 0}, {37, 107, 37, 107, 0, 0, -1, 0}, {107, 170, 107, 170, 0, 0, -1, 0}};
    Case c = hopper_case({170, 170, 2, 1, dims.head_dim, dims.head_dim_v, DType::bfloat16}, segments, 4);
    check::context() = c.label;
    const Truth t = truth(c);
    const Results good = run_any(c, t, 2);
    for (std::int64_t row = 37; row < 107; ++row) {
      for (std::int64_t i = 0; i < dims.head_dim; ++i) {
        c.k.set(row, 0, i, kNaN);
        for (std::int64_t h = 0; h < 2; ++h) c.q.set(row, h, i, kNaN);
      }
      for (std::int64_t i = 0; i < dims.head_dim_v; ++i) {
        c.v.set(row, 0, i, kNaN);
        for (std::int64_t h = 0; h < 2; ++h) c.dout.set(row, h, i, kNaN);
      }
    }
    Truth of_nan = t;  // as the forward of NaN leaves it
    for (std::int64_t row = 37; row < 107; ++row)
      for (const std::int64_t h : {0, 1}) {
        of_nan.lse[static_cast<std::size_t>(h * 170 + row)] = row % 3 == 0 ? kNaN : 1;
        of_nan.delta[static_cast<std::size_t>(h * 170 + row)] = kNaN;
      }
    const Results bad = run_any(c, of_nan, 2);
    CHECK(std::isnan(bad.dk.at(50, 0, 3)) && std::isnan(bad.dv.at(50, 0, 3)) && std::isnan(bad.dq.at(50, 1, 3)));
    const auto different = [&](const Array& a, const Array& b, std::int64_t heads, std::int64_t dim, double most) {
      int count = 0;
      for (std::int64_t row = 0; row < 170; ++row)
        for (std::int64_t h = 0; h < heads; ++h)
          for (std::int64_t i = 0; i < dim; ++i)
            if (row < 37 || row >= 107) count += !(std::abs(a.at(row, h, i) - b.at(row, h, i)) <= most);
      return count;
    };
    CHECK_EQ(different(good.dk, bad.dk, 1, dims.head_dim, 0), 0);
    CHECK_EQ(different(good.dv, bad.dv, 1, dims.head_dim_v, 0), 0);
    CHECK_EQ(different(good.dq, bad.dq, 2, dims.head_dim, 0.02), 0);  // mended with dS in float32, not in 16 bits
  }
}

// A NaN in a key, behind a causal mask: dq of the rows before it is what it was, though they meet it in a tile.
TEST(a_hidden_nan_in_k_does_not_reach_dq) {
  for (const Dims& dims : kBuckets) {
    Case c = hopper_case({200, 200, 2, 1, dims.head_dim, dims.head_dim_v, DType::bfloat16}, {{0, 200, 0, 200, 0, 0, -1, 0}}, 8);
    if (dims.head_dim == 192) c.score.softcap = 1.5;
    const Truth t = truth(c);
    for (std::int64_t i = 0; i < dims.head_dim; ++i) c.k.set(150, 0, i, i % 2 == 0 ? kNaN : kInfinity);
    Truth of_nan = t;  // as the forward of NaN leaves it
    for (std::int64_t row = 150; row < 200; ++row)
      for (const std::int64_t h : {0, 1}) {
        of_nan.lse[static_cast<std::size_t>(h * 200 + row)] = kNaN;
        of_nan.delta[static_cast<std::size_t>(h * 200 + row)] = kNaN;
      }
    const Results r = run_any(c, of_nan, 1);
    int wrong = 0;
    for (std::int64_t row = 0; row < 200; ++row)
      for (const std::int64_t h : {0, 1})
        for (std::int64_t i = 0; i < dims.head_dim; ++i) {
          const Term& term = t.dq[static_cast<std::size_t>((row * 2 + h) * dims.head_dim + i)];
          const double error = std::abs(r.dq.at(row, h, i) - term.value);
          wrong += row >= 150 ? !std::isnan(r.dq.at(row, h, i))
                              : !(error <= roundoff(DType::bfloat16) * (term.mass + std::abs(term.value)) +
                                               8 * roundoff(DType::float32) * term.blur);
        }
    CHECK_EQ(wrong, 0);
  }
}

TEST(nothing_to_see_gives_zeros) {
  for (const Dims& dims : kBuckets) {
    const Case c =
        hopper_case({70, 200, 1, 1, dims.head_dim, dims.head_dim_v, DType::float16}, {{0, 70, 0, 0, 0, 0, -1, -1}}, 3);
    const Results r = run_any(c, truth(c), 0);
    for (const Array* array : {&r.dq, &r.dk, &r.dv})
      for (const double x : array->values()) CHECK_EQ(x, 0.0);
  }
}

// The same bits from any number of blocks, in any order of events.
TEST(sums_have_a_fixed_order) {
  for (const Dims& dims : kBuckets) {
    const Case c = random_hopper_case(31, DType::bfloat16, dims, 300);
    check::context() = c.label;
    const Truth t = truth(c);
    const Results once = run_any(c, t, 0, 1);
    for (const unsigned seed : {3u, 6u}) {
      const Results again = run_any(c, t, seed, 1 + seed);
      CHECK(once.dq.values() == again.dq.values());
      CHECK(once.dk.values() == again.dk.values());
      CHECK(once.dv.values() == again.dv.values());
    }
  }
}

// Contents of segments cannot be checked on the device: rows outside the tensors are cut off, positions of the rest stay.
TEST(segments_outside_the_tensors_are_cut) {
  const std::int64_t far = std::int64_t{1} << 40, before = -(1 << 16);  // the reference counts its way up to 0
  Case wild = hopper_case({150, 170, 1, 1, 192, 128, DType::bfloat16},
                          {{0, 20, 0, 40, 7, 30, -1, 5}, {10, 150, 60, 170, 3, 3, 4, -1}}, 6);
  const Truth t = truth(wild);
  const Results expected = run_any(wild, t, 0);
  wild.segments = {{-7, 20, -30, 40, 0, 0, -1, 5},
                   {10, far, 60, far, 3, 3, 4, -1},
                   {far, 2 * far, 0, 70, 0, 0, -1, -1},
                   {30, 10, 20, 5, 0, 0, -1, -1},
                   {before, -5, 0, 70, 0, 0, 0, 0}};
  const Results actual = run_any(wild, t, 0);
  CHECK(actual.dk.values() == expected.dk.values());
  CHECK(actual.dv.values() == expected.dv.values());
  CHECK(actual.dq.values() == expected.dq.values());
}

TEST_MAIN()
