#include "hetsp/planner/remap.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

#include "hetsp/base/error.h"

namespace hetsp::planner {

namespace {

constexpr std::int64_t kMaxTokens = std::int64_t{1} << 40;  // of a rank: sums over 2^20 ranks stay inside 63 bits

struct End {
  std::int32_t rank;
  std::int64_t tokens;  // left to send or to receive inside the node
  std::int64_t across;  // and across nodes
};

std::int32_t node_size(std::size_t ranks, const RemapLinks& links) {
  return links.ranks_per_node == 0 ? static_cast<std::int32_t>(ranks) : links.ranks_per_node;
}

void check(std::span<const std::int64_t> tokens, const RemapLinks& links) {
  require(tokens.size() <= (std::size_t{1} << 20), "remap: ", tokens.size(), " ranks, must be at most 2^20");
  for (std::size_t r = 0; r < tokens.size(); ++r)
    require(0 <= tokens[r] && tokens[r] <= kMaxTokens, "remap: rank ", r, " has ", tokens[r], " tokens, must be in 0..",
            kMaxTokens);
  require(links.ranks_per_node >= 0, "remap: ranks_per_node is ", links.ranks_per_node, ", must be at least 0");
  require(std::isfinite(links.inter) && 0.0 <= links.intra && links.intra <= links.inter, "remap: seconds per token are ",
          links.intra, " inside a node and ", links.inter, " across, must be finite and 0 <= intra <= inter");
}

// Shares `across` tokens over the ends so that max(intra * tokens + (inter - intra) * across) is least: first water up to the
// level at which the shares are real numbers, then the tokens that rounding down left over, each where it costs least.
void fill(std::span<End> ends, std::int64_t across, const RemapLinks& links) {
  const double step = links.inter - links.intra;
  const auto cost = [&](const End& e, double crossing) {
    return links.intra * static_cast<double>(e.tokens) + step * crossing;
  };
  if (step > 0.0 && across > 0) {
    // The level at which all shares sum to `across`: halve until the interval is below a token.
    double low = 0.0, high = 0.0;
    for (const End& e : ends) high = std::max(high, cost(e, static_cast<double>(e.tokens)));
    const auto share = [&](const End& e, double level) {
      return std::clamp(std::floor((level - cost(e, 0.0)) / step), 0.0, static_cast<double>(e.tokens));
    };
    for (int k = 0; k < 64 && high - low > 0.25 * step; ++k) {
      const double level = low + (high - low) / 2;
      double sum = 0.0;
      for (const End& e : ends) sum += share(e, level);
      (sum <= static_cast<double>(across) ? low : high) = level;
    }
    for (End& e : ends) across -= e.across = static_cast<std::int64_t>(share(e, low));
  }
  while (across > 0) {
    End* best = nullptr;
    for (End& e : ends)
      if (e.across < e.tokens &&
          (best == nullptr || cost(e, static_cast<double>(e.across + 1)) < cost(*best, static_cast<double>(best->across + 1))))
        best = &e;
    invariant(best != nullptr, "remap: ", across, " tokens have no end");
    const std::int64_t many = step > 0.0 ? 1 : std::min(across, best->tokens - best->across);
    best->across += many, across -= many;
  }
}

// Matches both lists in order; each side has the same sum.
void match(std::vector<End>& from, std::vector<End>& to, std::int64_t End::* left, std::vector<Transfer>& out) {
  std::size_t j = 0;
  for (End& sender : from)
    while (sender.*left > 0) {
      while (to[j].*left == 0) ++j;
      const std::int64_t tokens = std::min(sender.*left, to[j].*left);
      out.push_back({sender.rank, to[j].rank, tokens});
      sender.*left -= tokens, to[j].*left -= tokens;
    }
}

void add_up(Remap& r, const RemapLinks& links) {
  const std::int32_t size = std::max(node_size(r.targets.size(), links), 1);
  std::vector<double> sends(r.targets.size(), 0.0), receives(r.targets.size(), 0.0);
  for (const Transfer& t : r.transfers) {
    const bool crosses = t.from / size != t.to / size;
    const double seconds = (crosses ? links.inter : links.intra) * static_cast<double>(t.tokens);
    r.moved += t.tokens;
    if (crosses) r.crossing += t.tokens;
    r.sum_seconds += seconds;
    sends[t.from] += seconds, receives[t.to] += seconds;
  }
  for (const auto* ends : {&sends, &receives})
    for (const double seconds : *ends) r.worst_seconds = std::max(r.worst_seconds, seconds);
}

}  // namespace

// A rank that may keep one token more saves an intra transfer if it is in surplus, and if its node is too, one of its node's
// crossings: the saving of a node is concave in how many such ranks it has, so the best savings first are optimal.
std::vector<std::int64_t> balanced_targets(std::span<const std::int64_t> tokens, const RemapLinks& links) {
  check(tokens, links);
  const auto ranks = static_cast<std::int64_t>(tokens.size());
  if (ranks == 0) return {};
  const std::int64_t total = std::accumulate(tokens.begin(), tokens.end(), std::int64_t{0});
  const std::int64_t base = total / ranks;
  std::vector<std::int64_t> targets(tokens.size(), base);

  struct Chance {
    double saving;
    std::int32_t rank;
  };
  std::vector<Chance> chances;
  const std::int32_t size = node_size(tokens.size(), links);
  for (std::int64_t first = 0; first < ranks; first += size) {
    std::vector<std::int32_t> members;
    std::int64_t net = 0;
    for (std::int64_t r = first; r < std::min(ranks, first + size); ++r)
      members.push_back(static_cast<std::int32_t>(r)), net += tokens[r] - base;
    std::stable_partition(members.begin(), members.end(), [&](std::int32_t r) { return tokens[r] > base; });
    for (const std::int32_t r : members)
      chances.push_back({(tokens[r] > base ? links.intra : 0.0) + (net-- > 0 ? links.inter - links.intra : 0.0), r});
  }
  std::stable_sort(chances.begin(), chances.end(), [](const Chance& a, const Chance& b) { return a.saving > b.saving; });
  for (std::int64_t k = 0; k < total % ranks; ++k) ++targets[chances[static_cast<std::size_t>(k)].rank];
  return targets;
}

Remap remap(std::span<const std::int64_t> tokens, std::span<const std::int64_t> targets, const RemapLinks& links) {
  check(tokens, links);
  check(targets, links);
  const std::int64_t before = std::accumulate(tokens.begin(), tokens.end(), std::int64_t{0});
  const std::int64_t after = std::accumulate(targets.begin(), targets.end(), std::int64_t{0});
  require(tokens.size() == targets.size() && before == after, "remap: ", before, " tokens on ", tokens.size(),
          " ranks, targets of ", after, " on ", targets.size(), "; must be as many");
  Remap result;
  result.targets.assign(targets.begin(), targets.end());
  const auto ranks = static_cast<std::int32_t>(tokens.size());
  const std::int32_t size = node_size(tokens.size(), links);
  std::vector<End> from, to, exports, imports;
  for (std::int64_t first = 0; first < ranks; first += size) {
    from.clear(), to.clear();
    std::int64_t net = 0;
    for (auto r = static_cast<std::int32_t>(first); r < std::min<std::int64_t>(ranks, first + size); ++r) {
      const std::int64_t surplus = tokens[r] - targets[r];
      net += surplus;
      if (surplus > 0) from.push_back({r, surplus, 0});
      if (surplus < 0) to.push_back({r, -surplus, 0});
    }
    if (net > 0) fill(from, net, links);
    if (net < 0) fill(to, -net, links);
    for (End& e : from) e.tokens -= e.across;
    for (End& e : to) e.tokens -= e.across;
    match(from, to, &End::tokens, result.transfers);
    std::copy_if(from.begin(), from.end(), std::back_inserter(exports), [](const End& e) { return e.across > 0; });
    std::copy_if(to.begin(), to.end(), std::back_inserter(imports), [](const End& e) { return e.across > 0; });
  }
  match(exports, imports, &End::across, result.transfers);
  add_up(result, links);
  return result;
}

}  // namespace hetsp::planner
