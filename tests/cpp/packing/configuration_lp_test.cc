#include "hetsp/packing/configuration_lp.h"

#include <cmath>
#include <functional>
#include <random>
#include <string>

#include "hetsp/lp/simplex.h"
#include "hetsp/packing/item_types.h"
#include "packing/brute_force.h"
#include "packing/random_instance.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::packing;

namespace {

// The LP with every column there is.
double enumerated(const Instance& instance, const ItemTypes& types, double T) {
  lp::Model model;
  for (const auto count : types.count) model.add_row(count, lp::kInfinity);
  for (const Mode& mode : instance.modes) {
    std::vector<lp::Entry> entries;
    const std::function<void(int, double, std::int64_t)> extend = [&](int type, double seconds, std::int64_t tokens) {
      if (type == types.size()) {
        if (!entries.empty()) model.add_column(mode.ranks, 0.0, lp::kInfinity, entries);
        return;
      }
      extend(type + 1, seconds, tokens);
      for (int times = 1; times <= types.count[type]; ++times) {
        seconds += mode.seconds(types.item[type]), tokens += types.item[type].tokens;
        if (seconds > T * (1 + 1e-12) || tokens > mode.room) break;
        entries.push_back({type, static_cast<double>(times)});
        extend(type + 1, seconds, tokens);
        entries.pop_back();
      }
    };
    extend(0, 0.0, 0);
  }
  lp::Simplex simplex(model);
  return simplex.solve() == lp::Status::optimal ? simplex.objective() : lp::kInfinity;
}

}  // namespace

TEST(value_is_that_of_all_columns) {
  for (unsigned seed = 0; seed < 1500; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Instance instance = random_instance(seed, 10);
    const ItemTypes types = make_types(instance.items);
    const double whole = enumerated(instance, types, 1e9);
    for (const double T : {1.0, 3.0, 7.0, 20.0}) {
      const double truth = enumerated(instance, types, T);
      ConfigurationLp lp(instance.modes, types.item);
      Effort effort;
      const auto verdict = lp.solve(T, types.count, 0.0, effort, 1 << 20);  // no ranks at all: goes on to the end
      if (types.size() == 0) {
        CHECK(verdict == ConfigurationLp::Verdict::feasible);
        continue;
      }
      if (std::isinf(truth)) {
        CHECK(verdict == ConfigurationLp::Verdict::refuted && std::isinf(lp.bound()));
        continue;
      }
      CHECK(verdict == ConfigurationLp::Verdict::refuted);
      CHECK(lp.bound() <= truth * (1 + 1e-9));
      CHECK(lp.value() >= truth * (1 - 1e-9) && truth >= whole * (1 - 1e-9));
      // With a budget a little below and above the truth.
      Effort more;
      CHECK(ConfigurationLp(instance.modes, types.item).solve(T, types.count, truth * 1.0001, more, 1 << 20) !=
            ConfigurationLp::Verdict::refuted);
      const auto below = ConfigurationLp(instance.modes, types.item).solve(T, types.count, truth * 0.9995, more, 1 << 20);
      CHECK(below == ConfigurationLp::Verdict::refuted);
    }
  }
}

TEST(a_plan_is_never_refuted_whatever_was_solved_before) {
  for (unsigned seed = 0; seed < 1500; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Instance instance = random_instance(seed, 7);
    const double best = brute_force_makespan(instance);
    if (std::isinf(best)) continue;
    for (const double width : {0.0, 0.2}) {
      const ItemTypes types = make_types(instance.items, width);
      ConfigurationLp lp(instance.modes, types.item);  // one object for all makespans, up and down
      for (const double factor : {1.5, 0.7, 1.0, 0.95, 3.0, 1.0}) {
        Effort effort;
        const auto verdict = lp.solve(best * factor, types.count, instance.ranks, effort, factor < 1.2 ? 1 << 20 : 50);
        if (factor >= 1.0) CHECK(verdict != ConfigurationLp::Verdict::refuted);
      }
    }
  }
}

TEST(a_centre_and_known_groups_change_the_way_and_not_the_answer) {
  int by_centre = 0;
  for (unsigned seed = 0; seed < 1500; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    const Instance instance = random_instance(seed, 10);
    const ItemTypes types = make_types(instance.items);
    for (const double T : {3.0, 7.0, 20.0}) {
      const double truth = enumerated(instance, types, T);
      if (std::isinf(truth) || truth == 0.0) continue;
      ConfigurationLp lp(instance.modes, types.item);
      std::vector<double> profits(types.size());
      for (double& profit : profits) profit = 1e-2 * static_cast<double>(random() % 100);
      lp.set_centre(profits);
      for (int column = 0; column < 3; ++column) {
        Fill fill;
        for (int i = 0; i < types.size(); ++i)
          if (random() % 2 == 0 && types.item[i].tokens <= instance.modes.back().room) fill.emplace_back(i, 1);
        std::int64_t tokens = 0;
        for (const auto& [type, count] : fill) tokens += count * types.item[type].tokens;
        if (tokens <= instance.modes.back().room)
          lp.add_until(T, {static_cast<std::int32_t>(instance.modes.size()) - 1, 0.0, fill});
      }
      Effort effort;
      CHECK(lp.solve(T, types.count, truth * 1.0001, effort, 1 << 20) != ConfigurationLp::Verdict::refuted);
      CHECK(lp.solve(T, types.count, truth * 0.9995, effort, 1 << 20) == ConfigurationLp::Verdict::refuted);
      CHECK(lp.bound() <= truth * (1 + 1e-9) && lp.value() >= truth * (1 - 1e-9));
      CHECK(!lp.centre_refutes(T, types.count, truth * 1.0001, effort, 1 << 20));
      by_centre += lp.centre_refutes(T, types.count, truth * 0.9, effort, 1 << 20);
    }
  }
  CHECK(by_centre > 500);
}

// So many columns in the first rounds that no round prices every mode: there is no bound yet to begin a centre with.
TEST(many_modes_without_a_centre) {
  Instance instance{200, 0, {}, {}};
  for (std::int32_t d = 1; d <= 40; ++d) instance.modes.push_back({d, 100 * d, 1e-4 / d, (1.0 + (d > 1 ? 0.2 : 0.0)) / d, 0.0});
  std::mt19937 random(3);
  for (int i = 0; i < 120; ++i) {
    const auto s = static_cast<std::int64_t>(1 + random() % (i < 20 ? 900 : 90));
    instance.items.push_back({s, static_cast<double>(s * s)});
  }
  const ItemTypes types = make_types(instance.items);
  ConfigurationLp lp(instance.modes, types.item), again(instance.modes, types.item);
  Effort effort;
  CHECK(lp.solve(90.0, types.count, 0.0, effort, 1 << 16) == ConfigurationLp::Verdict::refuted);
  again.set_centre(std::vector<double>(types.size(), 1.0));
  CHECK(again.solve(90.0, types.count, lp.value() * 1.0001, effort, 1 << 16) != ConfigurationLp::Verdict::refuted);
}

// Whatever ended solve(), what it leaves covers all that is needed: pricing may have added columns since the LP was solved.
TEST(a_solution_covers_what_is_needed_wherever_it_was_cut_off) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Instance instance = random_instance(seed, 12);
    const ItemTypes types = make_types(instance.items);
    ConfigurationLp lp(instance.modes, types.item);
    for (const int work : {40, 200, 1000, 100'000}) {
      Effort effort(work);
      if (std::isinf(enumerated(instance, types, 7.0))) continue;
      (void)lp.solve(7.0, types.count, 1e-3, effort);
      if (std::isinf(lp.value())) continue;  // the effort was over before the LP was
      std::vector<double> covered(types.size(), 0.0);
      for (const auto& [column, x] : lp.solution())
        for (const auto& [type, count] : column.fill) covered[type] += x * count;
      for (int i = 0; i < types.size(); ++i) CHECK(covered[i] >= types.count[i] * (1 - 1e-6));
    }
  }
}

TEST(a_spent_effort_claims_nothing) {
  const Instance instance{8, 0, {{1, 100, 0.0, 1.0, 0.0}, {2, 200, 0.0, 0.7, 0.0}}, {}};
  ConfigurationLp lp(instance.modes, {{60, 0.0}, {50, 0.0}, {30, 0.0}});
  Effort effort(1);
  CHECK(lp.solve(65.0, {5, 5, 5}, 1.0, effort) == ConfigurationLp::Verdict::unknown);
}

TEST_MAIN()
