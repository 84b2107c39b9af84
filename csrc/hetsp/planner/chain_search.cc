#include "hetsp/planner/chain_search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "hetsp/packing/effort.h"
#include "hetsp/packing/random.h"
#include "hetsp/packing/rounds.h"
#include "hetsp/planner/chain_builder.h"
#include "hetsp/planner/offload.h"

namespace hetsp::planner {

namespace {

constexpr std::array kTargets{1.0, 1.02, 1.05, 1.1, 1.2, 1.4, 2.0, 1e9};  // times the bound; the last: least rank-seconds
constexpr double kDear = 4.0;      // times the least rank-seconds: kinds above are not tried
constexpr double kLong = 0.02;     // of the makespan: shorter sequences decide nothing, they fill
constexpr double kDetour = 0.003;  // of the best: how much worse a solution may be that the search goes on from
constexpr double kShake = 1.5;     // most that a step adds to a priority, in doublings of the seconds
constexpr std::int64_t kWork = 2'000'000, kWorkOfSequence = 5'000;  // visits, some 10 ms
constexpr std::int64_t kSequences = 2'000;                             // from which on it grows no more

class ChainSearch {
 public:
  explicit ChainSearch(const Task& task) : task_(task), builder_(task), random_(task.options.seed) {
    std::vector<Modes::Mode> used;
    (void)task.modes.instance({}, used);
    for (const auto& mode : used) kinds_.push_back(task.modes.find(mode.kind, mode.degree));
    for (const auto& sequence : task.sequences) choices_.push_back(choices_of(sequence));
  }

  void start(const Draft& seed) {
    Solution solution = empty();
    for (const auto& groups : seed.micro_batches)
      for (const auto& group : groups)
        for (const int s : group.sequences) {
          const auto& list = choices_[s];
          const auto at = std::find_if(list.begin(), list.end(), [&](const auto& c) { return c.mode->degree >= group.degree; });
          solution.choice[s] = static_cast<int>(std::min<std::ptrdiff_t>(at - list.begin(), std::ssize(list) - 1));
        }
    offer(std::move(solution));
  }

  void start(double target) {
    Solution solution = empty();
    for (std::size_t s = 0; s < choices_.size(); ++s) {
      int& choice = solution.choice[s];
      while (choice + 1 < std::ssize(choices_[s]) && seconds(s, choice) + task_.cost.micro_batch_seconds > target) ++choice;
    }
    offer(std::move(solution));
  }

  void improve(packing::Effort& effort, double stop_at) {
    std::vector<int> movable;
    for (std::size_t s = 0; s < choices_.size(); ++s)
      if (choices_[s].front().mode->degree > 1 || (choices_[s].size() > 1 && seconds(s, 0) > kLong * best_.makespan))
        movable.push_back(static_cast<int>(s));
    if (movable.empty()) return;
    Solution present = best_;
    while (best_.makespan > stop_at) {
      Solution next = present;
      for (int changes = 1 + random_.below(3); changes > 0; --changes) change(next, movable);
      const auto before = builder_.visits();
      decode(next);
      if (next.makespan < best_.makespan) best_ = next, draft_ = builder_.draft();
      if (next.makespan <= std::max(present.makespan, best_.makespan * (1.0 + kDetour))) present = std::move(next);
      if (!effort.spend(builder_.visits() - before)) return;
    }
  }

  [[nodiscard]] Draft draft() && { return std::move(draft_); }

 private:
  struct Choice {
    const Modes::Mode* mode;
    double offload_ratio;
  };

  struct Solution {
    std::vector<int> choice;       // [sequences] index into choices_
    std::vector<double> priority;  // [sequences]
    double makespan = std::numeric_limits<double>::infinity();
  };

  // Kinds with room, if need be by offloading what computation hides, by rising rank-seconds, each faster than those before.
  std::vector<Choice> choices_of(const Sequence& sequence) const {
    const HostMemory& host = task_.cluster.host;
    const double hidden = hidden_ratio(sequence, task_.cost, host);
    std::vector<std::pair<double, Choice>> order;
    for (const auto* mode : kinds_)
      if (const auto ratio = ratio_to_fit(sequence.tokens, task_.modes.room(mode->degree), host, hidden))
        order.push_back({mode->degree * (Modes::seconds(*mode, sequence) + task_.cost.micro_batch_seconds), {mode, *ratio}});
    std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<Choice> list;
    for (const auto& [area, choice] : order) {
      if (!list.empty() && area > kDear * order.front().first) break;
      if (list.empty() || Modes::seconds(*choice.mode, sequence) < Modes::seconds(*list.back().mode, sequence))
        list.push_back(choice);
    }
    return list;
  }

  [[nodiscard]] Solution empty() const { return {std::vector<int>(choices_.size()), std::vector<double>(choices_.size())}; }
  [[nodiscard]] double seconds(std::size_t s, int choice) const {
    return Modes::seconds(*choices_[s][choice].mode, task_.sequences[s]);
  }

  void decode(Solution& solution) {
    decisions_.resize(choices_.size());
    for (std::size_t s = 0; s < choices_.size(); ++s) {
      const Choice& choice = choices_[s][solution.choice[s]];
      decisions_[s] = {choice.mode, choice.offload_ratio, solution.priority[s]};
    }
    solution.makespan = builder_.build(decisions_);
  }

  void offer(Solution solution) {
    decode(solution);
    if (solution.makespan < best_.makespan) best_ = std::move(solution), draft_ = builder_.draft();
  }

  void change(Solution& solution, const std::vector<int>& movable) {
    const int s = movable[random_.below(std::ssize(movable))];
    int& choice = solution.choice[s];
    const int count = static_cast<int>(choices_[s].size());
    if (count == 1 || random_.chance(0.3)) {
      solution.priority[s] = kShake * (2.0 * random_.uniform() - 1.0);
    } else if (random_.chance(0.2)) {
      choice = random_.below(count);
    } else {
      choice = std::clamp(choice + (random_.chance(0.5) ? 1 : -1), 0, count - 1);
    }
  }

  const Task& task_;
  ChainBuilder builder_;
  packing::Random random_;
  std::vector<const Modes::Mode*> kinds_;                 // those that no other undercuts
  std::vector<std::vector<Choice>> choices_;  // [sequences]
  std::vector<ChainBuilder::Decision> decisions_;  // [sequences] of the solution at hand
  Solution best_;
  Draft draft_;
};

}  // namespace

Draft search_chains(const Task& task, const std::vector<Draft>& seeds, double lower_bound, double seconds) {
  const auto& options = task.options;
  const auto count = std::min<std::int64_t>(std::ssize(task.sequences), kSequences);
  const std::int64_t work = options.work_limit > 0 ? options.work_limit
                            : seconds > 0.0        ? std::numeric_limits<std::int64_t>::max()
                                                   : kWork + kWorkOfSequence * count;
  packing::Effort effort(work, seconds, options.cancel);
  ChainSearch search(task);
  for (const double factor : kTargets) search.start(factor * lower_bound);
  for (const Draft& seed : seeds) search.start(seed);
  search.improve(effort, lower_bound * (1.0 + std::max(options.target_gap, packing::kOptimalGap)));
  return std::move(search).draft();
}

}  // namespace hetsp::planner
