// The device's work list, built on the CPU (support/warp_on_cpu.h), against the definition.
#include "support/warp_on_cpu.h"
// The emulator's names must be known before the kernels.
#include <algorithm>
#include <random>
#include <vector>

#include "attention/random_segments.h"
#include "attention/tile_list_reference.h"
#include "hetsp/attention/cuda/tile_list.cuh"
#include "support/check.h"

using namespace attention_test;
namespace cuda = hetsp::attention::cuda;
using hetsp::attention::DType;

namespace {

struct Nothing {};

std::vector<Tile> tiles_of(const cuda::AxisList& list) { return {list.tiles, list.tiles + *list.count}; }

// The launches of tile_list.cu, on garbage. Few blocks, so that each does several chunks.
cuda::ListBuild build(const cuda::ListRequest& request, bool one_block, unsigned blocks, std::vector<char>& memory) {
  cuda::Carving size(nullptr);
  (void)cuda::lay_out(request, one_block, size);
  memory.assign(static_cast<std::size_t>(size.bytes()), '\x5a');
  cuda::Carving carving(memory.data());
  const cuda::ListBuild all = cuda::lay_out(request, one_block, carving);
  cuda_on_cpu::launch<Nothing>(1, cuda::list_threads, [&](Nothing&) { cuda::clear_marks(all); });
  cuda_on_cpu::launch<Nothing>(blocks, cuda::list_threads, [&](Nothing&) { cuda::mark_list(all); });
  cuda_on_cpu::launch<cuda::FindShared>(blocks, cuda::list_threads, [&](cuda::FindShared& shared) {
    cuda::each_chunk(all, [&](const auto& list, std::int64_t chunk) { cuda::find_tiles(all, list, chunk, shared); });
  });
  cuda_on_cpu::launch<cuda::SortShared>(blocks, cuda::list_threads, [&](cuda::SortShared& shared) {
    cuda::each_chunk(all, [&](const auto& list, std::int64_t chunk) { cuda::sort_tiles(list, chunk, shared); });
  });
  return all;
}

void check_lists(const std::vector<Segment>& segments, const Shape& shape, bool one_block = false, unsigned blocks = 2) {
  const auto count = static_cast<std::int64_t>(segments.size());
  std::vector<char> memory;
  const cuda::ListBuild all = build({segments.data(), count, shape, true, true}, one_block, blocks, memory);
  for (const Axis axis : {Axis::queries, Axis::keys}) {
    const cuda::AxisList& list = all.lists[axis == Axis::keys];
    const std::vector<Tile> expected = reference_tiles(segments, shape, axis);
    const std::string wrong = difference(tiles_of(list), expected);
    if (!wrong.empty()) check::fail(__FILE__, __LINE__, (axis == Axis::keys ? "keys: " : "queries: ") + wrong);
    CHECK(static_cast<std::int64_t>(expected.size()) <= cuda::most_tiles(list.rows, count));
  }
  for (int i = 0; i < cuda::list_counters; ++i) CHECK_EQ(all.zeroed[i], 0u);
}

Shape rows(std::int64_t total_q, std::int64_t total_k) { return {total_q, total_k, 1, 1, 64, 64, DType::bfloat16}; }

// Documents of these lengths, one behind the other.
std::vector<Segment> documents(const std::vector<std::int64_t>& lengths, std::int64_t left, std::int64_t right) {
  std::vector<Segment> segments;
  std::int64_t row = 0;
  for (const std::int64_t length : lengths) {
    segments.push_back({row, row + length, row, row + length, 0, 0, left, right});
    row += length;
  }
  return segments;
}

std::int64_t sum(const std::vector<std::int64_t>& lengths) {
  std::int64_t total = 0;
  for (const std::int64_t length : lengths) total += length;
  return total;
}

constexpr std::int64_t kLengths[] = {0, 1, 2, 5, 31, 63, 64, 127, 128, 129, 130, 255, 256, 257, 1000, 8191, 8192, 8193, 16500};

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr unsigned kSeeds = 6;
#else
constexpr unsigned kSeeds = 40;
#endif

template <class Call>
void each_seed(unsigned first, const Call& call) {
  for (unsigned seed = first; seed < first + kSeeds; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    call(random,
         [&](std::int64_t low, std::int64_t high) { return std::uniform_int_distribution<std::int64_t>(low, high)(random); });
  }
}

}  // namespace

TEST(packed_documents_of_corner_lengths) {
  each_seed(1, [](std::mt19937& random, const auto& pick) {
    std::vector<std::int64_t> lengths(static_cast<std::size_t>(pick(1, 30)));
    const std::int64_t longest = pick(1, std::size(kLengths) - 1);
    for (std::int64_t& length : lengths) length = kLengths[pick(0, longest)];
    std::vector<Segment> segments = documents(lengths, pick(0, 2) == 0 ? pick(0, 300) : -1, pick(-1, 0));
    if (pick(0, 3) == 0) std::shuffle(segments.begin(), segments.end(), random);
    const std::int64_t total = sum(lengths) + (pick(0, 1) == 0 ? pick(0, 300) : 0);  // rows of nobody at the end
    check_lists(segments, rows(total, total), pick(0, 1) == 0, static_cast<unsigned>(pick(1, 3)));
  });
}

TEST(segments_that_share_rows) {
  each_seed(1000, [](std::mt19937& random, const auto& pick) {
    const std::int64_t total = pick(0, 3) == 0 ? pick(0, 200) : pick(1000, 20000);
    std::vector<Segment> segments = random_segments(random, total, static_cast<int>(pick(1, 60)));
    for (Segment& s : segments)
      if (pick(0, 1) == 0) s.q_pos0 = pick(-9000, 9000), s.left = pick(-1, 3000), s.right = pick(-1, 3000);
    check_lists(segments, rows(total, total), pick(0, 1) == 0);
  });
}

TEST(segments_beyond_the_tensors_are_cut_to_them) {
  each_seed(2000, [](std::mt19937& random, const auto& pick) {
    std::vector<Segment> segments = random_segments(random, 3000, 20);
    for (Segment& s : segments) s.q_begin -= pick(0, 500), s.k_begin -= pick(0, 500), s.q_end += pick(0, 900);
    check_lists(segments, rows(pick(1, 3000), pick(1, 3000)));
  });
}

// Callers that keep the lists for several calls allocate by a formula that knows no layout.
TEST(both_lists_fit_into_the_bytes_that_callers_keep) {
  const auto check_fit = [](std::int64_t total_q, std::int64_t total_k, std::int64_t count) {
    for (const bool one_block : {false, true}) {
      cuda::Carving size(nullptr);
      (void)cuda::lay_out({nullptr, count, rows(total_q, total_k), true, true}, one_block, size);
      const std::int64_t room = hetsp::attention::lists_bytes(count, total_q, total_k);
      if (size.bytes() > room)
        check::fail(__FILE__, __LINE__, std::to_string(size.bytes()) + " bytes do not fit into " + std::to_string(room));
    }
  };
  each_seed(3000, [&](std::mt19937&, const auto& pick) {
    for (int i = 0; i < 100; ++i) check_fit(pick(0, 1) << pick(0, 34), pick(0, 300) << pick(0, 25), pick(0, 3) << pick(0, 24));
  });
  check_fit(0, 0, 0);
  check_fit(1, 1, 1000);
  check_fit(std::int64_t{1} << 34, std::int64_t{1} << 34, std::int64_t{1} << 31);
}

TEST(nothing_at_all) {
  check_lists({}, rows(0, 0));
  check_lists({}, rows(0, 0), true);
  check_lists({}, rows(1000, 0));
  check_lists({{0, 0, 0, 0, 0, 0, -1, 0}}, rows(0, 7));
}

TEST(cuts_at_every_row_of_a_block) {
  std::vector<Segment> segments;
  for (std::int64_t i = 0; i < 300; ++i) segments.push_back({i, i + 200, 0, 300 - i, 0, 0, -1, -1});
  check_lists(segments, rows(500, 300));
}

TEST(a_long_document_among_short_ones) {
  std::vector<std::int64_t> lengths(500, 256);
  lengths[250] = 131072;
  const std::vector<Segment> segments = documents(lengths, -1, 0);
  check_lists(segments, rows(sum(lengths), sum(lengths)), false, 3);
}

// The phase of a cut is found across more groups than a block has threads.
TEST(a_cut_of_long_ago) {
  const std::int64_t total = (cuda::list_threads + 10) * cuda::group_blocks * tile_rows;
  check_lists({{77, total, 0, 5, 0, 0, -1, -1}}, rows(total, 5), false, 4);
}

TEST_MAIN()
