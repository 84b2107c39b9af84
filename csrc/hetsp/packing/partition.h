// Items parted into groups over one or several micro-batches, each with a target T of its own: the state that the local
// search changes. A group always has the least size that its items fit by T, so the ranks of a micro-batch may add up to more
// than there are: such a partition is not a packing yet.
//
// Items move in O(1) without allocation: the items of a group are a list that runs through arrays.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/packing/need.h"
#include "hetsp/packing/packing.h"

namespace hetsp::packing {

struct Group {
  Sums sums;
  double cost = 0.0;              // Need::cost
  std::int32_t size = -1;         // of Need; -1: empty
  std::int32_t micro_batch = 0;
  std::int32_t first = -1;        // item
};

class Partition {
 public:
  // No item is in a group yet. `instance` must outlive this.
  Partition(const Instance& instance, int micro_batches);

  [[nodiscard]] const Instance& instance() const { return *instance_; }
  [[nodiscard]] int micro_batches() const { return static_cast<int>(needs_.size()); }
  [[nodiscard]] const Need& need(int micro_batch) const { return needs_[micro_batch]; }
  // Gives every group of the micro-batch its size anew. Groups that fit none are emptied: their items are appended to
  // `homeless`.
  void set_target(int micro_batch, double seconds, std::vector<std::int32_t>& homeless);
  // Empties all groups, sets each target to the makespan, then takes these: items of one bin share a group.
  void load(const std::vector<Packing>& micro_batches);

  // Groups that hold something, in no order.
  [[nodiscard]] const std::vector<std::int32_t>& open() const { return open_; }
  [[nodiscard]] const Group& group(std::int32_t g) const { return groups_[g]; }
  [[nodiscard]] std::int32_t group_of(std::int32_t item) const { return group_of_[item]; }
  [[nodiscard]] std::int32_t next(std::int32_t item) const { return next_[item]; }
  // An empty group, now of this micro-batch; it becomes open when an item enters.
  std::int32_t empty_group(int micro_batch);

  // A group with one item more. size == sizes(): fits none.
  struct Entry {
    std::int32_t size;
    double cost;
  };
  [[nodiscard]] Entry entry(const Item& item, const Group& group) const {
    const Need& need = needs_[group.micro_batch];
    Sums sums = group.sums;
    sums.add(item);
    std::int32_t size = std::max(group.size, 0);
    if (need.load(size, sums) > 1.0) size = need.least(sums, size + 1);
    return {size, size < need.sizes() ? need.cost(size, sums) : 0.0};
  }
  void insert(std::int32_t item, std::int32_t g, const Entry& entry);
  // Leaves `g` with the least size for what remains.
  void remove(std::int32_t item);
  // Sets sums, cost and size of a group to those it had when it held the same items, free of rounding.
  void restore(std::int32_t g, const Group& before);

  [[nodiscard]] std::int64_t ranks(int micro_batch) const { return ranks_[micro_batch]; }
  [[nodiscard]] double cost() const { return cost_; }  // of all groups
  // Ranks that are missing in a micro-batch, so that its groups can stand on the nodes; 0: it can run.
  [[nodiscard]] std::int64_t missing(int micro_batch) const;

  // The packings, with their makespans; only where nothing is missing.
  [[nodiscard]] std::vector<Packing> packings() const;

 private:
  void take_out(std::int32_t item);  // its group keeps its size
  void close(std::int32_t g);
  void resize(Group& group, std::int32_t size, double cost);

  const Instance* instance_;
  bool on_nodes_;
  std::vector<Need> needs_;                            // [micro-batch]
  std::vector<std::int64_t> ranks_;                    // [micro-batch]
  double cost_ = 0.0;
  std::vector<Group> groups_;
  std::vector<std::int32_t> open_, place_in_open_, empty_;
  std::vector<std::int32_t> group_of_, next_, before_;  // [item]; -1: none
  std::vector<std::vector<std::int32_t>> parts_;       // [micro-batch][ranks of a group % node]: groups
  std::vector<std::int64_t> whole_nodes_;              // [micro-batch]
  mutable std::vector<std::int64_t> nodes_with_;       // [free ranks]: of missing(), kept for its memory
};

}  // namespace hetsp::packing
