#include "hetsp/planner/balance.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <random>

#include "hetsp/planner/board.h"

namespace hetsp::planner {

namespace {

constexpr double kNear = 1.001;       // a makespan this close to the bound ends the search
constexpr double kUnsplitLeast = 1.0025,
                 kUnsplitMost = 1.01;  // of the makespan: what fewer ranks for sequences may cost in all,
constexpr double kNearEnough = 1.015;                          // and up to where in between: this much above the bound
constexpr double kProgress = 1e-6;    // relative fall of a load that counts as one
constexpr double kDeviation =
    1.01;   // of the best makespan: what a step on the way may cost (Dueck, J. Comput. Phys. 104, 1993)
constexpr int kSwapRanks = 8;         // least loaded ranks that are offered an exchange
constexpr int kRuined = 12;           // sequences taken off at once
constexpr double kGranularities[] = {1.0, 0.5, 0.25, 0.12};
constexpr double kTightness[] = {-1.0, 0.0, 0.2, 1.0};  // of Board::pack; -1: Board::find, which levels instead
constexpr double kStep = 1.01;                        // first ratio of two targets on the way up; it squares each time
constexpr double kFall = 0.01, kLeastFall = 0.002;    // what a pass undercuts the best by: first, and when it gives up

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
    longest_ = std::max(seconds_->work(longest_first_.front()), std::numeric_limits<double>::min());
  }

  std::optional<Balanced> run() {
    if (!passes()) return std::nullopt;
    descend();
    ruin_and_recreate();
    simplify();
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

  std::optional<Spot> find(int sequence, double target, double granularity, double tightness) {
    const double share = std::pow(granularity, seconds_->work(sequence) / longest_);
    const int least = degree_within(sequence, share * target);
    if (tightness >= 0.0)
      if (auto spot = board_->pack(sequence, least, target, tightness)) return spot;
    return board_->find(sequence, least, target);
  }

  bool pass(double target, double granularity, double tightness) {
    board_->clear();
    for (const int s : longest_first_) {
      auto spot = find(s, target, granularity, tightness);
      if (!spot || spot->height > best_makespan_) return false;  // no room, or no better than what there is
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
    const auto enough = [&] { return !best.empty() && (budget_.spent(2 * board_->work()) || best_makespan_ <= goal_); };
    const auto attempt = [&](double target, double granularity, double tightness) {
      if (!pass(target, granularity, tightness)) return false;
      consider();
      return board_->makespan() <= target;
    };
    // Without a target: as whole as memory allows, the longest onto the least loaded.
    if (pass(std::numeric_limits<double>::max(), 1.0, kTightness[0])) consider();
    // The first kind of pass gallops up from the bound until it keeps to a target; the others try to undercut the best.
    double low = bound_;
    for (double step = kStep; !enough(); step *= step) {
      if (low * step >= best_makespan_ || attempt(low * step, 1.0, kTightness[0])) break;
      low *= step;
    }
    for (const double tightness : kTightness)
      for (const double granularity : kGranularities)
        for (double fall = kFall; fall >= kLeastFall && !best.empty() && !enough();)
          fall *= attempt(std::max(bound_, best_makespan_ * (1.0 - fall)), granularity, tightness) ? 2.0 : 0.5;
    double shared = 0.0;  // makespan of equal shares, which fit where memory is tightest
    for (const int s : longest_first_) shared += (*seconds_)(s, seconds_->max_degree());
    if ((best.empty() || shared < best_makespan_) && equal_shares()) consider();
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
    const int patience = 400 + 4 * std::min(seconds_->sequences(), 100);
    remember();
    Assignment best = board_->places();
    for (int barren = 0; barren < patience && !spent() && best_makespan_ > goal_; ++barren) {
      board_->begin();
      const bool whole = recreate(ruin(board_->order().back()));
      if (whole) descend();
      if (!whole || board_->makespan() > best_makespan_ * kDeviation) {
        board_->rollback();
        continue;
      }
      if (!better(board_->makespan(), board_->total())) continue;
      if (board_->makespan() < best_makespan_ * (1.0 - kProgress)) barren = 0;
      remember();
      best = board_->places();
    }
    board_->clear();
    for (const int s : longest_first_) board_->place(s, std::move(best[s]));
  }

  [[nodiscard]] int below(int count) { return static_cast<int>(random_() % static_cast<std::uint64_t>(count)); }

  std::vector<int> ruin(int from) {
    std::vector<int> off;
    const int count = 2 + below(std::min(kRuined, seconds_->sequences()));
    const auto take = [&](int rank) {
      const auto& members = board_->members(rank);
      if (members.empty()) return;
      const int s = members[below(static_cast<int>(members.size()))];
      off.push_back(s);
      board_->remove(s);
    };
    for (int i = 0; i < count; ++i) take(i % 2 == 0 ? from : below(board_->ranks()));
    std::ranges::sort(off, [&](int a, int b) {
      return seconds_->work(a) != seconds_->work(b) ? seconds_->work(a) > seconds_->work(b) : a < b;
    });
    return off;
  }

  bool recreate(const std::vector<int>& off) {
    const double target = bound_ + (best_makespan_ - bound_) * below(1000) / 1000.0;
    const double tightness = kTightness[below(4)];
    for (std::size_t i = 0; i < off.size(); ++i) {
      auto spot = find(off[i], target, below(2) ? 1.0 : 0.2 + 0.8 * below(1000) / 1000.0, tightness);
      if (!spot) return false;
      board_->place(off[i], std::move(spot->place));
    }
    return true;
  }

  // Members of rings beyond the first: the messages of a hop.
  [[nodiscard]] int hops() const {
    int sum = 0;
    for (const int s : longest_first_) sum += board_->degree(s) - 1;
    return sum;
  }

  // Fewer ranks for sequences that need not share as many, the shortest first, then by ruin and recreate.
  void simplify() {
    const double makespan = board_->makespan(),
                 limit = std::clamp(bound_ * kNearEnough, makespan * kUnsplitLeast, makespan * kUnsplitMost);
    for (auto s = longest_first_.rbegin(); s != longest_first_.rend(); ++s) {
      const int degree = board_->degree(*s);
      if (degree == 1) continue;
      Place old = board_->remove(*s);
      auto spot = board_->find(*s, 1, limit);
      const bool fewer = spot && spot->height <= limit && static_cast<int>(spot->place.ranks.size()) < degree;
      board_->place(*s, fewer ? std::move(spot->place) : std::move(old));
    }
    const std::int64_t end = board_->work() + board_->work() / 4 + 20'000;
    int least = hops();
    const int patience = 50 + 2 * std::min(seconds_->sequences(), 100);
    for (int barren = 0; barren < patience && least > 0 && board_->work() < end; ++barren) {
      board_->begin();
      std::vector<int> off = ruin(board_->order()[below(board_->ranks())]);
      std::shuffle(off.begin(), off.end(), random_);
      bool whole = true;
      for (const int s : off) {
        auto spot = board_->find(s, 1, limit);
        if (!spot || spot->height > limit) {
          whole = false;
          break;
        }
        board_->place(s, std::move(spot->place));
      }
      if (const int now_hops = whole ? hops() : least + 1; now_hops > least)
        board_->rollback();
      else if (now_hops < least)
        least = now_hops, barren = 0;
    }
  }

  double bound_, goal_;
  double longest_ = 0.0;  // work of the longest sequence, seconds
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
