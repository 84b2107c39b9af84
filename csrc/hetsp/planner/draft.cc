#include "hetsp/planner/draft.h"

#include <algorithm>
#include <numeric>

#include "hetsp/base/error.h"

namespace hetsp::planner {

namespace {

// Ranks not yet taken, node by node; the last node may be smaller.
class Nodes {
 public:
  explicit Nodes(const Cluster& cluster) : size_(cluster.ranks_per_node == 0 ? cluster.ranks : cluster.ranks_per_node) {
    for (std::int32_t first = 0; first < cluster.ranks; first += size_)
      nodes_.push_back({first, std::min(first + size_, cluster.ranks)});
  }
  [[nodiscard]] int size() const { return size_; }

  // Whole nodes; false if there are not so many.
  bool take_whole(int count, std::vector<std::int32_t>& ranks) {
    const auto free = std::count_if(nodes_.begin(), nodes_.end(), [&](const Node& n) { return n.end - n.next == size_; });
    if (free < count) return false;
    for (Node& node : nodes_)
      if (count > 0 && node.end - node.next == size_) take(node, size_, ranks), --count;
    return true;
  }
  // So many ranks of one node, the fullest that has them.
  bool take_part(int count, std::vector<std::int32_t>& ranks) {
    Node* best = nullptr;
    for (Node& node : nodes_)
      if (node.end - node.next >= count && (best == nullptr || node.end - node.next < best->end - best->next)) best = &node;
    if (best == nullptr) return false;
    take(*best, count, ranks);
    return true;
  }
  void take_any(int count, std::vector<std::int32_t>& ranks) {
    for (Node& node : nodes_) {
      const int here = std::min(count, node.end - node.next);
      take(node, here, ranks);
      count -= here;
    }
    invariant(count == 0, "groups need ", count, " more ranks than there are");
  }

 private:
  struct Node {
    std::int32_t next, end;
  };
  static void take(Node& node, int count, std::vector<std::int32_t>& ranks) {
    for (int i = 0; i < count; ++i) ranks.push_back(node.next++);
  }
  int size_;
  std::vector<Node> nodes_;
};

void drop_empty(Draft& draft) {
  for (auto& groups : draft.micro_batches)
    std::erase_if(groups, [](const DraftGroup& group) { return group.sequences.empty(); });
  std::erase_if(draft.micro_batches, [](const auto& groups) { return groups.empty(); });
}

}  // namespace

std::vector<std::vector<std::int32_t>> place(const std::vector<int>& degrees, const Cluster& cluster) {
  Nodes nodes(cluster);
  std::vector<std::vector<std::int32_t>> ranks(degrees.size());
  std::vector<int> order(degrees.size()), left;
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return degrees[a] > degrees[b]; });
  std::vector<int> parts;
  for (const int g : order) {
    if (!nodes.take_whole(degrees[g] / nodes.size(), ranks[g])) {
      left.push_back(g);
      continue;
    }
    if (degrees[g] % nodes.size() != 0) parts.push_back(g);
  }
  std::stable_sort(parts.begin(), parts.end(),
                   [&](int a, int b) { return degrees[a] % nodes.size() > degrees[b] % nodes.size(); });
  for (const int g : parts)
    if (!nodes.take_part(degrees[g] % nodes.size(), ranks[g])) left.push_back(g);
  for (const int g : left) nodes.take_any(degrees[g] - static_cast<int>(ranks[g].size()), ranks[g]);
  for (auto& members : ranks) std::sort(members.begin(), members.end());
  return ranks;
}

Draft serialise(Draft draft, std::int32_t ranks) {
  drop_empty(draft);
  Draft result;
  for (auto& groups : draft.micro_batches) {
    std::vector<std::vector<DraftGroup>> phases;
    std::vector<std::size_t> next(ranks, 0);  // [ranks] first phase in which the rank is free
    for (DraftGroup& group : groups) {
      std::size_t phase = 0;
      for (const auto rank : group.ranks) phase = std::max(phase, next[rank]);
      for (const auto rank : group.ranks) next[rank] = phase + 1;
      if (phase >= phases.size()) phases.resize(phase + 1);
      phases[phase].push_back(std::move(group));
    }
    for (auto& phase : phases) result.micro_batches.push_back(std::move(phase));
  }
  return result;
}

Plan make_plan(std::span<const Sequence> sequences, Draft draft, const Cluster& cluster, Synchronisation synchronisation) {
  drop_empty(draft);
  Plan plan;
  plan.ranks = cluster.ranks;
  plan.sequences.assign(sequences.begin(), sequences.end());
  plan.synchronisation = synchronisation;
  for (auto& groups : draft.micro_batches) {
    std::stable_sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) { return a.degree > b.degree; });
    std::vector<int> degrees;
    for (const auto& group : groups)
      if (group.ranks.empty()) degrees.push_back(group.degree);
    invariant(degrees.empty() || degrees.size() == groups.size(), "some groups of a micro-batch have ranks, others have none");
    const auto placed = place(degrees, cluster);
    MicroBatch& micro_batch = plan.micro_batches.emplace_back();
    for (std::size_t g = 0; g < groups.size(); ++g) {
      Group& group = micro_batch.groups.emplace_back();
      std::sort(groups[g].sequences.begin(), groups[g].sequences.end());
      for (const int s : groups[g].sequences) group.sequences.emplace_back(s);
      for (const auto rank : degrees.empty() ? groups[g].ranks : placed[g]) group.ranks.emplace_back(rank);
      group.strategy = strategy_of(groups[g].kind, groups[g].degree);
      group.cut = cut_of(groups[g].kind, groups[g].degree);
      group.offload_ratio = groups[g].offload_ratio;
      if (group.offload_ratio > 0.0) group.activations = Activations::offload;
    }
  }
  fill_placeholders(plan);
  return plan;
}

}  // namespace hetsp::planner
