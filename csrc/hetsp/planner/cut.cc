#include "hetsp/planner/cut.h"

#include <algorithm>
#include <cmath>

#include "hetsp/base/ceil_div.h"
#include "hetsp/base/error.h"

namespace hetsp::planner {

namespace {

// floor(j tokens / chunks) without overflow, for 0 <= j <= chunks.
std::int64_t even_cut(std::int64_t tokens, std::int64_t chunks, std::int64_t j) {
  return tokens / chunks * j + tokens % chunks * j / chunks;
}

std::int64_t balanced_cut(std::int64_t tokens, int degree, int j) {
  return j == degree ? tokens
                     : static_cast<std::int64_t>(static_cast<double>(tokens) * std::sqrt(static_cast<double>(j) / degree));
}

// chunks + 1 ascending cuts of [0, tokens].
std::vector<std::int64_t> cuts(std::int64_t tokens, int chunks, Cut cut, std::int64_t alignment) {
  std::vector<std::int64_t> at(chunks + 1);
  for (int j = 1; j < chunks; ++j)
    at[j] = (cut == Cut::balanced ? balanced_cut(tokens, chunks, j) : even_cut(tokens, chunks, j)) / alignment * alignment;
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

std::int64_t tokens_held(std::int64_t tokens, Cut cut, int degree, int position) {
  require(degree >= 1 && 0 <= position && position < degree, "tokens_held: part ", position, " of ", degree);
  switch (cut) {
    case Cut::whole:
      require(degree == 1, "tokens_held: a whole cut of ", degree, " parts");
      return tokens;
    case Cut::contiguous:
      return even_cut(tokens, degree, position + 1) - even_cut(tokens, degree, position);
    case Cut::zigzag: {
      const std::int64_t chunks = 2 * std::int64_t{degree};
      return even_cut(tokens, chunks, position + 1) - even_cut(tokens, chunks, position) +
             even_cut(tokens, chunks, chunks - position) - even_cut(tokens, chunks, chunks - position - 1);
    }
    case Cut::balanced:
      return balanced_cut(tokens, degree, position + 1) - balanced_cut(tokens, degree, position);
  }
  throw BrokenInvariant(concat("cut ", static_cast<int>(cut), " is unknown"));
}

std::int64_t most_tokens_held(std::int64_t tokens, int degree) {
  const std::int64_t chunks = 2 * std::int64_t{degree}, rest = tokens % chunks;
  return 2 * (tokens / chunks) + (rest == 0 ? 0 : chunks % rest == 0 ? 1 : 2);
}

int least_degree(std::int64_t tokens, std::int64_t tokens_per_rank, int max_degree) {
  // The mean share must fit; at most two tokens above it, so the walk is short.
  const std::int64_t first = std::max<std::int64_t>(1, ceil_div(tokens, tokens_per_rank));
  for (std::int64_t degree = first; degree <= max_degree; ++degree)
    if (most_tokens_held(tokens, static_cast<int>(degree)) <= tokens_per_rank) return static_cast<int>(degree);
  return 0;
}

}  // namespace hetsp::planner
