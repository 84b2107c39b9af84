#include "hetsp/planner/strategies/homogeneous.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <set>
#include <vector>

#include "planner/random_step.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

using Packs = std::vector<std::set<int>>;  // members in order of arrival

// The release's homogeneous plan, step by step over a table of packs; `first` is where its last micro-batch begins.
class Release {
 public:
  Release(const Task& task, const Modes::Mode& mode) : task_(task), mode_(mode) {
    const std::int64_t longest_one = longest(task.sequences);
    most_ = std::max(longest_one, static_cast<std::int64_t>(std::floor(0.9L * task.modes.room(mode.degree) + 1e-9L)));
    best_fit_decreasing();
    const std::size_t groups = task.cluster.ranks / mode.degree, used = packs_.size();
    while (packs_.size() % groups != 0) packs_.emplace_back();
    for (std::size_t i = used; i < packs_.size(); ++i) fill(i, used);
    if (mode.degree >= 16 && packs_.size() > used) level(packs_.size() - groups);
  }

  // Sum over micro-batches of the slowest group.
  [[nodiscard]] double seconds() const {
    const std::size_t groups = task_.cluster.ranks / mode_.degree;
    double sum = 0.0;
    for (std::size_t first = 0; first < packs_.size(); first += groups) {
      double slowest = 0.0;
      for (std::size_t g = first; g < first + groups; ++g) {
        double seconds = 0.0;
        for (const int s : packs_[g]) seconds += Modes::seconds(mode_, task_.sequences[s]);
        slowest = std::max(slowest, seconds);
      }
      sum += slowest + task_.cost.micro_batch_seconds;
    }
    return sum;
  }
  [[nodiscard]] const Packs& packs() const { return packs_; }

 private:
  [[nodiscard]] std::int64_t tokens(std::size_t pack) const {
    std::int64_t sum = 0;
    for (const int s : packs_[pack]) sum += task_.sequences[s].tokens;
    return sum;
  }
  void best_fit_decreasing() {
    for (const int s : by_falling_tokens(task_.sequences)) {
      const std::int64_t own = task_.sequences[s].tokens;
      std::optional<std::size_t> best;
      for (std::size_t p = 0; p < packs_.size(); ++p)
        if (tokens(p) + own <= most_ && (!best || tokens(p) > tokens(*best))) best = p;
      if (!best) best = packs_.size(), packs_.emplace_back();
      packs_[*best].insert(s);
    }
  }
  void fill(std::size_t empty, std::size_t used) {
    for (std::size_t from = used; from-- > 0;) {
      if (packs_[from].size() < 2) continue;
      packs_[empty].insert(*packs_[from].begin());
      packs_[from].erase(packs_[from].begin());
      return;
    }
  }
  void level(std::size_t first) {
    std::int64_t total = 0;
    for (std::size_t g = first; g < packs_.size(); ++g) total += tokens(g);
    const std::int64_t mean = total / static_cast<std::int64_t>(packs_.size() - first);
    for (std::size_t to = first + 1; to < packs_.size(); ++to) {
      if (tokens(to) > mean) continue;
      for (std::size_t from = first; from < to; ++from)
        for (int s = 0; s < std::ssize(task_.sequences); ++s) {
          if (tokens(to) >= mean || tokens(from) <= mean || packs_[from].size() < 2) break;
          if (!packs_[from].contains(s) || tokens(to) + task_.sequences[s].tokens > most_) continue;
          packs_[from].erase(s);
          packs_[to].insert(s);
        }
    }
  }

  const Task& task_;
  const Modes::Mode& mode_;
  std::int64_t most_;
  Packs packs_;
};

double seconds_of(const Task& task, const Draft& draft) {
  double sum = 0.0;
  for (const auto& groups : draft.micro_batches) sum += slowest_seconds(task, groups) + task.cost.micro_batch_seconds;
  return sum;
}

bool is_power_of_two(int value) { return (value & (value - 1)) == 0; }

}  // namespace

TEST(homogeneous_plans_are_the_releases) {
  int levelled = 0, adaptive = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    RandomStep step(seed, 60, 40);
    if (seed % 4 == 0) step.cluster.ranks = 64, step.cluster.tokens_per_rank = 4 + static_cast<std::int64_t>(seed % 32);
    for (auto& sequence : step.sequences) sequence.fixed_cost = 0.0;
    check::context() = step.name;
    PlanOptions options{.executable = {"whole", "ring", "ulysses"}, .seed = seed, .exclusive = true};
    const Modes modes(step.cost, step.cluster, options);
    const Task task{step.sequences, step.cluster, step.cost, options, modes};
    if (modes.least_degree(longest(step.sequences)) == 0) continue;

    const Draft all = draft_static(task);
    const Release whole(task, *modes.find(Kind::ulysses, modes.max_degree()));
    std::size_t pack = 0;
    for (const auto& groups : all.micro_batches)
      for (const auto& group : groups) {
        CHECK(group.kind == (group.degree == 1 ? Kind::whole : Kind::ulysses));
        CHECK(std::set<int>(group.sequences.begin(), group.sequences.end()) == whole.packs()[pack++]);
      }

    double least = std::numeric_limits<double>::infinity();
    for (const int degree : modes.degrees()) {
      if (!is_power_of_two(degree) && degree != step.cluster.ranks) continue;
      if (modes.room(degree) < longest(step.sequences)) continue;
      least = std::min(least, Release(task, *modes.find(Kind::ulysses, degree)).seconds());
      levelled += degree >= 16 && step.cluster.ranks >= 2 * degree;
    }
    CHECK_NEAR(seconds_of(task, draft_adaptive(task)), least, 1e-9 * least);
    ++adaptive;
  }
  CHECK(levelled > 20);
  CHECK(adaptive > 200);
}

TEST(a_plan_by_hand) {
  // Two groups of two ranks with room for 40, packed to 36: {30, 5} and {20, 10}.
  const auto sequences = make_workload(std::vector<std::int64_t>{5, 20, 30, 10});
  const CostModel cost{.seconds_per_token = 1.0, .micro_batch_seconds = 1.0};
  const Cluster cluster{4, 0, 20};
  const PlanOptions options{.executable = {"whole", "ulysses"}, .exclusive = true, .degrees = "pow2", .max_degree = 2};
  const Modes modes(cost, cluster, options);
  const Task task{sequences, cluster, cost, options, modes};
  const Draft draft = draft_adaptive(task);
  CHECK_EQ(draft.micro_batches.size(), std::size_t{1});
  CHECK_EQ(draft.micro_batches[0].size(), std::size_t{2});
  CHECK_NEAR(seconds_of(task, draft), 18.5, 1e-12);  // (30 + 5) / 2 + 1
}

TEST(a_given_count_of_micro_batches_takes_the_whole_room) {
  const auto sequences = make_workload(std::vector<std::int64_t>(4, 10));
  const CostModel cost{.seconds_per_token = 1.0, .micro_batch_seconds = 1.0};
  const Cluster cluster{1, 0, 40};
  for (const int asked : {0, 1}) {
    check::context() = "asked for " + std::to_string(asked);
    const PlanOptions options{.executable = {"whole", "ring"}, .exclusive = true, .micro_batches = asked};
    const Modes modes(cost, cluster, options);
    CHECK_EQ(draft_adaptive({sequences, cluster, cost, options, modes}).micro_batches.size(), std::size_t(asked == 0 ? 2 : 1));
  }
  const PlanOptions options{.strategy = "adaptive", .executable = {"whole", "ring"}, .exclusive = true, .micro_batches = 1};
  const Cluster small{1, 0, 39};
  const Modes modes(cost, small, options);
  CHECK_THROWS(PlanInfeasible, "finds no degree at which 4 sequences",
               draft_adaptive({sequences, small, cost, options, modes}));
}

TEST_MAIN()
