#include "hetsp/attention/cpu/backward_schedule.h"

#include <algorithm>
#include <bit>

#include "hetsp/attention/cpu/components.h"
#include "hetsp/base/ceil_div.h"
#include "hetsp/base/error.h"

namespace hetsp::attention::cpu {

namespace {

constexpr std::int64_t kChunkRows = 128;  // of idle rows and split keys: what is stored at a time

void append_chunks(RowRange rows, std::vector<RowRange>& chunks) {
  for (std::int64_t begin = rows.begin; begin < rows.end; begin += kChunkRows)
    chunks.push_back({begin, std::min(begin + kChunkRows, rows.end)});
}

// Runs that overlap or touch become one.
std::vector<RowRange> united(std::vector<RowRange> runs) {
  std::sort(runs.begin(), runs.end(), [](const RowRange& a, const RowRange& b) { return a.begin < b.begin; });
  std::vector<RowRange> result;
  for (const RowRange& run : runs) {
    if (run.begin >= run.end) continue;
    if (!result.empty() && run.begin <= result.back().end) {
      result.back().end = std::max(result.back().end, run.end);
    } else {
      result.push_back(run);
    }
  }
  return result;
}

std::int64_t rows_in(const std::vector<RowRange>& runs) {
  std::int64_t rows = 0;
  for (const RowRange& run : runs) rows += run.end - run.begin;
  return rows;
}

class Builder {
 public:
  Builder(const Segment* segments, std::int64_t heads, std::int64_t heads_kv, const BackwardLimits& limits)
      : segments_(segments), heads_kv_(heads_kv), group_(heads / heads_kv), limits_(limits) {}

  BackwardSchedule build(std::int64_t count, std::int64_t total_q, std::int64_t total_k, std::int64_t tile_rows) {
    tile_rows_ = tile_rows;
    order_tiles(count, total_q, tile_rows);
    for (std::size_t begin = 0, end = 0; begin < s_.tiles.size(); begin = end) {
      while (end < s_.tiles.size() && component_[end] == component_[begin]) ++end;
      cut_component(static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end));
    }
    std::int64_t row = 0;
    for (const RowRange& run : united(std::move(seen_keys_))) append_chunks({row, run.begin}, s_.idle_keys), row = run.end;
    append_chunks({row, total_k}, s_.idle_keys);
    make_items();
    return std::move(s_);
  }

 private:
  void order_tiles(std::int64_t count, std::int64_t total_q, std::int64_t tile_rows) {
    const Components parts = components(segments_, count);
    WorkList list = work_list(segments_, count, Axis::queries, total_q, tile_rows);
    s_.segments = std::move(list.segments);
    const auto component = [&](const WorkTile& tile) { return parts.of_segment[s_.segments[tile.list_begin]]; };
    for (const WorkTile& tile : list.tiles) {
      if (tile.list_begin == tile.list_end) {
        append_chunks({tile.begin, tile.end}, s_.idle_rows);
      } else {
        s_.tiles.push_back(tile);
      }
    }
    std::sort(s_.tiles.begin(), s_.tiles.end(), [&](const WorkTile& a, const WorkTile& b) {
      const std::int64_t x = component(a), y = component(b);
      return x != y ? x < y : a.begin < b.begin;
    });
    for (const WorkTile& tile : s_.tiles) component_.push_back(component(tile));
  }

  std::vector<RowRange> keys_seen_by(RowRange tiles) const {
    std::vector<RowRange> runs;
    for (std::int64_t i = tiles.begin; i < tiles.end; ++i)
      for (std::int64_t at = s_.tiles[i].list_begin; at < s_.tiles[i].list_end; ++at)
        runs.push_back(keys_of_rows(segments_[s_.segments[at]], {s_.tiles[i].begin, s_.tiles[i].end}));
    return united(std::move(runs));
  }

  // Ends of `count` ranges of about equal pairs; some may be empty.
  std::vector<std::int64_t> ends(RowRange tiles, std::int64_t pairs, std::int64_t count) const {
    std::vector<std::int64_t> result;
    std::int64_t done = 0;
    for (std::int64_t i = tiles.begin; i < tiles.end; ++i) {
      done += s_.tiles[i].pairs;
      // The tile that crosses a boundary goes to the range that has more than half of it.
      while (static_cast<std::int64_t>(result.size()) + 1 < count &&
             done - s_.tiles[i].pairs / 2 > pairs / count * (static_cast<std::int64_t>(result.size()) + 1))
        result.push_back(i);
    }
    result.resize(static_cast<std::size_t>(count), tiles.end);
    return result;
  }

  void cut_component(std::int64_t begin, std::int64_t end) {
    std::int64_t pairs = 0;
    for (std::int64_t i = begin; i < end; ++i) pairs += s_.tiles[i].pairs;
    const std::vector<RowRange> keys = keys_seen_by({begin, end});
    seen_keys_.insert(seen_keys_.end(), keys.begin(), keys.end());
    const std::int64_t rows = rows_in(keys);
    const std::int64_t most_rows = rows * (rows > limits_.many_keys ? limits_.slab_share / 2 : limits_.slab_share);
    std::int64_t count =
        std::clamp<std::int64_t>(pairs * group_ / limits_.range_pairs, 1, ceil_div(limits_.workers, heads_kv_));
    while (count > 1 && slab_rows({begin, end}, pairs, count) > most_rows) --count;

    const auto first = static_cast<std::int64_t>(s_.ranges.size());
    std::int64_t at = begin;
    for (const std::int64_t stop : ends({begin, end}, pairs, count)) {
      if (stop > at) append_range({at, stop});
      at = stop;
    }
    const auto last = static_cast<std::int64_t>(s_.ranges.size());
    if (last - first == 1) {
      QueryRange& range = s_.ranges[first];
      const std::int64_t list = s_.tiles[begin].list_begin;
      range.met_once = (end - begin) * group_ <= limits_.group_units && s_.tiles[end - 1].list_begin == list &&
                       s_.tiles[begin].list_end - list == 1;
      s_.scratch_rows = std::max(s_.scratch_rows, range.met_once ? std::min(range.slab_rows, tile_rows_) : range.slab_rows);
      return;
    }
    for (std::int64_t i = first; i < last; ++i) {
      s_.ranges[i].workspace_row = s_.workspace_rows;
      s_.workspace_rows += s_.ranges[i].slab_rows * heads_kv_;
    }
    std::vector<RowRange> chunks;
    for (const RowRange& run : keys) append_chunks(run, chunks);
    for (const RowRange& chunk : chunks) s_.splits.push_back({chunk, first, last});
  }

  std::int64_t slab_rows(RowRange tiles, std::int64_t pairs, std::int64_t count) const {
    std::int64_t rows = 0, at = tiles.begin;
    for (const std::int64_t stop : ends(tiles, pairs, count)) rows += rows_in(keys_seen_by({at, stop})), at = stop;
    return rows;
  }

  void append_range(RowRange tiles) {
    QueryRange range{tiles.begin, tiles.end, static_cast<std::int64_t>(s_.runs.size()), 0, 0, 0, false, -1};
    for (std::int64_t i = tiles.begin; i < tiles.end; ++i) range.pairs += s_.tiles[i].pairs;
    for (const RowRange& run : keys_seen_by(tiles)) {
      s_.runs.push_back({run.begin, run.end, range.slab_rows});
      range.slab_rows += run.end - run.begin;
    }
    range.runs_end = static_cast<std::int64_t>(s_.runs.size());
    s_.ranges.push_back(range);
  }

  void make_items() {
    const auto count = static_cast<std::int64_t>(s_.ranges.size());
    const auto work = [&](const BackwardItem& item) {
      std::int64_t pairs = 0;
      for (std::int64_t i = item.ranges_begin; i < item.ranges_end; ++i) pairs += s_.ranges[i].pairs;
      return static_cast<std::uint64_t>(pairs * group_ * (item.heads_end - item.heads_begin));
    };
    for (std::int64_t i = 0; i < count;) {
      std::int64_t end = i;
      for (std::int64_t pairs = 0; end < count && s_.ranges[end].workspace_row < 0; ++end) {
        pairs += s_.ranges[end].pairs * group_ * heads_kv_;
        if (pairs > limits_.small_item) break;
      }
      if (end > i) {
        s_.items.push_back({i, end, 0, heads_kv_});
        i = end;
      } else {
        for (std::int64_t head = 0; head < heads_kv_; ++head) s_.items.push_back({i, i + 1, head, head + 1});
        ++i;
      }
    }
    std::stable_sort(s_.items.begin(), s_.items.end(), [&](const BackwardItem& a, const BackwardItem& b) {
      return std::bit_width(work(a)) > std::bit_width(work(b));
    });
  }

  const Segment* const segments_;
  const std::int64_t heads_kv_, group_;
  const BackwardLimits limits_;
  std::vector<std::int64_t> component_;  // of each tile
  std::vector<RowRange> seen_keys_;
  std::int64_t tile_rows_ = 0;
  BackwardSchedule s_;
};

}  // namespace

BackwardSchedule backward_schedule(const Segment* segments, std::int64_t count, std::int64_t total_q, std::int64_t total_k,
                                   std::int64_t heads, std::int64_t heads_kv, std::int64_t tile_rows,
                                   const BackwardLimits& limits) {
  invariant(heads >= 1 && heads_kv >= 1 && heads % heads_kv == 0, heads, " query heads on ", heads_kv, " kv heads");
  return Builder(segments, heads, heads_kv, limits).build(count, total_q, total_k, tile_rows);
}

}  // namespace hetsp::attention::cpu
