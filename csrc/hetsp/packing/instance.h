// Which groups of ranks run which items of one micro-batch: bin packing with two resources (time, tokens), a free bin size
// and a budget of ranks. Plain data; knows neither models nor machines.
#pragma once

#include <cstdint>
#include <vector>

namespace hetsp::packing {

struct Item {
  std::int64_t tokens = 0;
  double pairs = 0.0;  // visible (query, key) pairs
};

// A kind of group. An item takes each of its ranks
//
//   t = per_pair * pairs + per_token * tokens + per_item     seconds,
//
// which is the form of every cost model here: sharing over `ranks` and communication are already inside the coefficients.
struct Mode {
  std::int32_t ranks = 1;
  std::int64_t room = 0;  // tokens that the whole group holds
  double per_pair = 0.0, per_token = 0.0, per_item = 0.0;
  [[nodiscard]] double seconds(const Item& item) const {
    return per_pair * item.pairs + per_token * static_cast<double>(item.tokens) + per_item;
  }
};

// One micro-batch. A packing chooses groups of any modes, sum of their ranks at most `ranks`, and puts every item into exactly
// one group such that no group holds more tokens than its room. Its makespan is the longest group's sum of item seconds.
struct Instance {
  std::int32_t ranks = 1;           // N
  std::int32_t ranks_per_node =
      0;  // a group of r ranks takes floor(r / n) whole nodes and r mod n ranks of one more; 0: no nodes
  std::vector<Mode> modes;          // by rising ranks; several may have the same
  std::vector<Item> items;          // in the caller's order
};

// Throws InvalidArgument naming the field that is out of range or not finite, or the modes that are out of order.
void check(const Instance& instance);

// The same with rooms that groups can fill: rounded down to a multiple of what divides the tokens of all items, which lengths
// padded to a quantum share. The packings are the same, and bounds are higher.
[[nodiscard]] Instance with_whole_rooms(Instance instance);

}  // namespace hetsp::packing
