#include "hetsp/planner/chain_search.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>

#include "hetsp/planner/named_drafts.h"
#include "hetsp/planner/offload.h"
#include "hetsp/planner/pack_step.h"
#include "hetsp/planner/plan_check.h"
#include "hetsp/planner/presets.h"
#include "planner/random_step.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

PlanOptions options_of(std::uint64_t seed) {
  PlanOptions options;
  options.degrees = seed % 2 == 0 ? "any" : "pow2";
  options.exclusive = true;
  options.synchronisation = Synchronisation::step;
  options.work_limit = 200'000;
  options.seed = seed;
  return options;
}

// Every order of the sequences, and for each every set of ranks: groups of one sequence, each as soon as its ranks are free.
class AllSchedules {
 public:
  explicit AllSchedules(const Task& task) : task_(task), free_at_(task.cluster.ranks), done_(task.sequences.size()) {}
  double least() {
    place(0, 0.0);
    return least_;
  }

 private:
  void place(std::size_t count, double makespan) {
    if (makespan >= least_) return;
    if (count == done_.size()) {
      least_ = makespan;
      return;
    }
    for (std::size_t s = 0; s < done_.size(); ++s) {
      if (done_[s]) continue;
      done_[s] = true;
      for (unsigned set = 1; set < 1u << task_.cluster.ranks; ++set) on(set, s, count, makespan);
      done_[s] = false;
    }
  }
  void on(unsigned set, std::size_t s, std::size_t count, double makespan) {
    int degree = 0;
    double begin = 0.0;
    for (std::size_t r = 0; r < free_at_.size(); ++r)
      if (set >> r & 1u) ++degree, begin = std::max(begin, free_at_[r]);
    const auto* mode = task_.modes.find(Kind::ring, degree);
    if (mode == nullptr || task_.modes.room(degree) < task_.sequences[s].tokens) return;
    const double end = begin + Modes::seconds(*mode, task_.sequences[s]);
    const auto before = free_at_;
    for (std::size_t r = 0; r < free_at_.size(); ++r)
      if (set >> r & 1u) free_at_[r] = end;
    place(count + 1, std::max(makespan, end));
    free_at_ = before;
  }

  const Task& task_;
  std::vector<double> free_at_;
  std::vector<bool> done_;
  double least_ = std::numeric_limits<double>::infinity();
};

Plan plan_of(const Task& task, Draft draft) {
  Plan plan = price(task, std::move(draft));
  planner::check(plan, task.cluster);
  return plan;
}

}  // namespace

TEST(small_steps_end_up_at_the_best_of_all_schedules) {
  int optimal = 0, tried = 0;
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    RandomStep step(seed, 5, 3);
    for (auto& sequence : step.sequences) sequence.fixed_cost = 0.0;
    step.cost.micro_batch_seconds = 0.0;  // so that groups of one sequence are as good as any
    const PlanOptions options = options_of(seed);
    const Modes modes(step.cost, step.cluster, options);
    const Task task{step.sequences, step.cluster, step.cost, options, modes};
    check::context() = step.name;
    if (modes.least_degree(longest(step.sequences)) == 0) continue;
    const double bound = area_bound(task);
    const Plan plan = plan_of(task, search_chains(task, {}, bound, 0.0));
    const double least = AllSchedules(task).least();
    CHECK(bound <= least * (1 + 1e-9) + 1e-12);
    CHECK(plan.makespan >= least * (1 - 1e-9) - 1e-12);
    CHECK(plan.makespan <= 1.34 * least + 1e-12);  // 4/3, what LPT alone promises for whole sequences
    optimal += plan.makespan <= least * (1 + 1e-9) + 1e-12;
    ++tried;
  }
  CHECK(tried > 100);
  CHECK(optimal > tried * 9 / 10);
}

TEST(sequences_offload_what_computation_hides_and_no_more) {
  const Preset& setting = preset("bytescale-7b");
  int better = 0;
  for (std::uint64_t seed = 300; seed < 312; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937_64 random(seed);
    std::vector<std::int64_t> lengths;
    for (int i = 0; i < 60; ++i) lengths.push_back(static_cast<std::int64_t>(random() % (i % 10 ? 12'000 : 200'000)));
    const auto sequences = setting.workload(lengths);
    PlanOptions options = options_of(seed);
    options.executable = setting.executable;
    const auto makespan = [&](bool host) {
      Cluster cluster = setting.cluster(32, 1 << 18);
      if (!host) cluster.host = {};
      const Modes modes(setting.cost, cluster, options);
      const Task task{sequences, cluster, setting.cost, options, modes};
      const Plan plan = plan_of(task, search_chains(task, {}, area_bound(task), 0.0));
      CHECK(area_bound(task) <= plan.makespan * (1 + 1e-9));
      for (const auto& micro_batch : plan.micro_batches)
        for (const auto& group : micro_batch.groups)
          for (const auto s : group.sequences)
            CHECK(group.offload_ratio <= hidden_ratio(sequences[s.value()], setting.cost, cluster.host));
      return plan.makespan;
    };
    const double with = makespan(true), without = makespan(false);
    better += with < 0.99 * without;
    CHECK(with <= 1.01 * without);
  }
  CHECK(better > 4);
}

TEST(equal_arguments_give_equal_chains) {
  for (std::uint64_t seed = 200; seed < 210; ++seed) {
    RandomStep step(seed, 40, 12);
    for (auto& sequence : step.sequences) sequence.fixed_cost = 0.0;
    const PlanOptions options = options_of(0);
    const Modes modes(step.cost, step.cluster, options);
    const Task task{step.sequences, step.cluster, step.cost, options, modes};
    check::context() = step.name;
    const auto made = [&] { return digest(plan_of(task, search_chains(task, {}, area_bound(task), 0.0))); };
    CHECK_EQ(made(), made());
  }
}

TEST_MAIN()
