#include "hetsp/attention/cpu/forward_schedule.h"

#include <algorithm>
#include <bit>

#include "hetsp/base/ceil_div.h"
#include "hetsp/base/error.h"

namespace hetsp::attention::cpu {

namespace {

constexpr std::int64_t kItemsPerWorker = 8;  // at least, as far as units suffice: the last items then end close together
constexpr std::int64_t kRowCost = 16;        // pairs that loading, storing and handing out a row is worth

struct Builder {
  ForwardSchedule s;
  std::int64_t heads, group, small_item;
  ForwardItem gathered{0, 0, 0, heads};
  std::int64_t gathered_cost = 0;
  std::vector<std::int64_t> costs{};  // of the items

  std::int64_t cost(std::int64_t begin, std::int64_t end) const {
    std::int64_t sum = 0;
    for (std::int64_t i = begin; i < end; ++i) sum += s.tiles[i].pairs + kRowCost * (s.tiles[i].end - s.tiles[i].begin);
    return sum;
  }

  void append(const ForwardItem& item, std::int64_t item_cost) {
    s.items.push_back(item);
    costs.push_back(item_cost);
  }

  void flush() {
    if (gathered.tiles_end > gathered.tiles_begin) append(gathered, gathered_cost);
    gathered = {0, 0, 0, heads}, gathered_cost = 0;
  }

  void add_batch(std::int64_t begin, std::int64_t end) {
    const std::int64_t pairs = cost(begin, end), all = pairs * heads;
    if (gathered_cost + all > small_item) flush();
    if (all <= small_item) {
      if (gathered_cost == 0) gathered.tiles_begin = begin;
      gathered.tiles_end = end;
      gathered_cost += all;
      return;
    }
    for (std::int64_t head = 0; head < heads;) {
      const std::int64_t stop = std::min(head + s.batch_heads, (head / group + 1) * group);
      append({begin, end, head, stop}, pairs * (stop - head));
      head = stop;
    }
  }
};

}  // namespace

std::int64_t batch_end(const ForwardSchedule& schedule, std::int64_t begin, std::int64_t end) {
  const auto& tiles = schedule.tiles;
  const std::int64_t most = std::min(end, begin + schedule.batch_tiles);
  std::int64_t stop = begin + 1;
  while (stop < most && tiles[stop].list_begin == tiles[begin].list_begin && tiles[stop].list_end == tiles[begin].list_end)
    ++stop;
  return stop;
}

ForwardSchedule forward_schedule(const Segment* segments, std::int64_t count, std::int64_t total_q, std::int64_t heads,
                                 std::int64_t heads_kv, std::int64_t tile_rows, const ForwardLimits& limits) {
  invariant(limits.batch_units >= 1 && limits.workers >= 1, "batch_units ", limits.batch_units, ", workers ", limits.workers);
  WorkList list = work_list(segments, count, Axis::queries, total_q, tile_rows);
  std::sort(list.tiles.begin(), list.tiles.end(), [](const WorkTile& a, const WorkTile& b) { return a.begin < b.begin; });
  const auto tiles = static_cast<std::int64_t>(list.tiles.size());
  const std::int64_t group = heads / heads_kv, batch_heads = std::min(group, limits.batch_units);
  const std::int64_t wanted = kItemsPerWorker * limits.workers, units = tiles * heads;
  const std::int64_t batch_tiles =
      std::clamp<std::int64_t>(units / (batch_heads * wanted), 1, limits.batch_units / batch_heads);
  Builder builder{{std::move(list.tiles), std::move(list.segments), {}, batch_tiles, batch_heads}, heads, group, 0};
  builder.small_item = std::min(limits.small_item, builder.cost(0, tiles) * heads / wanted);
  for (std::int64_t begin = 0, end = 0; begin < tiles; begin = end) {
    end = batch_end(builder.s, begin, tiles);
    builder.add_batch(begin, end);
  }
  builder.flush();

  std::vector<std::int64_t> order(builder.costs.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
  const auto length = [&](std::int64_t i) { return std::bit_width(static_cast<std::uint64_t>(builder.costs[i])); };
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return length(a) > length(b); });
  std::vector<ForwardItem> items;
  items.reserve(order.size());
  for (const std::int64_t i : order) items.push_back(builder.s.items[i]);
  builder.s.items = std::move(items);
  return std::move(builder.s);
}

}  // namespace hetsp::attention::cpu
