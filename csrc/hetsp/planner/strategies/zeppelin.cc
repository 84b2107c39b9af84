#include "hetsp/planner/strategies/zeppelin.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>

#include "hetsp/base/ceil_div.h"
#include "hetsp/base/error.h"
#include "hetsp/planner/cut.h"

namespace hetsp::planner {

namespace {

double work(const Sequence& sequence) { return static_cast<double>(sequence.visible_pairs); }

// Nodes, or the ranks of one node.
struct Part {
  std::int64_t room;  // tokens on each of its ranks that are left
  double load = 0.0;
  std::vector<std::int32_t> ranks{};
};

// Thresholds to try: the room of one part, then shorter lengths, each at least 5 % below the last, then what spreads the
// longest over all parts.
std::vector<std::int64_t> thresholds(const Task& task, const std::vector<int>& chunk, std::int64_t room, std::size_t parts) {
  std::vector<std::int64_t> list{room};
  for (const int s : chunk)
    if (const auto tokens = task.sequences[s].tokens; 20 * tokens < 19 * list.back() && tokens > 0) list.push_back(tokens);
  if (!chunk.empty()) list.push_back(ceil_div(task.sequences[chunk.front()].tokens, static_cast<std::int64_t>(parts)));
  return list;
}

class Partition {
 public:
  explicit Partition(const Task& task) : task_(task) {
    const int size = task.cluster.ranks_per_node == 0 ? task.cluster.ranks : task.cluster.ranks_per_node;
    for (std::int32_t first = 0; first < task.cluster.ranks; first += size) {
      Part& node = nodes_.emplace_back(Part{.room = task.cluster.tokens_per_rank});
      for (std::int32_t r = first; r < std::min(first + size, task.cluster.ranks); ++r) node.ranks.push_back(r);
    }
  }

  // Groups of one micro-batch, inter-node ones first; `chunk` by falling tokens. None where no threshold finds room.
  std::optional<std::vector<DraftGroup>> run(const std::vector<int>& chunk) {
    const auto node_room = static_cast<std::int64_t>(nodes_.front().ranks.size()) * task_.cluster.tokens_per_rank;
    for (const std::int64_t s1 : thresholds(task_, chunk, node_room, nodes_.size())) {
      auto groups = with_threshold(chunk, s1);
      if (groups) return groups;
    }
    return std::nullopt;
  }

 private:
  // Tokens of `s` that each of `degree` ranks must have room for.
  [[nodiscard]] std::int64_t share(int s, int degree) const {
    const std::int64_t tokens = task_.sequences[s].tokens;
    return task_.options.exclusive ? ceil_div(tokens, std::int64_t{degree}) : most_tokens_held(tokens, degree);
  }

  // Puts `s` on `count` or a few more of `parts`, the least loaded with room: their indices, or none.
  std::vector<std::size_t> put(std::vector<Part>& parts, int s, std::size_t count) {
    std::vector<std::size_t> order(parts.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return parts[a].load < parts[b].load; });
    for (; count <= parts.size(); ++count) {
      const int degree = static_cast<int>(count * parts.front().ranks.size());
      if (task_.modes.find(Kind::ring, degree) == nullptr) continue;
      const std::int64_t held = share(s, degree);
      std::vector<std::size_t> chosen;
      for (const auto p : order)
        if (chosen.size() < count && parts[p].room >= held && parts[p].ranks.size() == parts.front().ranks.size())
          chosen.push_back(p);
      if (chosen.size() < count) return {};
      for (const auto p : chosen) parts[p].room -= held, parts[p].load += work(task_.sequences[s]) / static_cast<double>(count);
      return chosen;
    }
    return {};
  }

  std::optional<std::vector<DraftGroup>> with_threshold(const std::vector<int>& chunk, std::int64_t s1) {
    std::vector<Part> nodes = nodes_;
    std::vector<std::int64_t> free;  // tokens of a whole node
    for (const Part& node : nodes) free.push_back(node.room * static_cast<std::int64_t>(node.ranks.size()));
    std::vector<std::vector<int>> whole(nodes.size());
    std::vector<DraftGroup> groups;
    for (const int s : chunk) {
      const std::int64_t tokens = task_.sequences[s].tokens;
      const bool spread = nodes.size() > 1 && tokens >= s1 && ceil_div(tokens, s1) > 1;
      if (spread) {
        const auto chosen = put(nodes, s, static_cast<std::size_t>(ceil_div(tokens, s1)));
        if (chosen.empty()) return std::nullopt;
        DraftGroup group{.kind = Kind::ring, .degree = 0, .sequences = {s}};
        for (const auto n : chosen) group.ranks.insert(group.ranks.end(), nodes[n].ranks.begin(), nodes[n].ranks.end());
        std::sort(group.ranks.begin(), group.ranks.end());
        group.degree = static_cast<int>(group.ranks.size());
        for (const auto n : chosen) free[n] -= share(s, group.degree) * static_cast<std::int64_t>(nodes[n].ranks.size());
        groups.push_back(std::move(group));
        continue;
      }
      std::size_t best = nodes.size();
      for (std::size_t n = 0; n < nodes.size(); ++n)
        if (free[n] >= tokens && (best == nodes.size() || nodes[n].load < nodes[best].load)) best = n;
      if (best == nodes.size()) return std::nullopt;
      free[best] -= tokens;
      nodes[best].load += work(task_.sequences[s]);
      whole[best].push_back(s);
    }
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      auto inside = split_node(nodes[n], whole[n]);
      if (!inside) return std::nullopt;
      groups.insert(groups.end(), std::make_move_iterator(inside->begin()), std::make_move_iterator(inside->end()));
    }
    // One zone after the other: rings of several nodes, of one, then whole sequences.
    std::stable_sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) { return a.degree > b.degree; });
    return groups;
  }

  std::optional<std::vector<DraftGroup>> split_node(const Part& node, const std::vector<int>& chunk) {
    for (const std::int64_t s2 : thresholds(task_, chunk, std::max<std::int64_t>(1, node.room), node.ranks.size())) {
      std::vector<Part> ranks;
      for (const auto rank : node.ranks) ranks.push_back({.room = node.room, .load = 0.0, .ranks = {rank}});
      std::vector<DraftGroup> groups, alone(ranks.size());
      bool fits = true;
      for (const int s : chunk) {
        const std::int64_t tokens = task_.sequences[s].tokens;
        const auto count = tokens >= s2 ? std::max<std::int64_t>(1, ceil_div(tokens, s2)) : 1;
        const auto chosen = put(ranks, s, static_cast<std::size_t>(count));
        fits = !chosen.empty();
        if (!fits) break;
        if (chosen.size() == 1) {
          alone[chosen.front()].sequences.push_back(s);
          alone[chosen.front()].ranks = ranks[chosen.front()].ranks;
          continue;
        }
        DraftGroup group{.kind = Kind::ring, .degree = static_cast<int>(chosen.size()), .sequences = {s}};
        for (const auto r : chosen) group.ranks.push_back(ranks[r].ranks.front());
        std::sort(group.ranks.begin(), group.ranks.end());
        groups.push_back(std::move(group));
      }
      if (!fits) continue;
      for (DraftGroup& group : alone)
        if (!group.sequences.empty()) groups.push_back(std::move(group));
      return groups;
    }
    return std::nullopt;
  }

  const Task& task_;
  std::vector<Part> nodes_;
};

// Rings of the same ranks as one group: they run as one batch of packed sequences.
std::vector<DraftGroup> join_equal(std::vector<DraftGroup> groups) {
  std::map<std::vector<std::int32_t>, std::size_t> known;
  std::vector<DraftGroup> joined;
  for (DraftGroup& group : groups) {
    const auto [place, fresh] = known.emplace(group.ranks, joined.size());
    if (fresh) {
      joined.push_back(std::move(group));
      continue;
    }
    auto& sequences = joined[place->second].sequences;
    sequences.insert(sequences.end(), group.sequences.begin(), group.sequences.end());
  }
  return joined;
}

// Longest first, each to the micro-batch with the fewest tokens.
std::vector<std::vector<int>> deal(const Task& task, int count) {
  std::vector<std::vector<int>> chunks(count);
  std::vector<std::int64_t> tokens(count, 0);
  for (const int s : by_falling_tokens(task.sequences)) {
    const auto least = std::min_element(tokens.begin(), tokens.end()) - tokens.begin();
    chunks[least].push_back(s);
    tokens[least] += task.sequences[s].tokens;
  }
  return chunks;
}

}  // namespace

Draft draft_zeppelin(const Task& task) {
  (void)require_mode(task, Kind::ring, task.modes.max_degree());
  const int asked = task.options.micro_batches;
  const int most = asked > 0 ? asked : least_micro_batches(task) + static_cast<int>(task.sequences.size());
  Partition partition(task);
  for (int count = asked > 0 ? asked : least_micro_batches(task); count <= most; count += std::max(1, count / 8)) {
    Draft draft;
    bool fits = true;
    for (const auto& chunk : deal(task, count)) {
      auto groups = partition.run(chunk);
      fits = groups.has_value();
      if (!fits) break;
      draft.micro_batches.push_back(join_equal(std::move(*groups)));
    }
    if (fits) return draft;
  }
  throw PlanInfeasible(concat("plan: strategy \"", task.options.strategy, "\" finds no room for ", task.sequences.size(),
                              " sequences, the longest of ", longest(task.sequences), " tokens, in ", most,
                              " micro-batches of ", task.cluster.ranks, " ranks with room for ", task.cluster.tokens_per_rank,
                              " tokens each"));
}

}  // namespace hetsp::planner
