#include "hetsp/planner/remap.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <string>

#include "hetsp/base/error.h"
#include "hetsp/lp/simplex.h"
#include "support/check.h"

namespace {

using namespace hetsp::planner;
namespace lp = hetsp::lp;
using Tokens = std::vector<std::int64_t>;

int node_of(std::size_t rank, const RemapLinks& links) {
  return links.ranks_per_node == 0 ? 0 : static_cast<int>(rank) / links.ranks_per_node;
}

// The transportation problem as a linear programme: all pairs, one row per rank; `slowest`: minimise the largest sum of a rank
// instead of the sum over ranks.
double optimum(const Tokens& tokens, const Tokens& targets, const RemapLinks& links, bool slowest) {
  lp::Model m;
  const auto ranks = static_cast<int>(tokens.size());
  for (int r = 0; r < ranks; ++r) {
    const auto moved = static_cast<double>(std::abs(tokens[r] - targets[r]));
    m.add_row(moved, moved);
  }
  if (slowest)
    for (int r = 0; r < ranks; ++r) m.add_row(-lp::kInfinity, 0.0);  // seconds of the rank - z <= 0
  for (int i = 0; i < ranks; ++i)
    for (int j = 0; j < ranks; ++j) {
      if (tokens[i] <= targets[i] || tokens[j] >= targets[j]) continue;
      const double seconds = node_of(i, links) == node_of(j, links) ? links.intra : links.inter;
      std::vector<lp::Entry> entries{{i, 1.0}, {j, 1.0}};
      if (slowest) entries.insert(entries.end(), {{ranks + i, seconds}, {ranks + j, seconds}});
      m.add_column(slowest ? 0.0 : seconds, 0.0, lp::kInfinity, entries);
    }
  if (slowest) {
    std::vector<lp::Entry> z;
    for (int r = 0; r < ranks; ++r) z.push_back({ranks + r, -1.0});
    m.add_column(1.0, 0.0, lp::kInfinity, z);
  }
  lp::Simplex simplex(m);
  CHECK(simplex.solve() == lp::Status::optimal);
  return simplex.objective();
}

void check_moves(const Tokens& tokens, const Remap& r) {
  Tokens after = tokens;
  for (const Transfer& t : r.transfers) {
    CHECK(t.tokens > 0 && t.from != t.to);
    CHECK(tokens[t.from] > r.targets[t.from] && tokens[t.to] < r.targets[t.to]);  // nobody forwards
    after[t.from] -= t.tokens, after[t.to] += t.tokens;
  }
  CHECK(after == r.targets);
}

struct Case {
  Tokens tokens;
  RemapLinks links;
};

Case random_case(std::mt19937_64& random, int most_ranks) {
  Case c;
  c.tokens.resize(1 + random() % most_ranks);
  const auto kind = random() % 4;
  for (auto& t : c.tokens)
    t = static_cast<std::int64_t>(kind == 0   ? random() % 3
                                  : kind == 1 ? (random() % 4 ? 0 : random() % 1000)
                                              : random() % 200000);
  c.links.ranks_per_node = static_cast<std::int32_t>(random() % 6);
  c.links.intra = static_cast<double>(random() % 3);
  c.links.inter = c.links.intra + static_cast<double>(random() % 4) * 2.5;
  return c;
}

}  // namespace

TEST(both_objectives_are_those_of_the_linear_programme) {
  double farthest = 0.0;
  for (int seed = 0; seed < 400; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937_64 random(seed);
    const auto [tokens, links] = random_case(random, 20);
    Tokens targets = balanced_targets(tokens, links);
    if (seed % 3 == 0) std::shuffle(targets.begin(), targets.end(), random);
    if (seed % 3 == 1) targets = tokens, std::shuffle(targets.begin(), targets.end(), random);
    const Remap r = remap(tokens, targets, links);
    check_moves(tokens, r);
    const double sum = optimum(tokens, targets, links, false), slowest = optimum(tokens, targets, links, true);
    CHECK_NEAR(r.sum_seconds, sum, 1e-9 * std::max(1.0, sum));
    CHECK(r.worst_seconds >= slowest - 1e-7 * std::max(1.0, slowest));
    // In whole tokens a rank may have to take one crossing more than its real share.
    CHECK(r.worst_seconds <= slowest + (links.inter - links.intra) + 1e-7 * std::max(1.0, slowest));
    if (slowest > 0.0) farthest = std::max(farthest, r.worst_seconds / slowest - 1.0);
  }
  std::printf("     slowest rank above the real-valued optimum: at most %.3g\n", farthest);
}

TEST(balanced_targets_are_the_best_of_all) {
  for (int seed = 0; seed < 300; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937_64 random(seed);
    const auto [tokens, links] = random_case(random, 8);
    const Tokens targets = balanced_targets(tokens, links);
    const std::int64_t total = std::accumulate(tokens.begin(), tokens.end(), std::int64_t{0});
    const auto ranks = static_cast<std::int64_t>(tokens.size());
    CHECK_EQ(std::accumulate(targets.begin(), targets.end(), std::int64_t{0}), total);
    double best = lp::kInfinity;
    for (unsigned subset = 0; subset < 1u << ranks; ++subset) {
      if (__builtin_popcount(subset) != total % ranks) continue;
      Tokens other(tokens.size(), total / ranks);
      for (std::int64_t r = 0; r < ranks; ++r) other[r] += subset >> r & 1;
      best = std::min(best, remap(tokens, other, links).sum_seconds);
    }
    CHECK_NEAR(remap(tokens, targets, links).sum_seconds, best, 1e-9 * std::max(1.0, best));
  }
}

TEST(only_net_surplus_crosses_and_senders_share_it) {
  const Tokens tokens = {40, 20, 0, 0}, targets = {15, 15, 15, 15};
  const Remap r = remap(tokens, targets, {2, 1.0, 3.0});
  CHECK_EQ(r.moved, 30);
  CHECK_EQ(r.crossing, 30);
  CHECK_NEAR(r.worst_seconds, 75.0, 1e-12);
  const Remap inside = remap(Tokens{20, 10, 14, 16}, targets, {2, 1.0, 3.0});
  CHECK_EQ(inside.moved, 6);
  CHECK_EQ(inside.crossing, 0);
  // Node surplus 6 from ranks of surplus 10 and 2 beside a deficit of 6: the smaller one sends across.
  const Remap shared = remap(Tokens{25, 17, 9, 9, 15, 15}, Tokens(6, 15), {3, 1.0, 3.0});
  CHECK_EQ(shared.crossing, 6);
  CHECK_NEAR(shared.worst_seconds, 18.0, 1e-12);  // 10 + 2 * 4; the receiver takes 6 * 3
  CHECK(remap(targets, targets, {}).transfers.empty());
  CHECK(remap(Tokens{}, Tokens{}, {}).transfers.empty());
}

TEST(bad_input_is_named) {
  const Tokens two = {1, 2};
  CHECK_THROWS(hetsp::InvalidArgument, "rank 0 has -1 tokens", balanced_targets(Tokens{-1}, {}));
  CHECK_THROWS(hetsp::InvalidArgument, "3 tokens on 2 ranks, targets of 4", remap(two, Tokens{2, 2}, {}));
  CHECK_THROWS(hetsp::InvalidArgument, "0 <= intra <= inter", remap(two, two, {0, 2.0, 1.0}));
  CHECK_THROWS(hetsp::InvalidArgument, "ranks_per_node is -1", remap(two, two, {-1, 1.0, 1.0}));
}

TEST_MAIN()
