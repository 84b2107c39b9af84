// Where the tokens of one sequence are cut over the ranks that share it: the one place that knows, for the planner's memory
// as for the layout.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/planner/plan.h"

namespace hetsp::planner {

struct TokenRange {
  std::int64_t begin, end;  // [begin, end), tokens inside the sequence
  friend bool operator==(const TokenRange&, const TokenRange&) = default;
};

// For each of `parts` ranks the non-empty, ascending, disjoint ranges that it holds; together they are [0, tokens). A part
// may be empty: a sequence need not divide by anything, and may have fewer tokens than parts.
//
//   whole       part 0 holds everything; parts must be 1
//   contiguous  cuts at floor(j s / G)
//   zigzag      cuts at floor(j s / 2G); part i holds chunks i and 2G-1-i, so that all parts have about equal causal area
//   balanced    contiguous, cuts at floor(s sqrt(j / G)): equal causal area, unequal tokens
//
// Each inner cut is rounded down to a multiple of `alignment` tokens. Throws InvalidArgument naming a value out of range.
[[nodiscard]] std::vector<std::vector<TokenRange>> cut_tokens(std::int64_t tokens, int parts, Cut cut,
                                                              std::int64_t alignment = 1);

// Tokens that part `position` of `degree` holds of a sequence under `cut` at alignment 1, without making the ranges.
[[nodiscard]] std::int64_t tokens_held(std::int64_t tokens, Cut cut, int degree, int position);

// The most that any part holds under the zigzag cut. With s = 2 G q + r that is 2 q, and 1 more where r divides 2 G (a rank
// holds one leftover), 2 more where it does not.
[[nodiscard]] std::int64_t most_tokens_held(std::int64_t tokens, int degree);

// Least degree whose zigzag parts all fit into `tokens_per_rank`; 0 if no degree up to max_degree does.
[[nodiscard]] int least_degree(std::int64_t tokens, std::int64_t tokens_per_rank, int max_degree);

}  // namespace hetsp::planner
