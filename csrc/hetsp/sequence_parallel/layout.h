// Which rank holds which tokens of a micro-batch, in which order: data, not a formula. Scatter, position ids, labels, the
// schedule and its proof all read the layout; nothing recomputes it.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/base/strong_index.h"
#include "hetsp/planner/plan.h"

namespace hetsp::sequence_parallel {

// Tokens [begin, end) of one sequence, not empty.
struct Piece {
  SequenceIndex sequence;
  std::int64_t begin, end;
  [[nodiscard]] std::int64_t tokens() const { return end - begin; }
  friend bool operator==(const Piece&, const Piece&) = default;
};

// Ranks that share the attention of some sequences: parts[i] is held by ranks[i], and keys travel from ranks[i] to
// ranks[i + 1]. A ring of one rank is local work. A part may be empty.
struct Ring {
  std::vector<Rank> ranks;
  std::vector<std::vector<Piece>> parts;
  [[nodiscard]] int size() const { return static_cast<int>(ranks.size()); }
  [[nodiscard]] std::int64_t tokens(int part) const;
};

// One micro-batch. Rank r's rows are the pieces of its rings, rings in list order: so the rows of a ring are one run, and a
// message is a slice. Rings of several ranks come first, in plan order; then one ring per rank with its whole sequences.
struct Layout {
  std::int32_t ranks = 0;
  std::vector<Ring> rings;

  [[nodiscard]] std::vector<int> rings_of(Rank rank) const;        // ascending
  [[nodiscard]] int part_of(int ring, Rank rank) const;            // index of `rank` in the ring, -1 if absent
  [[nodiscard]] std::vector<Piece> pieces_of(Rank rank) const;     // in row order
  [[nodiscard]] std::int64_t tokens_of(Rank rank) const;
  [[nodiscard]] std::int64_t row_begin(int ring, Rank rank) const; // first row of the ring on that rank
};

// The layout of plan.micro_batches[micro_batch]; inner cuts are multiples of `alignment` tokens. The plan must have passed
// its check. Throws InvalidArgument for a micro-batch that is not there.
[[nodiscard]] Layout make_layout(const planner::Plan& plan, int micro_batch, std::int64_t alignment = 1);

}  // namespace hetsp::sequence_parallel
