// The forward's schedule on random segments: every row and head once, batches of one list and one kv head, long items first.
#include "hetsp/attention/cpu/forward_schedule.h"

#include <bit>
#include <map>
#include <random>
#include <string>
#include <utility>

#include "attention/random_segments.h"
#include "support/check.h"

using namespace attention_test;
using namespace hetsp::attention;
using namespace hetsp::attention::cpu;

namespace {

constexpr std::int64_t kRows = 16;

std::vector<Segment> documents(const std::vector<std::int64_t>& lengths) {
  std::vector<Segment> segments;
  std::int64_t begin = 0;
  for (const std::int64_t n : lengths) segments.push_back({begin, begin + n, begin, begin + n, 0, 0, -1, 0}), begin += n;
  return segments;
}

}  // namespace
TEST(every_row_and_head_is_in_one_batch_of_one_list_and_one_kv_head) {
  for (unsigned seed = 0; seed < 400; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    const std::int64_t total = 60, heads_kv = 1 + seed % 3, group = 1 + seed % 5, heads = heads_kv * group;
    const std::vector<Segment> segments = random_segments(random, total, 7);
    const ForwardLimits limits{1 + static_cast<std::int64_t>(seed % 9), 1 << seed % 14,
                               1 + static_cast<std::int64_t>(seed % 4)};
    const ForwardSchedule s =
        forward_schedule(segments.data(), static_cast<std::int64_t>(segments.size()), total, heads, heads_kv, kRows, limits);
    CHECK(s.batch_tiles >= 1 && s.batch_heads >= 1 && s.batch_tiles * s.batch_heads <= limits.batch_units);
    CHECK(s.batch_heads <= group);
    std::map<std::pair<std::int64_t, std::int64_t>, int> times;  // (row, head)
    for (const ForwardItem& item : s.items) {
      CHECK(item.tiles_begin < item.tiles_end && item.heads_begin < item.heads_end);
      const bool all_heads = item.heads_begin == 0 && item.heads_end == heads;
      CHECK(all_heads || item.heads_begin / group == (item.heads_end - 1) / group);
      int batches = 0;
      for (std::int64_t begin = item.tiles_begin, end = 0; begin < item.tiles_end; begin = end, ++batches) {
        end = batch_end(s, begin, item.tiles_end);
        CHECK(begin < end && end - begin <= s.batch_tiles);
        for (std::int64_t i = begin; i < end; ++i) {
          CHECK(s.tiles[i].end - s.tiles[i].begin <= kRows);
          CHECK_EQ(s.tiles[i].list_begin, s.tiles[begin].list_begin);
          CHECK_EQ(s.tiles[i].list_end, s.tiles[begin].list_end);
          for (std::int64_t row = s.tiles[i].begin; row < s.tiles[i].end; ++row)
            for (std::int64_t head = item.heads_begin; head < item.heads_end; ++head) ++times[{row, head}];
        }
      }
      CHECK(batches == 1 || all_heads);
    }
    CHECK_EQ(static_cast<std::int64_t>(times.size()), total * heads);
    for (const auto& [where, count] : times) CHECK_EQ(count, 1);
  }
}

TEST(short_documents_are_gathered_and_long_ones_cut) {
  std::vector<std::int64_t> lengths(100, kRows);
  lengths.push_back(64 * kRows);
  const std::vector<Segment> segments = documents(lengths);
  const std::int64_t total = 164 * kRows;
  const ForwardSchedule s = forward_schedule(segments.data(), 101, total, 4, 2, kRows, {4, 10000, 1});
  CHECK_EQ(s.batch_heads, 2);
  CHECK_EQ(s.batch_tiles, 2);
  std::int64_t items_of_long = 0, before = std::int64_t{1} << 62;
  for (const ForwardItem& item : s.items) {
    std::int64_t work = 0;
    for (std::int64_t i = item.tiles_begin; i < item.tiles_end; ++i)
      work += (s.tiles[i].pairs + 16 * kRows) * (item.heads_end - item.heads_begin);
    CHECK(std::bit_width(static_cast<std::uint64_t>(work)) <= std::bit_width(static_cast<std::uint64_t>(before)));
    before = work;
    if (s.tiles[item.tiles_begin].begin < 100 * kRows) {
      CHECK_EQ(item.heads_end - item.heads_begin, 4);
      // A document and 4 heads have 4 (136 + 16 * 16) = 1568: six of them fit. Only the last item may have fewer.
      CHECK(item.tiles_end - item.tiles_begin == 6 || item.tiles_end == 100 || item.tiles_begin == 96);
    } else {
      ++items_of_long;
    }
  }
  CHECK(items_of_long >= 60);  // 32 batches for each kv head, but for short ones at the beginning
}

TEST(many_workers_find_items_enough) {
  const std::vector<Segment> segments = documents({64 * kRows});
  const ForwardSchedule few = forward_schedule(segments.data(), 1, 64 * kRows, 4, 4, kRows, {8, 1, 1});
  const ForwardSchedule many = forward_schedule(segments.data(), 1, 64 * kRows, 4, 4, kRows, {8, 1, 16});
  CHECK_EQ(few.items.size(), 32u);
  CHECK(many.items.size() >= 8 * 16);
}

TEST(rows_of_no_segment_are_in_the_schedule_and_no_rows_give_none) {
  const Segment middle{10, 20, 0, 5, 0, 0, -1, -1};
  const ForwardSchedule s = forward_schedule(&middle, 1, 40, 1, 1, kRows, {8, 1, 1});
  std::int64_t rows = 0;
  for (const WorkTile& tile : s.tiles) rows += tile.end - tile.begin;
  CHECK_EQ(rows, 40);
  CHECK(forward_schedule(nullptr, 0, 0, 2, 1, kRows, {8, 1, 1}).items.empty());
}

TEST_MAIN()
