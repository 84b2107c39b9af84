// A plan in the making: groups by kind and degree, not yet on ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hetsp/planner/cluster.h"
#include "hetsp/planner/kind.h"
#include "hetsp/planner/plan.h"

namespace hetsp::planner {

struct DraftGroup {
  Kind kind = Kind::whole;
  int degree = 1;
  std::vector<int> sequences{};
  std::vector<std::int32_t> ranks{};  // empty: place() chooses them
  double offload_ratio = 0.0;
};

struct Draft {
  std::vector<std::vector<DraftGroup>> micro_batches{};
};

// Ranks for groups of these degrees, which together have at most cluster.ranks: a group of r ranks takes floor(r / n) whole
// nodes of n ranks and r mod n ranks of one more, larger remainders first, each into the fullest node that still holds it.
// Where that fails, the groups left over take what is free in order and straddle nodes. [groups][degree], ascending.
[[nodiscard]] std::vector<std::vector<std::int32_t>> place(const std::vector<int>& degrees, const Cluster& cluster);

// A draft in which a rank serves at most one group of a micro-batch: groups that share ranks with an earlier one of their
// micro-batch move to a new one after it, in order. What a system runs in several phases thereby becomes several micro-batches.
[[nodiscard]] Draft serialise(Draft draft, std::int32_t ranks);

// The plan with those groups on ranks, larger groups first; empty groups and micro-batches are dropped. Times are left at 0.
[[nodiscard]] Plan make_plan(std::span<const Sequence> sequences, Draft draft, const Cluster& cluster,
                             Synchronisation synchronisation);

}  // namespace hetsp::planner
