// Random planning problems, biased to corners: one rank, free links, equal lengths, a giant, memory that just fits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "hetsp/base/error.h"
#include "hetsp/planner/cluster.h"
#include "hetsp/planner/cost_model.h"
#include "hetsp/planner/workload.h"

struct RandomStep {
  std::vector<hetsp::planner::Sequence> sequences;
  hetsp::planner::Cluster cluster;
  hetsp::planner::CostModel cost;
  std::string name;  // for messages; holds the seed

  RandomStep(std::uint64_t seed, int max_sequences, int max_ranks) {
    std::mt19937_64 random(seed);
    const auto pick = [&](std::int64_t low, std::int64_t high) {
      return std::uniform_int_distribution<std::int64_t>(low, high)(random);
    };
    cluster.ranks = static_cast<std::int32_t>(pick(0, 4) == 0 ? 1 : pick(2, max_ranks));
    const auto count = pick(1, max_sequences);
    const auto kind = pick(0, 3);
    std::vector<std::int64_t> lengths;
    for (std::int64_t i = 0; i < count; ++i)
      lengths.push_back(kind == 0 ? 24 : kind == 1 && i == 0 ? 400 : kind == 2 ? std::int64_t{1} << pick(0, 8) : pick(0, 60));
    sequences = hetsp::planner::make_workload(lengths, pick(0, 3) == 0 ? pick(0, 8) : -1);
    std::int64_t total = 0, longest = 1;
    for (const auto length : lengths) total += length, longest = std::max(longest, length);
    // From "the longest just fits on all ranks" to "everything on one rank".
    const std::int64_t least = longest / cluster.ranks + 2;
    cluster.tokens_per_rank = pick(0, 1) == 0 ? total + 2 : pick(0, 1) == 0 ? least : pick(least, std::max(least, total));
    const auto unit = [&] { return static_cast<double>(pick(0, 8)) / 8.0; };
    cost.seconds_per_pair = pick(0, 4) == 0 ? 0.0 : 0.05 * unit();
    cost.seconds_per_token = 0.1 + unit();
    const double link = pick(0, 2) == 0 ? 0.0 : 0.3 * unit();
    if (pick(0, 1) == 0)
      cost.links = {{2, link}, {3, 2 * link}};  // a ring
    else
      cost.links = {{2, link}, {3, 0.2 * link}, {4, 3 * link}};  // not monotonic
    cost.hop_seconds = pick(0, 1) == 0 ? 0.0 : unit();
    cost.micro_batch_seconds = pick(0, 1) == 0 ? 0.0 : 3.0 * unit();
    if (pick(0, 3) == 0)
      for (auto& sequence : sequences) sequence.fixed_cost = unit();
    name = hetsp::concat("seed ", seed, ": ", count, " sequences on ", cluster.ranks, " ranks of ", cluster.tokens_per_rank,
                         " tokens");
  }
};
