#include "hetsp/planner/chain_builder.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "hetsp/base/error.h"

namespace hetsp::planner {

namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kWidth = 4.0;  // a doubling of a group's ranks counts in the order as 2^4 times its seconds
constexpr int kGapsTried = 4;   // from the tightest on; where those have no room, the next ones hardly have

}  // namespace

ChainBuilder::ChainBuilder(const Task& task) : task_(task), fixed_(task.cost.micro_batch_seconds) {
  std::vector<Modes::Mode> used;
  const auto placed = task.modes.instance({}, used).ranks_per_node;  // 0 where the cost model knows no nodes
  const std::int32_t size = placed > 0 ? placed : task.cluster.ranks;
  for (std::int32_t first = 0; first < task.cluster.ranks; first += size)
    nodes_.push_back({first, std::min(first + size, task.cluster.ranks)});
}

double ChainBuilder::build(const std::vector<Decision>& decisions) {
  const auto& sequences = task_.sequences;
  free_at_.assign(task_.cluster.ranks, 0.0);
  tails_.assign(task_.cluster.ranks, {});
  groups_.clear(), gaps_.clear(), gap_order_.clear();
  std::vector<std::pair<double, int>> shared, whole;  // (key, sequence)
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    const auto& [mode, offload_ratio, priority] = decisions[s];
    const double seconds = Modes::seconds(*mode, sequences[s]);
    if (mode->degree == 1 && offload_ratio == 0.0)
      whole.emplace_back(seconds, static_cast<int>(s));
    else
      shared.emplace_back(kWidth * std::log2(mode->degree) + std::log2(std::max(seconds, 1e-12)) + priority,
                          static_cast<int>(s));
  }
  const auto larger_first = [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  std::sort(shared.begin(), shared.end(), larger_first);
  std::sort(whole.begin(), whole.end(), larger_first);
  for (const auto& [key, s] : shared) place_shared(s, decisions[s]);
  for (std::size_t g = 0; g < gaps_.size(); ++g) gap_order_.emplace_back(gaps_[g].left, g);
  std::sort(gap_order_.begin(), gap_order_.end());
  heap_.clear();
  for (std::int32_t rank = 0; rank < task_.cluster.ranks; ++rank) heap_.emplace_back(free_at_[rank], rank);
  std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  for (const auto& [seconds, s] : whole)
    if (!fill_gap(s, seconds)) place_whole(s, seconds);
  visits_ += static_cast<std::int64_t>(sequences.size());
  return *std::max_element(free_at_.begin(), free_at_.end());
}

void ChainBuilder::place_shared(int s, const Decision& decision) {
  const Modes::Mode& mode = *decision.mode;
  const bool alone = decision.offload_ratio > 0.0;
  const double seconds = Modes::seconds(mode, task_.sequences[s]);
  const std::int64_t tokens = task_.sequences[s].tokens;
  // The last group of the same kind whose ranks have done nothing since, that ends first.
  Group* open = nullptr;
  for (Group& group : groups_) {
    if (alone || group.mode != &mode || group.left < tokens || (open != nullptr && open->end <= group.end)) continue;
    const auto idle = [&](std::int32_t rank) { return free_at_[rank] == group.end; };
    if (std::all_of(group.ranks.begin(), group.ranks.end(), idle)) open = &group;
  }
  visits_ += static_cast<std::int64_t>(groups_.size()) + task_.cluster.ranks;
  const double begin = choose_ranks(mode.degree);
  if (open != nullptr && open->end + seconds <= begin + fixed_ + seconds) {
    open->end += seconds;
    open->left -= tokens;
    open->sequences.push_back(s);
    for (const auto rank : open->ranks) free_at_[rank] = open->end;
    return;
  }
  std::sort(chosen_.begin(), chosen_.end());
  for (const auto rank : chosen_)
    if (begin > free_at_[rank]) gaps_.push_back({rank, groups_.size(), begin - free_at_[rank], {}});
  const double end = begin + fixed_ + seconds;
  for (const auto rank : chosen_) free_at_[rank] = end;
  const std::int64_t left = alone ? -1 : task_.modes.room(mode.degree) - tokens;
  groups_.push_back({&mode, chosen_, {s}, left, end, decision.offload_ratio});
}

double ChainBuilder::choose_in_node(int degree, Node node) {
  scratch_.resize(node.end - node.begin);
  std::iota(scratch_.begin(), scratch_.end(), node.begin);
  const auto earlier = [&](std::int32_t a, std::int32_t b) {
    return free_at_[a] != free_at_[b] ? free_at_[a] < free_at_[b] : a < b;
  };
  std::nth_element(scratch_.begin(), scratch_.begin() + degree - 1, scratch_.end(), earlier);
  return free_at_[scratch_[degree - 1]];
}

double ChainBuilder::choose_ranks(int degree) {
  const int size = nodes_.front().end - nodes_.front().begin;
  const int count = degree / size, part = degree % size;
  chosen_.clear();
  double begin = 0.0;
  std::vector<bool> taken(nodes_.size());
  if (count > 0) {  // whole nodes, those that are free first
    std::vector<std::pair<double, std::size_t>> order;
    for (std::size_t n = 0; n < nodes_.size(); ++n)
      if (nodes_[n].end - nodes_[n].begin == size)
        order.emplace_back(*std::max_element(free_at_.begin() + nodes_[n].begin, free_at_.begin() + nodes_[n].end), n);
    invariant(static_cast<int>(order.size()) >= count, "a group of ", degree, " ranks needs ", count, " nodes of ", size);
    std::sort(order.begin(), order.end());
    for (int i = 0; i < count; ++i) {
      taken[order[i].second] = true;
      begin = std::max(begin, order[i].first);
      for (auto rank = nodes_[order[i].second].begin; rank < nodes_[order[i].second].end; ++rank) chosen_.push_back(rank);
    }
  }
  if (part == 0) return begin;
  double best = kNever, least_wait = kNever;
  std::vector<std::int32_t> ranks;
  for (std::size_t n = 0; n < nodes_.size(); ++n) {
    if (taken[n] || nodes_[n].end - nodes_[n].begin < part) continue;
    const double at = std::max(begin, choose_in_node(part, nodes_[n]));
    double wait = 0.0;
    for (int i = 0; i < part; ++i) wait += at - free_at_[scratch_[i]];
    if (at > best || (at == best && wait >= least_wait)) continue;
    best = at, least_wait = wait;
    ranks.assign(scratch_.begin(), scratch_.begin() + part);
  }
  invariant(best < kNever, "no node has room for ", part, " ranks of a group of ", degree);
  chosen_.insert(chosen_.end(), ranks.begin(), ranks.end());
  return best;
}

// Seconds that it adds to those packs: into the fullest with room, else a new one; infinity, and nothing done, above `most`.
double ChainBuilder::add_to_packs(std::vector<Pack>& packs, int s, double seconds, double most) const {
  const std::int64_t tokens = task_.sequences[s].tokens;
  Pack* best = nullptr;
  for (Pack& pack : packs)
    if (pack.left >= tokens && (best == nullptr || pack.left < best->left)) best = &pack;
  const double added = best != nullptr ? seconds : seconds + fixed_;
  if (added > most) return kNever;
  if (best == nullptr) best = &packs.emplace_back(Pack{task_.cluster.tokens_per_rank, {}});
  best->left -= tokens;
  best->sequences.push_back(s);
  return added;
}

bool ChainBuilder::fill_gap(int s, double seconds) {
  auto at = std::lower_bound(gap_order_.begin(), gap_order_.end(), std::pair(seconds, std::size_t{0}));
  for (int tried = 0; tried < kGapsTried && at != gap_order_.end(); ++tried, ++at) {
    Gap& gap = gaps_[at->second];
    const double added = add_to_packs(gap.packs, s, seconds, gap.left);
    ++visits_;
    if (added == kNever) continue;
    gap.left -= added;
    const std::pair now(gap.left, at->second);
    const auto place = std::lower_bound(gap_order_.begin(), at, now);  // it only shrank
    std::move_backward(place, at, at + 1);
    *place = now;
    return true;
  }
  return false;
}

void ChainBuilder::place_whole(int s, double seconds) {
  std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
  const std::int32_t rank = heap_.back().second;
  free_at_[rank] += add_to_packs(tails_[rank], s, seconds, kNever);
  heap_.back().first = free_at_[rank];
  std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
}

Draft ChainBuilder::draft() const {
  std::vector<std::vector<const Gap*>> before(groups_.size());
  for (const Gap& gap : gaps_) before[gap.group].push_back(&gap);
  std::vector<DraftGroup> list;
  const auto add = [&](const std::vector<Pack>& packs, std::int32_t rank) {
    for (const Pack& pack : packs) list.push_back({.sequences = pack.sequences, .ranks = {rank}});
  };
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    for (const Gap* gap : before[g]) add(gap->packs, gap->rank);
    const Group& group = groups_[g];
    list.push_back({.kind = group.mode->kind,
                    .degree = group.mode->degree,
                    .sequences = group.sequences,
                    .ranks = group.ranks,
                    .offload_ratio = group.offload_ratio});
  }
  for (std::size_t rank = 0; rank < tails_.size(); ++rank) add(tails_[rank], static_cast<std::int32_t>(rank));
  Draft draft;
  draft.micro_batches.push_back(std::move(list));
  return draft;
}

}  // namespace hetsp::planner
