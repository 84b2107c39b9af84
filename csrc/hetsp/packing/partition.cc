#include "hetsp/packing/partition.h"

#include <algorithm>

#include "hetsp/base/error.h"

namespace hetsp::packing {

namespace {
constexpr double kLeastTarget = 1e-300;  // seconds: where all items cost nothing, a target that can be divided by
}

Partition::Partition(const Instance& instance, int micro_batches)
    : instance_(&instance),
      on_nodes_(1 < instance.ranks_per_node && instance.ranks_per_node < instance.ranks),
      needs_(micro_batches, Need(instance)),
      ranks_(micro_batches, 0),
      groups_(instance.items.size() + micro_batches),
      place_in_open_(groups_.size(), -1),
      group_of_(instance.items.size(), -1),
      next_(instance.items.size(), -1),
      before_(instance.items.size(), -1),
      parts_(micro_batches, std::vector<std::int32_t>(on_nodes_ ? instance.ranks_per_node : 0, 0)),
      whole_nodes_(micro_batches, 0) {
  open_.reserve(groups_.size());
  empty_.reserve(groups_.size());
  for (std::int32_t g = static_cast<std::int32_t>(groups_.size()) - 1; g >= 0; --g) empty_.push_back(g);
}

void Partition::resize(Group& group, std::int32_t size, double cost) {
  const Need& need = needs_[group.micro_batch];
  cost_ += cost - group.cost;
  group.cost = cost;
  if (size == group.size) return;
  const std::int32_t before = group.size < 0 ? 0 : need.ranks(group.size), now = size < 0 ? 0 : need.ranks(size);
  ranks_[group.micro_batch] += now - before;
  if (on_nodes_) {
    const std::int32_t node = instance_->ranks_per_node;
    if (before > 0) whole_nodes_[group.micro_batch] -= before / node, --parts_[group.micro_batch][before % node];
    if (now > 0) whole_nodes_[group.micro_batch] += now / node, ++parts_[group.micro_batch][now % node];
  }
  group.size = size;
}

void Partition::set_target(int micro_batch, double seconds, std::vector<std::int32_t>& homeless) {
  Need& need = needs_[micro_batch];
  need.set_target(seconds);
  const std::size_t begin = homeless.size();
  for (const auto g : open_) {
    Group& group = groups_[g];
    if (group.micro_batch != micro_batch) continue;
    const auto size = need.least(group.sums);
    if (size < need.sizes()) {
      resize(group, size, need.cost(size, group.sums));
    } else {
      for (auto i = group.first; i >= 0; i = next_[i]) homeless.push_back(i);
    }
  }
  for (std::size_t j = begin; j < homeless.size(); ++j) take_out(homeless[j]);
}

void Partition::load(const std::vector<Packing>& micro_batches) {
  while (!open_.empty()) {
    const auto g = open_.back();
    for (auto i = groups_[g].first; i >= 0; i = next_[i]) group_of_[i] = -1;
    close(g);
  }
  cost_ = 0.0;
  for (std::size_t k = 0; k < micro_batches.size(); ++k) {
    Need& need = needs_[k];
    need.set_target(std::max(micro_batches[k].makespan * (1.0 + 1e-12), kLeastTarget));
    for (const Bin& bin : micro_batches[k].bins) {
      Group whole;
      for (const auto i : bin.items) whole.sums.add(instance_->items[i]);
      const auto size = need.least(whole.sums);
      invariant(size < need.sizes(), "partition: a bin of ", bin.items.size(), " items fits no mode by its own makespan");
      const auto g = empty_group(static_cast<int>(k));
      for (const auto i : bin.items) insert(i, g, {size, need.cost(size, whole.sums)});
    }
  }
}

std::int32_t Partition::empty_group(int micro_batch) {
  invariant(!empty_.empty(), "partition: no empty group is left");
  groups_[empty_.back()].micro_batch = micro_batch;
  return empty_.back();
}

void Partition::insert(std::int32_t item, std::int32_t g, const Entry& entry) {
  Group& group = groups_[g];
  if (group.first < 0) {
    invariant(empty_.back() == g, "partition: an empty group is entered out of turn");
    empty_.pop_back();
    place_in_open_[g] = static_cast<std::int32_t>(open_.size());
    open_.push_back(g);
  }
  group.sums.add(instance_->items[item]);
  group_of_[item] = g;
  before_[item] = -1;
  next_[item] = group.first;
  if (group.first >= 0) before_[group.first] = item;
  group.first = item;
  resize(group, entry.size, entry.cost);
}

void Partition::take_out(std::int32_t item) {
  const auto g = group_of_[item];
  Group& group = groups_[g];
  group_of_[item] = -1;
  (before_[item] < 0 ? group.first : next_[before_[item]]) = next_[item];
  if (next_[item] >= 0) before_[next_[item]] = before_[item];
  if (group.first < 0)
    close(g);
  else
    group.sums.remove(instance_->items[item]);
}

void Partition::close(std::int32_t g) {
  Group& group = groups_[g];
  resize(group, -1, 0.0);
  group.sums = Sums();
  group.first = -1;
  const auto last = open_.back();
  open_[place_in_open_[g]] = last;
  place_in_open_[last] = place_in_open_[g];
  open_.pop_back();
  empty_.push_back(g);
}

void Partition::remove(std::int32_t item) {
  const auto g = group_of_[item];
  Group& group = groups_[g];
  take_out(item);
  if (group.first < 0) return;
  const Need& need = needs_[group.micro_batch];
  auto size = group.size;
  if (size > 0 && need.load(size - 1, group.sums) <= 1.0) size = std::min(size - 1, need.least(group.sums));
  resize(group, size, need.cost(size, group.sums));
}

void Partition::restore(std::int32_t g, const Group& before) {
  groups_[g].sums = before.sums;
  resize(groups_[g], before.size, before.cost);
}

std::int64_t Partition::missing(int micro_batch) const {
  const std::int64_t over = std::max<std::int64_t>(0, ranks_[micro_batch] - instance_->ranks);
  if (!on_nodes_) return over;
  // First fit decreasing, as places() has it, on counts of nodes by their free ranks.
  const std::int32_t node = instance_->ranks_per_node;
  std::int64_t unplaced = 0;
  std::vector<std::int64_t>& nodes_with = nodes_with_;
  nodes_with.assign(node + 1, 0);
  nodes_with[node] = instance_->ranks / node - whole_nodes_[micro_batch];
  if (nodes_with[node] < 0) unplaced += -nodes_with[node] * node, nodes_with[node] = 0;
  nodes_with[instance_->ranks % node] += instance_->ranks % node != 0;
  for (std::int32_t part = node - 1; part >= 1; --part)
    for (std::int32_t left = parts_[micro_batch][part], free = part; left > 0;) {
      while (free <= node && nodes_with[free] == 0) ++free;
      if (free > node) {
        unplaced += static_cast<std::int64_t>(left) * part;
        break;
      }
      // A node that has just taken one has free - part left, which may be enough for more of them.
      --nodes_with[free], ++nodes_with[free - part], --left;
      free = std::max(part, free - part);
    }
  return std::max(over, unplaced);
}

std::vector<Packing> Partition::packings() const {
  std::vector<Packing> made(micro_batches());
  std::vector<std::int32_t> groups = open_;
  std::sort(groups.begin(), groups.end());
  for (const auto g : groups) {
    const Group& group = groups_[g];
    Bin bin;
    for (auto i = group.first; i >= 0; i = next_[i]) bin.items.push_back(i);
    std::sort(bin.items.begin(), bin.items.end());
    bin.mode = needs_[group.micro_batch].mode(group.size, group.sums);
    made[group.micro_batch].bins.push_back(std::move(bin));
  }
  for (Packing& packing : made) packing.makespan = makespan(*instance_, packing.bins);
  return made;
}

}  // namespace hetsp::packing
