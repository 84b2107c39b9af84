// Moves tokens between the layout of attention, unequal, and that of the linear modules, equal, over two tiers of links.
//
// A transportation problem (Zeppelin, arXiv 2509.21841, section "remapping"): surplus ranks send M_ij tokens to ranks in
// deficit, each at c = intra within a node, inter >= intra across. Every surplus token moves once, and a node's net surplus
// must leave it, so a rank's seconds are  intra * surplus_i + (inter - intra) * e_i  with e_i of its tokens crossing, sum of
// e_i over the node at least the net surplus. Hence two levels suffice: match inside each node, let only net surplus cross.
// That is optimal for the sum of all seconds, whoever sends; and sharing the e_i so that the dearest sender (receiver) of a
// node is as cheap as possible, which is filling water into a vessel, makes the slowest rank optimal as well. Both at once, in
// integers, without a solver.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace hetsp::planner {

struct RemapLinks {
  std::int32_t ranks_per_node = 0;  // 0: all ranks in one node; the last node may be smaller
  double intra = 1.0, inter = 1.0;  // seconds per token
};

struct Transfer {
  std::int32_t from = 0, to = 0;  // ranks
  std::int64_t tokens = 0;        // > 0
};

struct Remap {
  std::vector<std::int64_t> targets;  // [ranks] tokens afterwards
  std::vector<Transfer> transfers;    // by node, then across; reversed they lead back
  std::int64_t moved = 0, crossing = 0;  // tokens; of them between nodes
  double sum_seconds = 0.0;              // over all transfers
  double worst_seconds = 0.0;            // of the slowest sender or receiver, its transfers one after another
};

// Equal tokens: floor or ceil of the mean, the larger where that saves most of sum_seconds.
std::vector<std::int64_t> balanced_targets(std::span<const std::int64_t> tokens, const RemapLinks& links);

// From tokens [ranks] to targets [ranks] of the same sum. O(ranks log ranks). Throws InvalidArgument naming what is negative,
// of another sum or not finite, or inter < intra.
Remap remap(std::span<const std::int64_t> tokens, std::span<const std::int64_t> targets, const RemapLinks& links);

}  // namespace hetsp::planner
