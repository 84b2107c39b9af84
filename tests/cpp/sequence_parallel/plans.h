// Plans for the tests of this room, made by hand and at random.
#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "hetsp/planner/plan.h"

namespace plans {

using namespace hetsp;
using namespace hetsp::planner;

inline std::vector<Rank> first_ranks(int count) {
  std::vector<Rank> ranks;
  for (int rank = 0; rank < count; ++rank) ranks.emplace_back(rank);
  return ranks;
}

inline Group group(const std::vector<int>& sequences, std::vector<Rank> ranks, Cut cut = Cut::zigzag) {
  Group made;
  for (int sequence : sequences) made.sequences.emplace_back(sequence);
  made.strategy.ring_degree = static_cast<int>(ranks.size());
  made.cut = ranks.size() == 1 ? Cut::whole : cut;
  made.ranks = std::move(ranks);
  return made;
}

inline Plan plan(int ranks, const std::vector<std::int64_t>& lengths, std::vector<MicroBatch> micro_batches) {
  Plan made;
  made.ranks = ranks;
  for (auto tokens : lengths) made.sequences.push_back({tokens, tokens * (tokens + 1) / 2, 0.0});
  made.micro_batches = std::move(micro_batches);
  return made;
}

// Groups of any degree on any rank set in any ring order, several to a rank, over 1 to 3 micro-batches.
inline Plan random_plan(std::mt19937& random) {
  const auto pick = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  const int ranks = pick(1, 9), count = pick(0, 12);
  std::vector<std::int64_t> lengths;
  std::vector<MicroBatch> micro_batches(pick(1, 3));
  for (int sequence = 0; sequence < count; ++sequence) {
    lengths.push_back(pick(0, 3) == 0 ? pick(0, 3) : pick(0, 150));
    auto members = first_ranks(ranks);
    std::shuffle(members.begin(), members.end(), random);
    members.resize(pick(1, ranks));
    auto& groups = micro_batches[pick(0, static_cast<int>(micro_batches.size()) - 1)].groups;
    if (!groups.empty() && pick(0, 2) == 0)
      groups.back().sequences.emplace_back(sequence);
    else
      groups.push_back(group({sequence}, members, std::vector{Cut::contiguous, Cut::zigzag, Cut::balanced}[pick(0, 2)]));
  }
  return plan(ranks, lengths, std::move(micro_batches));
}

}  // namespace plans
