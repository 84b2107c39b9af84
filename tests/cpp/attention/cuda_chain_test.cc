// The chain of pieces by the portable kernels, run on the CPU, against the definition in float64; and bit by bit against a loop
// of the plain kernels, each seeded by the one before.
#include "support/mma_on_cpu.h"
// The emulator's names must be known before the kernels.
#include "support/arrival_on_cpu.h"
// So must these.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>

#include "attention/attention_call.h"
#include "attention/attention_case.h"
#include "attention/attention_truth.h"
#include "attention/chain_case.h"
#include "attention/mma_case.h"
#include "hetsp/attention/cuda/bucket.h"
#include "hetsp/attention/cuda/mma/forward_chain.cuh"
#include "hetsp/attention/cuda/scalar/forward_chain.cuh"
#include "support/check.h"

using namespace attention_case;
namespace cuda = hetsp::attention::cuda;
namespace mma = hetsp::attention::cuda::mma;

namespace {

constexpr double kUnits = 8;  // of rounding errors, as in mma_forward_test and cuda_kernels_test
constexpr unsigned kBlocks = 3;

struct Nothing {};

// The whole call by one family, as its launch does it.
struct Family {
  const char* name;
  void (*chain)(const Case& c, const Cut& cut, const HostTiles& tiles, const cuda::Chain& chain,
                const cuda_on_cpu::Options& how);
  void (*plain)(const Case& c, const HostTiles& tiles, const ForwardParams& params);
};

std::vector<cuda::SegmentRange> ranges_of(const Case& c) {
  std::vector<cuda::SegmentRange> ranges(
      static_cast<std::size_t>(c.shape.total_q / cuda::index_rows + 1 + c.shape.total_k / cuda::index_rows + 1));
  const cuda::SegmentIndex index{ranges.data(), ranges.data() + c.shape.total_q / cuda::index_rows + 1};
  cuda_on_cpu::launch<Nothing>(1, cuda::block_threads,
                               [&](Nothing&) { cuda::clear_index(ranges.data(), static_cast<std::int64_t>(ranges.size())); });
  cuda_on_cpu::launch<Nothing>(2, cuda::block_threads, [&](Nothing&) {
    cuda::mark_segments(c.segments.data(), static_cast<std::int64_t>(c.segments.size()), c.shape, index);
  });
  return ranges;
}

template <class Body>
void for_scalar(const Case& c, const Body& body) {
  const std::vector<cuda::SegmentRange> ranges = ranges_of(c);
  const cuda::SegmentIndex index{const_cast<cuda::SegmentRange*>(ranges.data()), nullptr};
  cuda::select(c.shape, [&](auto acc, auto bucket) { body(index, acc, bucket); });
}

void scalar_chain(const Case& c, const Cut&, const HostTiles&, const cuda::Chain& chain, const cuda_on_cpu::Options& how) {
  for_scalar(c, [&](const cuda::SegmentIndex& index, auto acc, auto bucket) {
    using Shared = cuda::ForwardChainShared<decltype(acc), decltype(bucket)::value>;
    cuda_on_cpu::launch<Shared>(
        kBlocks, cuda::block_threads, [&](Shared& shared) { cuda::forward_chain_tiles(chain, index, shared); }, how);
  });
}

void scalar_plain(const Case& c, const HostTiles&, const ForwardParams& params) {
  for_scalar(c, [&](const cuda::SegmentIndex& index, auto acc, auto bucket) {
    using Shared = cuda::ForwardShared<decltype(acc), decltype(bucket)::value>;
    cuda_on_cpu::launch<Shared>(kBlocks, cuda::block_threads,
                                [&](Shared& shared) { cuda::forward_tiles(params, index, shared); });
  });
}

template <class Body>
void for_mma(const Case& c, const Body& body) {
  const bool narrow = std::max(c.shape.head_dim, c.shape.head_dim_v) <= 64;
  if (c.shape.dtype == DType::bfloat16)
    return narrow ? body(BFloat16{}, cuda::Bucket<64>()) : body(BFloat16{}, cuda::Bucket<128>());
  narrow ? body(Float16{}, cuda::Bucket<64>()) : body(Float16{}, cuda::Bucket<128>());
}

std::int32_t suspects_seen = 0;

void mma_chain(const Case& c, const Cut&, const HostTiles& tiles, const cuda::Chain& chain, const cuda_on_cpu::Options& how) {
  for_mma(c, [&](auto element, auto bucket) {
    constexpr int dim = decltype(bucket)::value;
    using Plan = mma::ForwardPlan<dim>;
    using Shared = mma::ForwardChainShared<dim>;
    using Repair = mma::RepairChainShared<dim>;
    std::vector<std::int32_t> words = fresh_scratch();
    const mma::Scratch scratch = mma::scratch_of_pass(words.data(), 0);
    cuda_on_cpu::launch<Shared>(
        kBlocks, Plan::warps * mma::warp_lanes,
        [&](Shared& shared) { mma::forward_chain_items<decltype(element), dim>(chain, tiles.list(), scratch, shared); }, how);
    suspects_seen += *scratch.suspect_count;
    cuda_on_cpu::launch<Repair>(kBlocks, cuda::block_threads,
                                [&](Repair& shared) { mma::repair_chain_items(chain, tiles.list(), scratch, shared); });
  });
}

void mma_plain(const Case& c, const HostTiles& tiles, const ForwardParams& params) {
  for_mma(c, [&](auto element, auto bucket) {
    constexpr int dim = decltype(bucket)::value;
    using Plan = mma::ForwardPlan<dim>;
    using Shared = mma::ForwardShared<dim>;
    using Repair = mma::RepairForwardShared<dim>;
    std::vector<std::int32_t> words = fresh_scratch();
    const mma::Scratch scratch = mma::scratch_of_pass(words.data(), 0);
    cuda_on_cpu::launch<Shared>(kBlocks, Plan::warps * mma::warp_lanes, [&](Shared& shared) {
      mma::forward_items<decltype(element), dim>(params, tiles.list(), scratch, shared);
    });
    cuda_on_cpu::launch<Repair>(kBlocks, cuda::block_threads,
                                [&](Repair& shared) { mma::repair_forward_items(params, tiles.list(), scratch, shared); });
  });
}

constexpr Family kScalar{"scalar", scalar_chain, scalar_plain}, kMma{"mma", mma_chain, mma_plain};

struct Run {
  Output output;
  std::int32_t late;
};

// Cut, chain and poison. Flags and patience are those of the cut.
Run run(const Family& family, const Case& c, const Cut& pieces, const HostTiles& tiles, const cuda_on_cpu::Options& how = {}) {
  Run result{empty_output(c), 0};
  PiecesParams params = pieces.params(c, result.output);
  params.late = &result.late;
  std::vector<Segment> cut(c.segments.size() * pieces.list.size());
  const cuda::PieceRows rows = cuda::rows_of(params);
  cuda_on_cpu::launch<Nothing>(2, cuda::block_threads, [&](Nothing&) {
    cuda::cut_segments(c.segments.data(), static_cast<std::int64_t>(c.segments.size()), rows, cut.data());
  });
  Array between = pieces.memory_between(c);
  std::vector<std::uint64_t> done(static_cast<std::size_t>(tiles.count * c.shape.heads));
  const cuda::Chain chain = cuda::chain_of(params, cut.data(), between.mutable_view(), done.data());
  family.chain(c, pieces, tiles, chain, how);
  if (&family == &kMma)
    for (const std::uint64_t links : done) CHECK_EQ(links, 0x1111111111111111u >> (64 - 4 * chain.count));
  cuda_on_cpu::launch<Nothing>(2, cuda::block_threads, [&](Nothing&) {
    if (c.shape.dtype == DType::float64) return cuda::poison<double>(params.call, params.late);
    cuda::poison<float>(params.call, params.late);
  });
  return result;
}

void check_close(const char* what, const Array& actual, const std::vector<Sum>& expected, const Case& c, DType dtype,
                 int links) {
  const bool rounded = c.shape.dtype == DType::bfloat16 || c.shape.dtype == DType::float16;
  const double worst = worst_error(actual.values(), expected, dtype, c.acc(), rounded);
  if (worst > kUnits + 2 * links)
    check::fail(__FILE__, __LINE__, std::string(what) + " is off by " + std::to_string(worst) + " units");
  CHECK_EQ(actual.strays(), 0);
}

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr unsigned kSeeds = 2;
#else
constexpr unsigned kSeeds = 8;
#endif

void check_random(const Family& family, DType dtype, unsigned first_seed, const std::vector<Dims>& all_dims,
                  std::int64_t most_tokens) {
  unsigned seed = first_seed;
  for (const Dims& dims : all_dims)
    for (unsigned i = 0; i < kSeeds; ++i, ++seed) {
      const Case c = random_case(seed, dtype, dims, most_tokens);
      Random random(seed);
      const HostTiles tiles = query_tiles(random, c);
      const Cut cut(c, random, static_cast<int>(1 + seed % 4));
      check::context() = std::string(family.name) + " in " + std::to_string(cut.list.size()) + " pieces, " + c.label;
      const Run done = run(family, c, cut, tiles, {1 + seed % 3, seed % 4});
      const Forward expected = forward(c);
      check_close("out", done.output.out, expected.out, c, c.out_dtype(), static_cast<int>(cut.list.size()));
      check_close("lse", done.output.lse, expected.lse, c, c.acc(), static_cast<int>(cut.list.size()));
      CHECK_EQ(done.late, 0);
    }
}

}  // namespace

TEST(random_scalar) {
  check_random(kScalar, DType::float32, 100, {{64, 64}, {17, 40}, {128, 96}}, 150);
  check_random(kScalar, DType::float64, 200, {{40, 17}, {64, 64}}, 150);
  check_random(kScalar, DType::bfloat16, 300, {{64, 64}}, 150);
}
TEST(random_mma) {
  check_random(kMma, DType::bfloat16, 400, {{64, 64}, {80, 128}}, 200);
  check_random(kMma, DType::float16, 500, {{64, 64}, {17, 40}}, 200);
}

// Every row sees every piece, so no link is passed over.
TEST(a_chain_has_the_bits_of_a_loop_of_seeded_calls) {
  for (const Family* family : {&kScalar, &kMma})
    for (const bool partial : {false, true}) {
      check::context() = std::string(family->name) + (partial ? " partial" : "");
      Case c = plain_case({260, 300, 2, 1, 64, 64, DType::bfloat16},
                          {{0, 100, 0, 300, 0, 0, -1, -1}, {100, 260, 0, 300, 300, 0, -1, 0}}, 9);
      c.out_is_acc = partial;
      Random random(9);
      const HostTiles tiles = query_tiles(random, c);
      const Cut pieces(c, random, std::vector<std::int64_t>{100, 30, 170});
      const Run chained = run(*family, c, pieces, tiles, {2, 2});
      Output looped = empty_output(c);
      const PiecesParams params = pieces.params(c, looped);
      Array between = pieces.memory_between(c);
      for (int i = 0; i < params.count; ++i) {
        const std::vector<Segment> cut = pieces.segments(c, i);
        family->plain(c, tiles, link_of(params, i, cut.data(), between.mutable_view()));
      }
      CHECK(chained.output.out.values() == looped.out.values());
      CHECK(chained.output.lse.values() == looped.lse.values());
    }
}

TEST(pieces_that_come_late_from_another_thread_are_read_when_they_are_there) {
  for (const Family* family : {&kScalar, &kMma})
    for (unsigned seed = 0; seed < 3; ++seed) {
      check::context() = std::string(family->name) + " seed " + std::to_string(seed);
      const Case c = plain_case({150, 200, 2, 1, 64, 64, DType::float16}, {{0, 150, 0, 200, 50, 0, -1, 0}}, seed);
      Random random(seed);
      const HostTiles tiles = query_tiles(random, c);
      Cut pieces(c, random, std::vector<std::int64_t>{64, 70, 66});
      const Run expected = run(*family, c, pieces, tiles);
      std::vector<std::uint32_t> flags{5, 5, 4};
      for (std::size_t i = 0; i < 3; ++i) pieces.list[i].ready = &flags[i], pieces.list[i].epoch = 6;
      pieces.hide();
      std::thread sender([&] {
        for (const std::size_t piece : {2, 0, 1}) {
          std::this_thread::sleep_for(std::chrono::milliseconds(2));
          pieces.show(piece);
          std::atomic_ref<std::uint32_t>(flags[piece]).store(6, std::memory_order_release);
        }
      });
      pieces.patience_ns = std::int64_t{120} * 1'000'000'000;
      const Run late = run(*family, c, pieces, tiles, cuda::outside_waits({2, seed}));
      sender.join();
      CHECK_EQ(late.late, 0);
      CHECK(late.output.out.values() == expected.output.out.values());
      CHECK(late.output.lse.values() == expected.output.lse.values());
    }
}

TEST(a_piece_that_never_comes_ends_the_launch_and_nobody_takes_its_result_for_one) {
  for (const Family* family : {&kScalar, &kMma}) {
    check::context() = family->name;
    const Case c = plain_case({150, 200, 2, 1, 64, 64, DType::bfloat16}, {{0, 150, 0, 200, 50, 0, -1, 0}}, 3);
    Random random(3);
    const HostTiles tiles = query_tiles(random, c);
    Cut pieces(c, random, std::vector<std::int64_t>{64, 70, 66});
    const std::uint32_t never = 0;
    pieces.list[1].ready = &never, pieces.list[1].epoch = 1;
    pieces.patience_ns = 1'000'000;
    const Run run_late = run(*family, c, pieces, tiles, cuda::outside_waits({2, 2}));
    CHECK_EQ(run_late.late, 2);
    int numbers = 0;
    for (const double x : run_late.output.out.values()) numbers += !std::isnan(x);
    for (const double x : run_late.output.lse.values()) numbers += !std::isnan(x);
    CHECK_EQ(numbers, 0);
  }
}

TEST(a_tile_waits_only_for_what_it_sees) {
  for (const Family* family : {&kScalar, &kMma}) {
    check::context() = family->name;
    const Case c = plain_case({128, 192, 1, 1, 64, 64, DType::bfloat16},
                              {{0, 128, 0, 64, 0, 0, -1, -1}, {0, 128, 128, 192, 0, 0, -1, -1}}, 3);
    Random random(3);
    const HostTiles tiles = query_tiles(random, c);
    Cut pieces(c, random, std::vector<std::int64_t>{64, 64, 64});
    const std::uint32_t never = 0;
    pieces.list[1].ready = &never, pieces.list[1].epoch = 1;
    pieces.patience_ns = 0;
    const Run done = run(*family, c, pieces, tiles);
    CHECK_EQ(done.late, 0);
    const Forward expected = forward(c);
    check_close("out", done.output.out, expected.out, c, c.out_dtype(), 3);
  }
}

TEST(a_hidden_nan_of_any_piece_reaches_nobody) {
  const Case plain = plain_case({140, 140, 1, 1, 16, 16, DType::bfloat16}, {{0, 140, 0, 140, 0, 0, -1, 0}}, 3);
  Case c = plain_case(plain.shape, plain.segments, 3);
  for (const std::int64_t key : {30, 100}) c.v.set(key, 0, 7, kNaN);
  Random random(3);
  const HostTiles tiles = query_tiles(random, c);
  const Cut pieces(c, random, std::vector<std::int64_t>{60, 80}), whole(plain, random, std::vector<std::int64_t>{60, 80});
  suspects_seen = 0;
  const Run done = run(kMma, c, pieces, tiles), without = run(kMma, plain, whole, tiles);
  CHECK(suspects_seen > 0);
  const Forward expected = forward(plain);
  for (std::int64_t row = 0; row < 140; ++row) {
    CHECK_EQ(done.output.lse.at(row), without.output.lse.at(row));
    for (std::int64_t x = 0; x < 16; ++x) {
      const bool sees = x == 7 && row >= 30;
      CHECK_EQ(std::isnan(done.output.out.at(row, 0, x)), sees);
      const Sum& sum = expected.out[static_cast<std::size_t>(row * 16 + x)];
      if (!sees)
        CHECK_NEAR(done.output.out.at(row, 0, x), sum.value, 2 * roundoff(DType::bfloat16) * (std::abs(sum.value) + sum.mass));
    }
  }
}

TEST_MAIN()
