#include "hetsp/attention/cpu/backward_schedule.h"

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "attention/random_segments.h"
#include "hetsp/attention/cpu/components.h"
#include "support/check.h"

using namespace hetsp::attention;
using namespace hetsp::attention::cpu;
using attention_test::random_segments;

namespace {

bool sees(const std::vector<Segment>& segments, std::int64_t row, std::int64_t key) {
  return std::any_of(segments.begin(), segments.end(), [&](const Segment& s) {
    if (row < s.q_begin || row >= s.q_end || key < s.k_begin || key >= s.k_end) return false;
    const RowRange run = visible_keys(s, row);
    return run.begin <= key && key < run.end;
  });
}

struct Case {
  std::vector<Segment> segments;
  std::int64_t total, heads, heads_kv, tile_rows;
  BackwardLimits limits;
  BackwardSchedule schedule;
};

Case random_case(std::mt19937& random, int round) {
  Case c{random_segments(random, 50, 7), 50, 0, 0, 1 + round % 8, {}, {}};
  c.heads_kv = 1 + round % 3, c.heads = c.heads_kv * (1 + round % 2);
  c.limits = {1 + round % 9, 20 + round % 200, round % 7 == 0 ? 100 : 4, 40, round % 5, round % 300};
  c.schedule = backward_schedule(c.segments.data(), static_cast<std::int64_t>(c.segments.size()), c.total, c.total, c.heads,
                                 c.heads_kv, c.tile_rows, c.limits);
  return c;
}

template <class Body>
void for_random_cases(unsigned seed, const Body& body) {
  std::mt19937 random(seed);
  for (int round = 0; round < 1500; ++round) {
    check::context() = "round " + std::to_string(round) + " of seed " + std::to_string(seed);
    body(random_case(random, round));
  }
}

}  // namespace

TEST(each_row_has_one_tile_in_one_range_or_is_idle) {
  std::size_t most_ranges = 0;
  for_random_cases(31, [&](const Case& c) {
    std::vector<int> rows(static_cast<std::size_t>(c.total)), tiles(c.schedule.tiles.size());
    for (const QueryRange& range : c.schedule.ranges) {
      CHECK(range.tiles_begin < range.tiles_end);
      std::int64_t pairs = 0;
      for (std::int64_t i = range.tiles_begin; i < range.tiles_end; ++i) {
        const WorkTile& tile = c.schedule.tiles[i];
        ++tiles[i];
        pairs += tile.pairs;
        for (std::int64_t row = tile.begin; row < tile.end; ++row) ++rows[row];
      }
      CHECK_EQ(pairs, range.pairs);
    }
    for (const int count : tiles) CHECK_EQ(count, 1);
    for (const RowRange& idle : c.schedule.idle_rows)
      for (std::int64_t row = idle.begin; row < idle.end; ++row) {
        ++rows[row];
        for (std::int64_t key = 0; key < c.total; ++key) CHECK(!sees(c.segments, row, key));
      }
    for (const int count : rows) CHECK_EQ(count, 1);
    for (const SplitKeys& split : c.schedule.splits)
      most_ranges = std::max(most_ranges, static_cast<std::size_t>(split.ranges_end - split.ranges_begin));
  });
  CHECK(most_ranges >= 5);
}

TEST(a_range_has_a_slab_row_for_each_key_that_it_sees_and_no_other) {
  for_random_cases(32, [](const Case& c) {
    std::vector<int> touched(static_cast<std::size_t>(c.total));
    std::map<std::int64_t, int> workspace;
    for (const QueryRange& range : c.schedule.ranges) {
      std::vector<int> rows(static_cast<std::size_t>(range.slab_rows)), keys(static_cast<std::size_t>(c.total));
      for (std::int64_t i = range.runs_begin; i < range.runs_end; ++i) {
        const KeyRun& run = c.schedule.runs[i];
        if (i > range.runs_begin) CHECK(c.schedule.runs[i - 1].end < run.begin);
        for (std::int64_t key = run.begin; key < run.end; ++key) ++keys[key], ++rows[run.slab + key - run.begin];
      }
      for (const int count : rows) CHECK_EQ(count, 1);
      for (std::int64_t key = 0; key < c.total; ++key) {
        bool seen = false;
        for (std::int64_t i = range.tiles_begin; i < range.tiles_end; ++i)
          for (std::int64_t row = c.schedule.tiles[i].begin; row < c.schedule.tiles[i].end; ++row)
            seen |= sees(c.segments, row, key);
        CHECK_EQ(keys[key], static_cast<int>(seen));
        touched[key] |= static_cast<int>(seen);
      }
      if (range.workspace_row < 0) {
        CHECK(std::min(range.slab_rows, range.met_once ? c.tile_rows : range.slab_rows) <= c.schedule.scratch_rows);
      } else {
        for (std::int64_t i = 0; i < range.slab_rows * c.heads_kv; ++i) ++workspace[range.workspace_row + i];
      }
    }
    for (const RowRange& idle : c.schedule.idle_keys)
      for (std::int64_t key = idle.begin; key < idle.end; ++key) CHECK_EQ(touched[key]++, 0);
    for (const int count : touched) CHECK_EQ(count, 1);
    CHECK_EQ(static_cast<std::int64_t>(workspace.size()), c.schedule.workspace_rows);
    for (const auto& [row, times] : workspace) CHECK_EQ(times, 1);
  });
}

// Then every query tile of a key head is there while a tile of its keys goes by, and no other segment brings that tile again.
TEST(keys_met_once_belong_to_one_segment_and_one_group) {
  int once = 0;
  for_random_cases(36, [&](const Case& c) {
    for (const QueryRange& range : c.schedule.ranges) {
      const std::int64_t units = (range.tiles_end - range.tiles_begin) * c.heads / c.heads_kv;
      bool one_segment = true;
      for (std::int64_t i = range.tiles_begin; i < range.tiles_end; ++i) {
        const WorkTile& tile = c.schedule.tiles[i];
        one_segment =
            one_segment && tile.list_end - tile.list_begin == 1 &&
            c.schedule.segments[tile.list_begin] == c.schedule.segments[c.schedule.tiles[range.tiles_begin].list_begin];
      }
      CHECK_EQ(range.met_once, range.workspace_row < 0 && units <= c.limits.group_units && one_segment);
      if (!range.met_once) continue;
      CHECK(range.runs_end - range.runs_begin <= 1);
      ++once;
    }
  });
  CHECK(once > 100);
}

TEST(each_key_is_stored_once) {
  for_random_cases(33, [](const Case& c) {
    std::vector<int> stored(static_cast<std::size_t>(c.total));
    const auto store = [&](RowRange keys) {
      for (std::int64_t key = keys.begin; key < keys.end; ++key) ++stored[key];
    };
    for (const RowRange& idle : c.schedule.idle_keys) store(idle);
    std::vector<int> added(c.schedule.ranges.size());
    for (const SplitKeys& split : c.schedule.splits) {
      store(split.keys);
      CHECK(split.ranges_end - split.ranges_begin > 1);
      for (std::int64_t i = split.ranges_begin; i < split.ranges_end; ++i) added[i] = 1;
    }
    for (std::size_t i = 0; i < c.schedule.ranges.size(); ++i) {
      const QueryRange& range = c.schedule.ranges[i];
      CHECK_EQ(added[i], static_cast<int>(range.workspace_row >= 0 && added[i] != 0));
      if (range.workspace_row >= 0) {
        CHECK(added[i] == 1 || range.slab_rows == 0);
        continue;
      }
      for (std::int64_t at = range.runs_begin; at < range.runs_end; ++at)
        store({c.schedule.runs[at].begin, c.schedule.runs[at].end});
    }
    for (const int count : stored) CHECK_EQ(count, 1);
  });
}

TEST(items_hold_each_range_and_kv_head_once_long_ones_first) {
  for_random_cases(34, [](const Case& c) {
    std::map<std::pair<std::int64_t, std::int64_t>, int> times;
    std::int64_t before = std::int64_t{1} << 60;
    for (const BackwardItem& item : c.schedule.items) {
      CHECK(item.heads_begin < item.heads_end);
      CHECK(item.ranges_begin < item.ranges_end);
      const std::int64_t group = c.heads / c.heads_kv, heads = item.heads_end - item.heads_begin;
      std::int64_t work = 0;
      for (std::int64_t range = item.ranges_begin; range < item.ranges_end; ++range) {
        for (std::int64_t head = item.heads_begin; head < item.heads_end; ++head) ++times[{range, head}];
        work += c.schedule.ranges[range].pairs * group * heads;
        if (item.ranges_end - item.ranges_begin > 1) CHECK_EQ(c.schedule.ranges[range].workspace_row, -1);
      }
      const bool gathered = heads > 1 || item.ranges_end - item.ranges_begin > 1;
      CHECK(!gathered || (heads == c.heads_kv && work <= c.limits.small_item));
      CHECK(2 * before > work || work == 0);
      before = work;
    }
    CHECK_EQ(static_cast<std::int64_t>(times.size()), static_cast<std::int64_t>(c.schedule.ranges.size()) * c.heads_kv);
    for (const auto& [key, count] : times) CHECK_EQ(count, 1);
  });
}

TEST(ranges_are_balanced_and_their_slabs_bounded) {
  for_random_cases(35, [](const Case& c) {
    const Components parts = components(c.segments.data(), static_cast<std::int64_t>(c.segments.size()));
    const auto component = [&](const QueryRange& range) {
      return parts.of_segment[c.schedule.segments[c.schedule.tiles[range.tiles_begin].list_begin]];
    };
    struct Sums {
      std::int64_t ranges = 0, pairs = 0, largest = 0, rows = 0, largest_tile = 0;
    };
    std::map<std::int64_t, Sums> sums;
    std::map<std::int64_t, std::map<std::int64_t, bool>> keys;
    for (const QueryRange& range : c.schedule.ranges) {
      Sums& sum = sums[component(range)];
      ++sum.ranges, sum.pairs += range.pairs, sum.rows += range.slab_rows, sum.largest = std::max(sum.largest, range.pairs);
      for (std::int64_t i = range.tiles_begin; i < range.tiles_end; ++i)
        sum.largest_tile = std::max(sum.largest_tile, c.schedule.tiles[i].pairs);
      for (std::int64_t i = range.runs_begin; i < range.runs_end; ++i)
        for (std::int64_t key = c.schedule.runs[i].begin; key < c.schedule.runs[i].end; ++key)
          keys[component(range)][key] = true;
    }
    for (const auto& [number, sum] : sums) {
      const auto seen = static_cast<std::int64_t>(keys[number].size());
      const std::int64_t share = seen > c.limits.many_keys ? c.limits.slab_share / 2 : c.limits.slab_share;
      CHECK(sum.ranges == 1 || sum.rows <= share * seen);
      CHECK(sum.ranges == 1 || sum.pairs * c.heads / c.heads_kv >= 2 * c.limits.range_pairs);
      CHECK(sum.largest <= sum.pairs / sum.ranges + sum.largest_tile + 1);
    }
  });
}

// The cut of a component must not depend on what else is in the batch.
TEST(a_component_alone_is_cut_as_in_a_batch) {
  const Segment alone{0, 300, 0, 300, 0, 0, -1, 0};
  Segment moved = alone;
  moved.q_begin += 70, moved.q_end += 70, moved.k_begin += 33, moved.k_end += 33;
  const Segment batch[] = {{0, 70, 0, 33, 0, 0, -1, -1}, moved, {370, 400, 333, 900, 0, 0, -1, -1}};
  const BackwardLimits limits{8, 1000, 4, 1 << 20, 8, 0};
  const BackwardSchedule one = backward_schedule(&alone, 1, 300, 300, 2, 2, 16, limits);
  const BackwardSchedule many = backward_schedule(batch, 3, 400, 900, 2, 2, 16, limits);
  CHECK_EQ(one.ranges.size(), 4u);
  std::vector<RowRange> ranges;
  for (const QueryRange& range : many.ranges)
    if (many.segments[many.tiles[range.tiles_begin].list_begin] == 1)
      ranges.push_back({many.tiles[range.tiles_begin].begin, many.tiles[range.tiles_end - 1].end});
  CHECK_EQ(ranges.size(), one.ranges.size());
  for (std::size_t i = 0; i < std::min(ranges.size(), one.ranges.size()); ++i) {
    CHECK_EQ(ranges[i].begin - 70, one.tiles[one.ranges[i].tiles_begin].begin);
    CHECK_EQ(ranges[i].end - 70, one.tiles[one.ranges[i].tiles_end - 1].end);
  }
}

// A window's ranges share few keys, so many of them fit where causal ranges do not.
TEST(a_window_may_be_cut_more_often) {
  const Segment causal{0, 1000, 0, 1000, 0, 0, -1, 0}, window{0, 1000, 0, 1000, 0, 0, 100, 0},
      full{0, 1000, 0, 1000, 0, 0, -1, -1};
  const BackwardLimits limits{64, 100, 4, 1 << 20, 8, 0};
  const auto ranges = [&](const Segment& s) { return backward_schedule(&s, 1, 1000, 1000, 1, 1, 10, limits).ranges.size(); };
  CHECK_EQ(ranges(full), 4u);
  CHECK(ranges(causal) >= 5 && ranges(causal) <= 7);
  CHECK(ranges(window) >= 25);
}

TEST(nothing_to_do) {
  const BackwardSchedule schedule = backward_schedule(nullptr, 0, 0, 300, 4, 2, 64);
  CHECK(schedule.items.empty() && schedule.idle_rows.empty());
  CHECK_EQ(schedule.idle_keys.size(), 3u);
}

TEST_MAIN()
