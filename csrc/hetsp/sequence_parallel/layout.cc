#include "hetsp/sequence_parallel/layout.h"

#include <algorithm>

#include "hetsp/base/error.h"
#include "hetsp/planner/cut.h"

namespace hetsp::sequence_parallel {

namespace {

void append(Ring& ring, SequenceIndex sequence, const std::vector<std::vector<planner::TokenRange>>& held) {
  for (int part = 0; part < ring.size(); ++part)
    for (const auto& range : held[part]) ring.parts[part].push_back({sequence, range.begin, range.end});
}

}  // namespace

std::int64_t Ring::tokens(int part) const {
  std::int64_t sum = 0;
  for (const auto& piece : parts[part]) sum += piece.tokens();
  return sum;
}

std::vector<int> Layout::rings_of(Rank rank) const {
  std::vector<int> found;
  for (int ring = 0; ring < static_cast<int>(rings.size()); ++ring)
    if (part_of(ring, rank) >= 0) found.push_back(ring);
  return found;
}

int Layout::part_of(int ring, Rank rank) const {
  const auto& members = rings[ring].ranks;
  const auto at = std::find(members.begin(), members.end(), rank);
  return at == members.end() ? -1 : static_cast<int>(at - members.begin());
}

std::vector<Piece> Layout::pieces_of(Rank rank) const {
  std::vector<Piece> pieces;
  for (int ring : rings_of(rank)) {
    const auto& part = rings[ring].parts[part_of(ring, rank)];
    pieces.insert(pieces.end(), part.begin(), part.end());
  }
  return pieces;
}

std::int64_t Layout::tokens_of(Rank rank) const {
  std::int64_t sum = 0;
  for (int ring : rings_of(rank)) sum += rings[ring].tokens(part_of(ring, rank));
  return sum;
}

std::int64_t Layout::row_begin(int ring, Rank rank) const {
  std::int64_t row = 0;
  for (int earlier : rings_of(rank)) {
    if (earlier == ring) return row;
    row += rings[earlier].tokens(part_of(earlier, rank));
  }
  throw BrokenInvariant(concat("rank ", rank.value(), " is not in ring ", ring));
}

Layout make_layout(const planner::Plan& plan, int micro_batch, std::int64_t alignment) {
  require(0 <= micro_batch && micro_batch < static_cast<int>(plan.micro_batches.size()), "layout: micro-batch ", micro_batch,
          " of a plan of ", plan.micro_batches.size());
  Layout layout{plan.ranks, {}};
  std::vector<Ring> local(plan.ranks);
  for (const auto& group : plan.micro_batches[micro_batch].groups) {
    const bool alone = group.ranks.size() == 1;
    if (!alone) layout.rings.push_back({group.ranks, std::vector<std::vector<Piece>>(group.ranks.size())});
    Ring& ring = alone ? local[group.ranks[0].value()] : layout.rings.back();
    if (alone && ring.ranks.empty()) ring = {group.ranks, std::vector<std::vector<Piece>>(1)};
    for (const auto sequence : group.sequences)
      append(ring, sequence, planner::cut_tokens(plan.sequences[sequence.value()].tokens, ring.size(), group.cut, alignment));
  }
  for (auto& ring : local)
    if (!ring.ranks.empty()) layout.rings.push_back(std::move(ring));
  return layout;
}

}  // namespace hetsp::sequence_parallel
