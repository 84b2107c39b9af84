// The sequences of a step, from their lengths.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hetsp/planner/plan.h"

namespace hetsp::planner {

// (query, key) pairs that a causal mask over `tokens` tokens lets through, each query seeing its own key and at most
// `window` keys before it; -1: all of them. Saturates at the largest int64.
[[nodiscard]] std::int64_t visible_pairs(std::int64_t tokens, std::int64_t window = -1);

// One Sequence per length. Throws InvalidArgument for an empty list, a length outside 0..2^40 or a window below -1.
[[nodiscard]] std::vector<Sequence> make_workload(std::span<const std::int64_t> lengths, std::int64_t window = -1);

[[nodiscard]] std::int64_t total_tokens(std::span<const Sequence> sequences);

// Throws InvalidArgument naming the first sequence with a negative or oversized field, or an empty list.
void check(std::span<const Sequence> sequences);

}  // namespace hetsp::planner
