#include "hetsp/sequence_parallel/cut.h"

#include <cmath>

#include "hetsp/base/error.h"

namespace hetsp::sequence_parallel {

namespace {

using planner::Cut;

// chunks + 1 ascending cuts of [0, tokens].
std::vector<std::int64_t> cuts(std::int64_t tokens, int chunks, Cut cut, std::int64_t alignment) {
  std::vector<std::int64_t> at(chunks + 1);
  for (int j = 1; j < chunks; ++j) {
    const std::int64_t exact =
        cut == Cut::balanced
            ? static_cast<std::int64_t>(static_cast<double>(tokens) * std::sqrt(static_cast<double>(j) / chunks))
            : tokens / chunks * j + tokens % chunks * j / chunks;  // floor(j tokens / chunks), no overflow
    at[j] = exact / alignment * alignment;
  }
  at[chunks] = tokens;
  return at;
}

void append(std::vector<TokenRange>& ranges, TokenRange next) {
  if (next.begin == next.end) return;
  if (!ranges.empty() && ranges.back().end == next.begin)
    ranges.back().end = next.end;
  else
    ranges.push_back(next);
}

}  // namespace

std::vector<std::vector<TokenRange>> cut_tokens(std::int64_t tokens, int parts, Cut cut, std::int64_t alignment) {
  require(tokens >= 0, "cut: a sequence of ", tokens, " tokens; must be at least 0");
  require(parts >= 1, "cut: ", parts, " parts; must be at least 1");
  require(alignment >= 1, "cut: alignment is ", alignment, " tokens; must be at least 1");
  require(cut != Cut::whole || parts == 1, "cut: a whole sequence lies on 1 rank, not on ", parts);
  const bool zigzag = cut == Cut::zigzag;
  const auto at = cuts(tokens, zigzag ? 2 * parts : parts, cut, alignment);
  std::vector<std::vector<TokenRange>> held(parts);
  for (int part = 0; part < parts; ++part) {
    append(held[part], {at[part], at[part + 1]});
    if (zigzag) append(held[part], {at[2 * parts - 1 - part], at[2 * parts - part]});
  }
  return held;
}

}  // namespace hetsp::sequence_parallel
