#include "hetsp/planner/workload.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hetsp/base/error.h"

namespace hetsp::planner {

namespace {

constexpr std::int64_t kMaxTokens = std::int64_t{1} << 40;

// n (n + 1) / 2, saturated.
std::int64_t triangle(std::int64_t n) {
  constexpr std::int64_t kLargest = 4294967295;  // the greatest n whose triangle fits
  return n > kLargest ? std::numeric_limits<std::int64_t>::max() : n % 2 ? (n + 1) / 2 * n : n / 2 * (n + 1);
}

}  // namespace

std::int64_t visible_pairs(std::int64_t tokens, std::int64_t window) {
  require(0 <= tokens && tokens <= kMaxTokens, "visible_pairs: ", tokens, " tokens, must be in 0..", kMaxTokens);
  require(window >= -1, "visible_pairs: window is ", window, " tokens, must be at least 0, or -1 for none");
  if (window < 0 || window >= tokens) return triangle(tokens);
  // The first `window` queries see a growing run, each of the others window + 1 keys.
  const __int128 pairs = static_cast<__int128>(triangle(window)) + static_cast<__int128>(tokens - window) * (window + 1);
  return pairs > std::numeric_limits<std::int64_t>::max() ? std::numeric_limits<std::int64_t>::max()
                                                          : static_cast<std::int64_t>(pairs);
}

std::vector<Sequence> make_workload(std::span<const std::int64_t> lengths, std::int64_t window) {
  require(!lengths.empty(), "workload: no lengths; a step needs at least one sequence");
  std::vector<Sequence> sequences;
  sequences.reserve(lengths.size());
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    require(0 <= lengths[i] && lengths[i] <= kMaxTokens, "workload: lengths[", i, "] is ", lengths[i], ", must be in 0..",
            kMaxTokens);
    sequences.push_back({.tokens = lengths[i], .visible_pairs = visible_pairs(lengths[i], window)});
  }
  return sequences;
}

std::int64_t total_tokens(std::span<const Sequence> sequences) {
  std::int64_t sum = 0;
  for (const auto& sequence : sequences) sum += sequence.tokens;
  return sum;
}

void check(std::span<const Sequence> sequences) {
  require(!sequences.empty(), "workload: no sequences; a step needs at least one");
  require(sequences.size() <= std::numeric_limits<std::int32_t>::max() / 2, "workload: ", sequences.size(),
          " sequences are too many");
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const Sequence& s = sequences[i];
    require(0 <= s.tokens && s.tokens <= kMaxTokens, "workload: sequence ", i, " has ", s.tokens, " tokens, must be in 0..",
            kMaxTokens);
    require(s.visible_pairs >= 0, "workload: sequence ", i, " has ", s.visible_pairs, " visible pairs, must be at least 0");
    require(std::isfinite(s.fixed_cost) && s.fixed_cost >= 0.0, "workload: sequence ", i, " has a fixed cost of ", s.fixed_cost,
            " seconds, must be finite and at least 0");
  }
}

}  // namespace hetsp::planner
