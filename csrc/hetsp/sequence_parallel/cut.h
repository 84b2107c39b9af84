// Where the tokens of one sequence are cut over the ranks that share it.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/planner/plan.h"

namespace hetsp::sequence_parallel {

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
[[nodiscard]] std::vector<std::vector<TokenRange>> cut_tokens(std::int64_t tokens, int parts, planner::Cut cut,
                                                              std::int64_t alignment = 1);

}  // namespace hetsp::sequence_parallel
