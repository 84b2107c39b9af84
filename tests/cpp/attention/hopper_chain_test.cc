// The chain of pieces by Hopper's kernel on the CPU (support/hopper_on_cpu.h), against the definition in float64, and bit by
// bit against a loop of its plain kernel.
#include "support/hopper_on_cpu.h"
// The emulator's names must be known before the kernels.
#include "support/arrival_on_cpu.h"
// So must these.
#include <atomic>
#include <chrono>
#include <thread>
#include <type_traits>

#include "attention/attention_call.h"
#include "attention/attention_case.h"
#include "attention/attention_truth.h"
#include "attention/chain_case.h"
#include "attention/hopper_boxes.h"
#include "attention/tile_list_reference.h"
#include "hetsp/attention/cuda/hopper/forward_chain.cuh"
#include "support/check.h"

using namespace attention_case;
namespace cuda = hetsp::attention::cuda;
namespace hopper = hetsp::attention::cuda::hopper;

namespace {

const Dims kBuckets[] = {{64, 64}, {128, 128}, {192, 128}, {256, 256}};  // one of each instantiation

constexpr double kUnits = 16;  // of rounding errors of float32, beyond those of the weights and of the result

struct How {
  unsigned blocks = 2;
  std::int32_t together = 1;
  cuda_on_cpu::Options options{};
};

template <class Element, bool Squashed, class Call>
void with_config(const Shape& shape, const Call& call) {
  const auto with_dim = [&](auto dim) {
    return call(hopper::ChainConfig<Element, dim(), Squashed>(), hopper::ForwardConfig<Element, dim(), Squashed>());
  };
  switch (hopper::forward_tile(shape).dim) {
    case 64:
      return with_dim(std::integral_constant<int, 64>());
    case 128:
      return with_dim(std::integral_constant<int, 128>());
    case 192:
      return with_dim(std::integral_constant<int, 192>());
    default:
      return with_dim(std::integral_constant<int, 256>());
  }
}
template <class Element, class Call>
void with_config(const Case& c, const Call& call) {
  if (hopper::score_factors(c.score).squashed) return with_config<Element, true>(c.shape, call);
  with_config<Element, false>(c.shape, call);
}
template <class Call>
void with_config(const Case& c, const Call& call) {
  if (c.shape.dtype == DType::bfloat16) return with_config<BFloat16>(c, call);
  with_config<Float16>(c, call);
}

Output output_of(const Case& c) {
  Output output = empty_output(c);
  output.out = Array(c.out_dtype(), c.shape.total_q, c.shape.heads, c.shape.head_dim_v, c.shape.heads * c.shape.head_dim_v + 8,
                     c.shape.head_dim_v);
  return output;
}

template <class Config>
void run_kernel(const typename Config::Arguments& arguments, const How& how) {
  using Shared = hopper::ForwardShared<Config>;
  cuda_on_cpu::launch_hopper<Shared>(
      how.blocks, hopper::forward_threads, [&](Shared& shared) { hopper::forward_block<Config>(arguments, shared); },
      how.options);
}

struct Nothing {};

struct Run {
  Output output;
  std::int32_t late = 0;
};

Run run_chain(const Case& c, const Cut& pieces, const How& how) {
  const Shape& s = c.shape;
  Run result{output_of(c)};
  PiecesParams params = pieces.params(c, result.output);
  params.late = &result.late;
  std::vector<Segment> cut;
  for (int i = 0; i < params.count; ++i)
    for (const Segment& segment : pieces.segments(c, i)) cut.push_back(segment);
  const std::vector<cuda::Tile> tiles = attention_test::reference_tiles(c.segments, s, Axis::queries);
  const auto count = static_cast<std::int32_t>(tiles.size());
  std::vector<std::uint64_t> done(static_cast<std::size_t>(count * s.heads));
  std::int32_t next_item = 0;
  Array rounded_later(DType::float32, s.total_q, s.heads, s.head_dim_v, s.heads * s.head_dim_v, s.head_dim_v);
  const View kept = c.out_is_acc ? result.output.out.mutable_view() : rounded_later.mutable_view();
  hopper::ChainArguments arguments{};
  arguments.factors = hopper::score_factors(c.score);
  arguments.queries = {tiles.data(), &count}, arguments.next_item = &next_item;
  arguments.together = std::min(how.together, static_cast<std::int32_t>(s.heads));
  arguments.chain = cuda::even_chain_of(params, cut.data(), kept, done.data());
  arguments.params = arguments.chain.link[0];
  const auto all_rows = [&](const auto& body) {
    cuda_on_cpu::launch<Nothing>(2, cuda::block_threads, [&](Nothing&) { body(); });
  };
  all_rows([&] { cuda::begin_even_chain(params.call, kept); });
  with_config(c, [&](auto config, auto) {
    using Config = decltype(config);
    arguments.maps.q = map_of(c.q.view(), s.dtype, s.total_q, s.heads, s.head_dim, Config::rows);
    for (int i = 0; i < params.count; ++i) {
      const KeyPiece& piece = pieces.list[static_cast<std::size_t>(i)];
      arguments.k[i] = map_of(piece.k, s.dtype, piece.rows, s.heads_kv, s.head_dim, Config::keys);
      arguments.v[i] = map_of(piece.v, s.dtype, piece.rows, s.heads_kv, s.head_dim_v, Config::keys);
    }
    run_kernel<Config>(arguments, how);
  });
  all_rows([&] { cuda::end_even_chain(params.call, kept, params.late); });
  for (const std::uint64_t warps : done) CHECK_EQ(warps, 0x8888888888888888u >> (64 - 4 * params.count));
  return result;
}

Output run_loop(const Case& c, const Cut& pieces) {
  const Shape& s = c.shape;
  Output output = output_of(c);
  const PiecesParams params = pieces.params(c, output);
  const std::vector<cuda::Tile> tiles = attention_test::reference_tiles(c.segments, s, Axis::queries);
  const auto count = static_cast<std::int32_t>(tiles.size());
  Array between = pieces.memory_between(c);
  for (int i = 0; i < params.count; ++i) {
    const std::vector<Segment> cut = pieces.segments(c, i);
    const ForwardParams link = link_of(params, i, cut.data(), between.mutable_view());
    std::int32_t next_item = 0;
    with_config(c, [&](auto, auto config) {
      using Config = decltype(config);
      run_kernel<Config>({{map_of(link.q, s.dtype, s.total_q, s.heads, s.head_dim, Config::rows),
                           map_of(link.k, s.dtype, link.shape.total_k, s.heads_kv, s.head_dim, Config::keys),
                           map_of(link.v, s.dtype, link.shape.total_k, s.heads_kv, s.head_dim_v, Config::keys)},
                          link,
                          hopper::score_factors(c.score),
                          {tiles.data(), &count},
                          &next_item,
                          1},
                         {});
    });
  }
  return output;
}

Cut boxed(const Case& c, Random& random, const std::vector<std::int64_t>& rows) {
  return {c, rows, [&](std::int64_t own, std::int64_t dim) {
            const std::int64_t heads = c.shape.heads_kv;
            return random.chance(50) ? Array(c.shape.dtype, own, heads, dim, heads * dim + 8, dim)
                                     : Array(c.shape.dtype, own, heads, dim, dim, own * dim);
          }};
}

void check_close(const char* what, const Array& actual, const std::vector<Sum>& expected, DType dtype, std::size_t links) {
  const double worst = worst_error(actual.values(), expected, dtype, DType::float32, true);
  if (worst > kUnits + 2.0 * static_cast<double>(links))
    check::fail(__FILE__, __LINE__, std::string(what) + " is off by " + std::to_string(worst) + " units");
  CHECK_EQ(actual.strays(), 0);
}

void check_case(const Case& c, const Cut& pieces, const How& how) {
  const Run run = run_chain(c, pieces, how);
  const Forward expected = forward(c);
  check_close("out", run.output.out, expected.out, c.out_dtype(), pieces.list.size());
  check_close("lse", run.output.lse, expected.lse, DType::float32, pieces.list.size());
  CHECK_EQ(run.late, 0);
}

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr unsigned kSeeds = 1;
#else
constexpr unsigned kSeeds = 5;
#endif

void check_random(DType dtype, const std::vector<Dims>& all_dims, std::int64_t most_tokens) {
  unsigned seed = 1000 * static_cast<unsigned>(dtype) + 900;
  for (const Dims& dims : all_dims)
    for (unsigned i = 0; i < kSeeds; ++i, ++seed) {
      Case c = random_case(seed, dtype, dims, most_tokens);
      if (c.shape.total_q == 0) continue;
      Random random(seed);
      make_boxable(random, c);
      const Cut pieces = boxed(c, random, Cut::random_rows(c.shape.total_k, random, static_cast<int>(1 + seed % 4)));
      check::context() = std::to_string(pieces.list.size()) + " pieces, " + c.label;
      check_case(c, pieces, {1 + seed % 3, 1 + static_cast<std::int32_t>(seed % 4), {1 + seed % 3, seed % 4}});
    }
}

}  // namespace

TEST(random_bfloat16) { check_random(DType::bfloat16, {{128, 128}, {64, 64}, {192, 128}, {16, 40}, {256, 256}}, 200); }
TEST(random_float16) { check_random(DType::float16, {{128, 128}, {64, 32}, {192, 120}, {200, 256}}, 200); }

// Every row sees every piece, so no link is passed over. One tile and more blocks than items, or fewer: a block's next item may
// wait for its last.
TEST(a_chain_has_the_bits_of_a_loop_of_seeded_calls) {
  for (unsigned i = 0; i < 16; ++i) {
    const unsigned seed = i % 4;
    const Dims dims = kBuckets[i / 4];
    check::context() = "seed " + std::to_string(seed) + ", heads of " + std::to_string(dims.head_dim);
    // With 256 all rows of a warp exist or none. A plain kernel reads a wide seed in parts, for a row that does not exist that
    // of another, maybe while it is written, where a loop keeps both in one place: nothing comes of it, but it is a race.
    const std::int64_t rows = seed % 2 == 0 ? 128 : dims.head_dim_v == 256 ? 304 : 300;
    Case c = plain_case({rows, 400, 2, 1, dims.head_dim, dims.head_dim_v, DType::bfloat16},
                        {{0, rows, 0, 400, 400 - rows, 0, -1, seed < 2 ? -1 : 0}}, seed);
    if (seed >= 2) c.segments[0].q_pos0 = 300;
    c.out_is_acc = seed % 2 == 1;
    if (seed == 1) c.score.softcap = 3;
    if (seed == 2) c.score.softmax_scale = -c.score.softmax_scale;
    Random random(seed);
    const Cut pieces = boxed(c, random, {100, 128, 40, 132});
    const Run chained = run_chain(c, pieces, {1 + seed, 2, {1 + seed, seed}});
    const Output looped = run_loop(c, pieces);
    CHECK(chained.output.out.values() == looped.out.values());
    CHECK(chained.output.lse.values() == looped.lse.values());
  }
}

TEST(pieces_that_come_late_from_another_thread_are_read_when_they_are_there) {
  for (unsigned seed = 0; seed < 4; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Dims dims = kBuckets[seed];
    const Case c =
        plain_case({300, 400, 2, 1, dims.head_dim, dims.head_dim_v, DType::float16}, {{0, 300, 0, 400, 100, 0, -1, 0}}, seed);
    Random random(seed);
    Cut pieces = boxed(c, random, {130, 140, 130});
    const Run expected = run_chain(c, pieces, {});
    std::vector<std::uint32_t> flags{0xffffffffu, 0xffffffffu, 0xffffffffu};
    for (std::size_t i = 0; i < 3; ++i) pieces.list[i].ready = &flags[i], pieces.list[i].epoch = 0;
    pieces.hide();
    std::thread sender([&] {
      for (const std::size_t piece : {2, 0, 1}) {
        std::this_thread::sleep_for(std::chrono::milliseconds(3));
        pieces.show(piece);
        std::atomic_ref<std::uint32_t>(flags[piece]).store(0, std::memory_order_release);
      }
    });
    pieces.patience_ns = std::int64_t{120} * 1'000'000'000;
    const Run late = run_chain(c, pieces, {2, 1, cuda::outside_waits({2, seed})});
    sender.join();
    CHECK_EQ(late.late, 0);
    CHECK(late.output.out.values() == expected.output.out.values());
    CHECK(late.output.lse.values() == expected.output.lse.values());
  }
}

TEST(a_piece_that_never_comes_ends_the_launch_and_nobody_takes_its_result_for_one) {
  const Case c = plain_case({200, 200, 1, 1, 64, 64, DType::bfloat16}, {{0, 200, 0, 200, 0, 0, -1, 0}}, 3);
  Random random(3);
  Cut pieces = boxed(c, random, {60, 70, 70});
  const std::uint32_t never = 0;
  pieces.list[1].ready = &never, pieces.list[1].epoch = 1;
  pieces.patience_ns = 1'000'000;
  const Run run = run_chain(c, pieces, {2, 1, cuda::outside_waits({2, 2})});
  CHECK_EQ(run.late, 2);
  int numbers = 0;
  for (const Array* all : {&run.output.out, &run.output.lse})
    for (const double x : all->values()) numbers += !std::isnan(x);
  CHECK_EQ(numbers, 0);
}

TEST(a_tile_waits_only_for_what_it_sees) {
  const Case c = plain_case({128, 192, 1, 1, 64, 64, DType::bfloat16},
                            {{0, 128, 0, 64, 0, 0, -1, -1}, {0, 128, 128, 192, 0, 0, -1, -1}}, 3);
  Random random(3);
  Cut pieces = boxed(c, random, {64, 64, 64});
  const std::uint32_t never = 0;
  pieces.list[1].ready = &never, pieces.list[1].epoch = 1;
  pieces.patience_ns = 0;
  check_case(c, pieces, {});
}

TEST(a_hidden_nan_of_any_piece_reaches_nobody) {
  for (const Dims& dims : kBuckets) {
    check::context() = "heads of " + std::to_string(dims.head_dim);
    const Case plain =
        plain_case({140, 140, 1, 1, dims.head_dim, dims.head_dim_v, DType::bfloat16}, {{0, 140, 0, 140, 0, 0, -1, 0}}, 3);
    Case c = plain_case(plain.shape, plain.segments, 3);
    for (const std::int64_t key : {30, 100}) c.v.set(key, 0, 7, kNaN);
    Random random(3);
    const Cut pieces = boxed(c, random, {60, 80}), whole = boxed(plain, random, {60, 80});
    const Run done = run_chain(c, pieces, {}), without = run_chain(plain, whole, {});
    const Forward expected = forward(plain);
    for (std::int64_t row = 0; row < 140; ++row) {
      CHECK_EQ(done.output.lse.at(row), without.output.lse.at(row));
      for (std::int64_t x = 0; x < dims.head_dim_v; ++x) {
        const bool sees = x == 7 && row >= 30;
        CHECK_EQ(std::isnan(done.output.out.at(row, 0, x)), sees);
        const Sum& sum = expected.out[static_cast<std::size_t>(row * dims.head_dim_v + x)];
        if (!sees)
          CHECK_NEAR(done.output.out.at(row, 0, x), sum.value,
                     2 * roundoff(DType::bfloat16) * (std::abs(sum.value) + sum.mass));
      }
    }
  }
}

TEST_MAIN()
