#include "hetsp/attention/work_list.h"

#include <map>
#include <random>
#include <string>
#include <vector>

#include "attention/random_segments.h"
#include "support/check.h"

using namespace hetsp::attention;
using attention_test::random_segments;

namespace {

RowRange seen(const Segment& s, Axis axis, std::int64_t row) {
  return axis == Axis::queries ? visible_keys(s, row) : visible_queries(s, row);
}

bool holds(const Segment& s, Axis axis, std::int64_t row) {
  if (s.q_begin >= s.q_end || s.k_begin >= s.k_end) return false;
  return axis == Axis::queries ? s.q_begin <= row && row < s.q_end : s.k_begin <= row && row < s.k_end;
}

}  // namespace

TEST(each_row_once_with_the_segments_that_hold_it_in_order) {
  std::mt19937 random(11);
  for (int round = 0; round < 500; ++round)
    for (const Axis axis : {Axis::queries, Axis::keys}) {
      check::context() = "round " + std::to_string(round) + " of seed 11";
      const std::int64_t total = 40, tile_rows = 1 + round % 9;
      const std::vector<Segment> segments = random_segments(random, total, 6);
      const WorkList list = work_list(segments.data(), static_cast<std::int64_t>(segments.size()), axis, total, tile_rows);
      std::vector<int> times(static_cast<std::size_t>(total));
      for (const WorkTile& tile : list.tiles) {
        CHECK(tile.begin < tile.end && tile.end - tile.begin <= tile_rows);
        const std::vector<std::int64_t> mine(list.segments.begin() + tile.list_begin, list.segments.begin() + tile.list_end);
        for (std::int64_t row = tile.begin; row < tile.end; ++row) {
          ++times[static_cast<std::size_t>(row)];
          std::vector<std::int64_t> wanted;
          for (std::size_t i = 0; i < segments.size(); ++i)
            if (holds(segments[i], axis, row)) wanted.push_back(static_cast<std::int64_t>(i));
          CHECK(mine == wanted);
        }
      }
      for (const int count : times) CHECK_EQ(count, 1);
    }
}

// What the kernels walk: for each tile and segment one run of the other axis. Each visible pair lies in exactly one of
// them, and each column of a run is seen by some row of the tile, so that nothing is loaded that nobody sees.
TEST(each_visible_pair_once_and_no_idle_column) {
  std::mt19937 random(12);
  for (int round = 0; round < 300; ++round)
    for (const Axis axis : {Axis::queries, Axis::keys}) {
      check::context() = "round " + std::to_string(round) + " of seed 12";
      const std::vector<Segment> segments = random_segments(random, 40, 6);
      const WorkList list = work_list(segments.data(), static_cast<std::int64_t>(segments.size()), axis, 40, 1 + round % 7);
      std::int64_t pairs = 0, wanted = 0;
      for (const Segment& s : segments) wanted += visible_pairs(s);
      for (const WorkTile& tile : list.tiles) {
        std::int64_t here = 0;
        for (std::int64_t i = tile.list_begin; i < tile.list_end; ++i) {
          const Segment& s = segments[static_cast<std::size_t>(list.segments[static_cast<std::size_t>(i)])];
          const RowRange rows{tile.begin, tile.end};
          const RowRange columns = axis == Axis::queries ? keys_of_rows(s, rows) : rows_of_keys(s, rows);
          for (std::int64_t column = columns.begin; column < columns.end; ++column) {
            int seen_by = 0;
            for (std::int64_t row = rows.begin; row < rows.end; ++row) {
              const RowRange run = seen(s, axis, row);
              seen_by += run.begin <= column && column < run.end;
            }
            CHECK(seen_by > 0);
            here += seen_by;
          }
        }
        CHECK_EQ(here, tile.pairs);
        pairs += here;
      }
      CHECK_EQ(pairs, wanted);
    }
}

TEST(long_ones_first_and_independent_of_neighbours) {
  const Segment documents[] = {{0, 3, 0, 3, 0, 0, -1, 0}, {3, 203, 3, 203, 0, 0, -1, 0}, {203, 210, 203, 210, 0, 0, -1, 0}};
  const WorkList list = work_list(documents, 3, Axis::queries, 212, 64);
  for (std::size_t i = 1; i < list.tiles.size(); ++i) {
    const WorkTile &before = list.tiles[i - 1], &tile = list.tiles[i];
    CHECK(2 * before.pairs > tile.pairs);  // a power of two at most
    CHECK(before.pairs >= tile.pairs || before.begin < tile.begin);
  }
  std::map<std::int64_t, std::int64_t> tiles;
  for (const WorkTile& tile : list.tiles) tiles[tile.begin] = tile.end;
  const std::map<std::int64_t, std::int64_t> wanted{{0, 3}, {3, 67}, {67, 131}, {131, 195}, {195, 203}, {203, 210}, {210, 212}};
  CHECK(tiles == wanted);
}

TEST(equal_documents_are_not_taken_in_turn) {
  constexpr std::int64_t kTokens = 4096, kDocuments = 4;
  std::vector<Segment> documents;
  for (std::int64_t d = 0; d < kDocuments; ++d)
    documents.push_back({d * kTokens, (d + 1) * kTokens, d * kTokens, (d + 1) * kTokens, 0, 0, -1, 0});
  const WorkList list = work_list(documents.data(), kDocuments, Axis::queries, kDocuments * kTokens, 64);
  int changes = 0;
  for (std::size_t i = 1; i < list.tiles.size(); ++i)
    changes += list.tiles[i - 1].begin / kTokens != list.tiles[i].begin / kTokens;
  // Pairs of a tile span 64 * 65 / 2 to 64 * 4096: at most 8 powers of two, and each document once in each.
  CHECK(changes < 8 * kDocuments);
}

TEST(nothing_to_do) {
  CHECK(work_list(nullptr, 0, Axis::queries, 0, 64).tiles.empty());
  CHECK_EQ(work_list(nullptr, 0, Axis::keys, 65, 64).tiles.size(), 2u);
}

TEST_MAIN()
