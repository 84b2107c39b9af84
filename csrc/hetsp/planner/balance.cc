#include "hetsp/planner/balance.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <random>

#include "hetsp/planner/board.h"

namespace hetsp::planner {

namespace {

constexpr double kNear = 1.001;       // a makespan this close to the bound ends the search
constexpr double kUnsplit = 1.002;    // what fewer ranks for a sequence may cost
constexpr double kProgress = 1e-6;    // relative fall of a load that counts as one
constexpr int kSwapRanks = 8;         // least loaded ranks that are offered an exchange
constexpr int kRuined = 12;           // sequences taken off at once
constexpr double kGranularities[] = {1.0, 0.5, 0.25, 0.12};
constexpr double kTargets[] = {1.0, 1.02, 1.05, 1.1, 1.2, 1.4, 2.0};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

class Search {
 public:
  Search(const Problem& problem, const std::vector<int>& which, int micro_batches, double bound, const Budget& budget)
      : bound_(bound), goal_(bound * kNear), budget_(budget), random_(problem.options.seed) {
    std::vector<Sequence> chosen;
    for (const int s : which) chosen.push_back(problem.sequences[s]);
    seconds_.emplace(problem.cost, chosen, problem.max_degree);
    std::vector<std::int64_t> tokens;
    for (const auto& sequence : chosen) tokens.push_back(sequence.tokens);
    board_.emplace(*seconds_, std::move(tokens), problem.cluster.ranks, problem.cluster.tokens_per_rank, micro_batches);
    longest_first_ = longest_first(chosen, problem.cost);
  }

  std::optional<Balanced> run() {
    if (!passes()) return std::nullopt;
    descend();
    ruin_and_recreate();
    unsplit();
    descend();
    return Balanced{board_->places(), board_->makespan(), board_->work()};
  }

 private:
  [[nodiscard]] bool spent() const { return budget_.spent(board_->work()); }
  [[nodiscard]] bool better(double makespan, double total) const {
    const double old = best_makespan_;
    return makespan < old * (1.0 - kProgress) || (makespan <= old && total < best_total_ * (1.0 - kProgress));
  }
  void remember() { best_makespan_ = board_->makespan(), best_total_ = board_->total(); }

  // Fewest ranks on which the sequence runs for at most `seconds`; the work alone says where to start.
  [[nodiscard]] int degree_within(int sequence, double seconds) const {
    const double ranks = seconds > 0.0 ? seconds_->work(sequence) / seconds : 0.0;
    return static_cast<int>(std::clamp(ranks, 1.0, static_cast<double>(seconds_->max_degree())) + 1.0 - 1e-9);
  }

  bool pass(double target, double granularity) {
    board_->clear();
    for (const int s : longest_first_) {
      auto spot = board_->find(s, std::min(degree_within(s, granularity * target), seconds_->max_degree()), target);
      if (!spot) return false;
      board_->place(s, std::move(spot->place));
    }
    return true;
  }

  bool passes() {
    Assignment best;
    const auto consider = [&] {
      if (!best.empty() && !better(board_->makespan(), board_->total())) return;
      best = board_->places();
      remember();
    };
    for (const double granularity : kGranularities) {
      for (const double target : kTargets) {
        if (!best.empty() && (spent() || best_makespan_ <= goal_)) break;
        if (!pass(bound_ * target, granularity)) continue;
        consider();
        if (board_->makespan() <= bound_ * target) break;
      }
    }
    // Memory so tight that only equal shares fit.
    if (best.empty() && pass(bound_, 0.0)) consider();
    if (best.empty() && equal_shares()) consider();
    if (best.empty()) return false;
    board_->clear();
    for (const int s : longest_first_) board_->place(s, std::move(best[s]));
    return true;
  }

  bool equal_shares() {
    board_->clear();
    for (const int s : longest_first_) {
      auto spot = board_->find(s, seconds_->max_degree(), 0.0);
      if (!spot) return false;
      board_->place(s, std::move(spot->place));
    }
    return true;
  }

  // Gives sequences of the most loaded rank away while its load falls.
  void descend() {
    while (!spent() && board_->makespan() > goal_)
      if (!relocate() && !exchange()) return;
  }

  bool relocate() {
    const int top = board_->order().back();
    const double level = board_->load(top);
    double lowest = level * (1.0 - kProgress);
    int chosen = -1;
    Place destination;
    for (const int s : std::vector<int>(board_->members(top))) {
      Place old = board_->remove(s);
      if (auto spot = board_->find(s, 1, goal_); spot && spot->height < lowest) {
        lowest = spot->height, chosen = s;
        destination = std::move(spot->place);
      }
      board_->place(s, std::move(old));
      if (lowest <= goal_ || spent()) break;
    }
    if (chosen < 0) return false;
    board_->remove(chosen);
    board_->place(chosen, std::move(destination));
    return true;
  }

  // The same ranks and degrees but for one pair of sequences, which swap the top rank and another.
  bool exchange() {
    const int top = board_->order().back();
    const double level = board_->load(top);
    double lowest = level * (1.0 - kProgress);
    int give = -1, take = -1, other = -1;
    const int offered = std::min(kSwapRanks, board_->ranks() - 1);
    for (int i = 0; i < offered; ++i) {
      const int rank = board_->order()[i];
      for (const int s : board_->members(top)) {
        const double mine = (*seconds_)(s, board_->degree(s));
        board_->count_work(static_cast<std::int64_t>(board_->members(rank).size()));
        for (const int u : board_->members(rank)) {
          const double gain = mine - (*seconds_)(u, board_->degree(u));
          const double height = std::max(level - gain, board_->load(rank) + gain);
          if (gain <= 0.0 || height >= lowest || !exchangeable(s, top, u, rank)) continue;
          lowest = height, give = s, take = u, other = rank;
        }
      }
      if (spent()) break;
    }
    if (give < 0) return false;
    Place mine = board_->remove(give), theirs = board_->remove(take);
    substitute(mine, top, other), substitute(theirs, other, top);
    board_->place(give, std::move(mine));
    board_->place(take, std::move(theirs));
    return true;
  }

  // Conservative on memory: each must have room beside the other.
  [[nodiscard]] bool exchangeable(int s, int top, int u, int rank) const {
    const auto on = [&](int sequence, int r) { return std::ranges::binary_search(board_->at(sequence).ranks, r); };
    return s != u && !on(s, rank) && !on(u, top) && board_->has_room(s, board_->degree(s), board_->at(s).micro_batch, rank) &&
           board_->has_room(u, board_->degree(u), board_->at(u).micro_batch, top);
  }

  static void substitute(Place& place, std::int32_t from, std::int32_t to) {
    *std::ranges::find(place.ranks, from) = to;
    std::ranges::sort(place.ranks);
  }

  void ruin_and_recreate() {
    const int sequences = seconds_->sequences();
    const int patience = 100 + 4 * std::min(sequences, 100);
    remember();
    for (int barren = 0; barren < patience && !spent() && board_->makespan() > goal_; ++barren) {
      board_->begin();
      if (recreate(ruin())) descend();
      if (std::ranges::any_of(longest_first_, [&](int s) { return board_->at(s).ranks.empty(); }) ||
          !better(board_->makespan(), board_->total())) {
        board_->rollback();
        continue;
      }
      if (board_->makespan() < best_makespan_ * (1.0 - kProgress)) barren = 0;
      remember();
    }
  }

  [[nodiscard]] int below(int count) { return static_cast<int>(random_() % static_cast<std::uint64_t>(count)); }

  std::vector<int> ruin() {
    std::vector<int> off;
    const int count = 2 + below(std::min(kRuined, seconds_->sequences()));
    const auto take = [&](int rank) {
      const auto& members = board_->members(rank);
      if (members.empty()) return;
      const int s = members[below(static_cast<int>(members.size()))];
      off.push_back(s);
      board_->remove(s);
    };
    for (int i = 0; i < count; ++i) take(i % 2 == 0 ? board_->order().back() : below(board_->ranks()));
    std::ranges::sort(off, [&](int a, int b) {
      return seconds_->work(a) != seconds_->work(b) ? seconds_->work(a) > seconds_->work(b) : a < b;
    });
    return off;
  }

  bool recreate(const std::vector<int>& off) {
    const double target = bound_ + (best_makespan_ - bound_) * below(1000) / 1000.0;
    const double granularity = kGranularities[below(3)];
    for (std::size_t i = 0; i < off.size(); ++i) {
      auto spot = board_->find(off[i], degree_within(off[i], granularity * target), target);
      if (!spot) return false;
      board_->place(off[i], std::move(spot->place));
    }
    return true;
  }

  // Sequences come back onto fewer ranks, the shortest first.
  void unsplit() {
    const double allowed = board_->makespan() * kUnsplit;
    for (auto s = longest_first_.rbegin(); s != longest_first_.rend(); ++s) {
      const int degree = board_->degree(*s);
      if (degree == 1) continue;
      Place old = board_->remove(*s);
      auto spot = board_->find(*s, 1, allowed);
      const bool fewer = spot && spot->height <= allowed && static_cast<int>(spot->place.ranks.size()) < degree;
      board_->place(*s, fewer ? std::move(spot->place) : std::move(old));
    }
  }

  double bound_, goal_;
  const Budget& budget_;
  std::mt19937_64 random_;
  std::optional<SequenceSeconds> seconds_;
  std::optional<Board> board_;
  std::vector<int> longest_first_;
  double best_makespan_ = std::numeric_limits<double>::infinity(), best_total_ = std::numeric_limits<double>::infinity();
};

}  // namespace

Budget::Budget(std::int64_t work_limit, double seconds)
    : work_limit_(work_limit), deadline_(seconds > 0.0 ? now() + seconds : std::numeric_limits<double>::infinity()) {}

bool Budget::spent(std::int64_t work) const { return work >= work_limit_ || (deadline_ < 1e300 && now() >= deadline_); }

std::optional<Balanced> balance(const Problem& problem, const std::vector<int>& which, int micro_batches, double bound,
                                const Budget& budget) {
  return Search(problem, which, micro_batches, bound, budget).run();
}

}  // namespace hetsp::planner
