#include "hetsp/packing/packing.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "hetsp/base/error.h"

namespace hetsp::packing {

double makespan(const Instance& instance, const std::vector<Bin>& bins) {
  double longest = 0.0;
  for (const Bin& bin : bins) {
    double sum = 0.0;
    for (const auto i : bin.items) sum += instance.modes[bin.mode].seconds(instance.items[i]);
    longest = std::max(longest, sum);
  }
  return longest;
}

bool places(const Instance& instance, const std::vector<std::int32_t>& ranks_of_groups) {
  std::int64_t sum = 0;
  for (const auto ranks : ranks_of_groups) sum += ranks;
  if (sum > instance.ranks) return false;
  const int node = instance.ranks_per_node;
  if (node <= 1 || node >= instance.ranks) return true;
  std::int64_t whole = 0;
  std::vector<std::int32_t> parts;
  for (const auto ranks : ranks_of_groups) {
    whole += ranks / node;
    if (ranks % node != 0) parts.push_back(ranks % node);
  }
  // Nodes by free ranks; the last node may be smaller than the others. Whole nodes first, then first fit decreasing.
  std::vector<std::int64_t> nodes_with(node + 1, 0);
  nodes_with[node] = instance.ranks / node - whole;
  if (nodes_with[node] < 0) return false;
  nodes_with[instance.ranks % node] += instance.ranks % node != 0;
  std::sort(parts.begin(), parts.end(), std::greater<>());
  for (const int part : parts) {
    int free = part;  // the fullest node that still holds it
    while (free <= node && nodes_with[free] == 0) ++free;
    if (free > node) return false;
    --nodes_with[free];
    ++nodes_with[free - part];
  }
  return true;
}

void check(const Instance& instance, const Packing& packing) {
  std::vector<std::int8_t> seen(instance.items.size(), 0);
  std::vector<std::int32_t> ranks_of_groups;
  for (std::size_t b = 0; b < packing.bins.size(); ++b) {
    const Bin& bin = packing.bins[b];
    require(0 <= bin.mode && bin.mode < static_cast<std::int64_t>(instance.modes.size()), "packing: bin ", b, " has mode ",
            bin.mode, ", there are ", instance.modes.size());
    require(!bin.items.empty(), "packing: bin ", b, " is empty");
    std::int64_t tokens = 0;
    for (const auto i : bin.items) {
      require(0 <= i && i < static_cast<std::int64_t>(instance.items.size()), "packing: bin ", b, " holds item ", i,
              ", there are ", instance.items.size());
      require(!seen[i], "packing: item ", i, " is in two bins or twice in bin ", b);
      seen[i] = 1;
      tokens += instance.items[i].tokens;
    }
    const Mode& mode = instance.modes[bin.mode];
    require(tokens <= mode.room, "packing: bin ", b, " holds ", tokens, " tokens, its ", mode.ranks, " ranks have room for ",
            mode.room);
    ranks_of_groups.push_back(mode.ranks);
  }
  for (std::size_t i = 0; i < seen.size(); ++i) require(seen[i], "packing: item ", i, " is in no bin");
  require(places(instance, ranks_of_groups), "packing: its groups do not fit on ", instance.ranks, " ranks in nodes of ",
          instance.ranks_per_node);
  const double longest = makespan(instance, packing.bins);
  require(std::abs(packing.makespan - longest) <= 1e-9 * longest, "packing: makespan is ", packing.makespan,
          " s, its bins take ", longest, " s");
}

}  // namespace hetsp::packing
