#include "hetsp/packing/surrogate_bound.h"

#include <cmath>
#include <random>
#include <string>

#include "hetsp/lp/simplex.h"
#include "hetsp/packing/area_bound.h"
#include "packing/brute_force.h"
#include "packing/random_instance.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::packing;

namespace {

// The ranks that the fluid needs, by the simplex method.
double fluid_ranks(const Instance& instance, const ItemTypes& types, double T) {
  lp::Model model;
  for (const auto count : types.count) model.add_row(count, lp::kInfinity);
  for (const Mode& mode : instance.modes) {
    const int time = model.add_row(0.0, lp::kInfinity), room = model.add_row(0.0, lp::kInfinity);
    const lp::Entry group[] = {{time, T}, {room, static_cast<double>(mode.room)}};
    model.add_column(mode.ranks, 0.0, lp::kInfinity, group);
    for (int i = 0; i < types.size(); ++i) {
      const Item& item = types.item[i];
      if (mode.seconds(item) > T * (1.0 + 1e-12) || item.tokens > mode.room) continue;
      const lp::Entry part[] = {{i, 1.0}, {time, -mode.seconds(item)}, {room, -static_cast<double>(item.tokens)}};
      model.add_column(0.0, 0.0, lp::kInfinity, part);
    }
  }
  lp::Simplex simplex(model);
  return simplex.solve() == lp::Status::optimal ? simplex.objective() : lp::kInfinity;
}

Instance two_modes(std::int32_t ranks, const std::vector<Item>& items) {
  return {ranks, 0, {{1, 50, 0.0, 1.0, 0.0}, {2, 100, 0.0, 0.6, 0.0}}, items};
}

}  // namespace

TEST(ranks_by_hand) {
  // By 60 s a token takes 1/60 of one rank's time or 0.02 of the time of two, and 1/50 of a rank's room in either.
  const Instance instance = two_modes(4, {{20, 0.0}, {20, 0.0}, {70, 0.0}});
  SurrogateBound bound(instance, make_types(instance.items));
  CHECK_NEAR(bound.ranks(60.0), 40.0 / 60 + 70 * 1.2 / 60, 1e-12);  // m = 0: the area
  bound.set_multipliers({1.0, 1.0});
  CHECK_NEAR(bound.ranks(60.0), 110.0 / 50, 1e-12);
  bound.set_multipliers({0.5, 0.0});
  CHECK_NEAR(bound.ranks(60.0), 40 * (0.5 / 60 + 0.5 / 50) + 70 * 1.2 / 60, 1e-12);
  CHECK_NEAR(bound.profit({70, 0.0}, 60.0), 70 * 1.2 / 60, 1e-12);
  CHECK(std::isinf(bound.ranks(41.9)) && std::isinf(bound.profit({70, 0.0}, 41.9)));
  CHECK_NEAR(bound.ascend(60.0), 40.0 / 50 + 70.0 / 50, 1e-9);  // room is scarcer than time in both modes
  CHECK_NEAR(bound.ascend(45.0), 40.0 / 45 + 70 * 1.2 / 45, 1e-9);  // time is
  CHECK_NEAR(bound.makespan(), 42.0, 1e-6);                            // 124 / 4 = 31, but the longest takes 42
}

TEST(memory_makes_a_mode_dearer_than_its_time) {
  // Room decides on small groups, time on large ones: the area alone takes the small ones to be free of memory.
  const Instance instance{8, 0, {{1, 10, 0.0, 0.1, 0.0}, {2, 40, 0.0, 0.5, 0.0}}, std::vector<Item>(10, Item{10, 0.0})};
  const double area = AreaBound(instance, make_types(instance.items)).makespan();
  SurrogateBound bound(instance, make_types(instance.items));
  CHECK_NEAR(area, 100 * 0.1 / 8, 1e-6);
  // x of the 100 tokens on pairs take x / T ranks where T < 20, the others (100 - x) / 10: at most 8 in all from 12.5 s on.
  CHECK_NEAR(bound.makespan(), 12.5, 1e-6);
  CHECK_NEAR(surrogate_makespan(instance).seconds, 12.5, 1e-6);
}

TEST(never_above_the_least_makespan_nor_below_the_area) {
  int tight = 0, better = 0;
  for (unsigned seed = 0; seed < 3000; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Instance instance = random_instance(seed, 6);
    const double best = brute_force_makespan(instance), area = AreaBound(instance, make_types(instance.items)).makespan();
    const SurrogateMakespan all = surrogate_makespan(instance);
    CHECK(all.seconds <= best && all.seconds >= area * (1.0 - 1e-8));
    tight += std::isfinite(best) && all.seconds > 0.95 * best;
    better += std::isfinite(best) && all.seconds > 1.01 * area;
    for (const double width : {0.1, 0.5}) CHECK(SurrogateBound(instance, make_types(instance.items, width)).makespan() <= best);
  }
  CHECK(tight > 500);
  CHECK(better > 100);
}

TEST(multipliers_prove_no_more_than_the_fluid_and_ascent_ends_near_it) {
  int cases = 0, met = 0;
  for (unsigned seed = 0; seed < 1500; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    const Instance instance = random_instance(seed, 12);
    const ItemTypes types = make_types(instance.items);
    SurrogateBound bound(instance, types);
    for (const double T : {1.0, 3.0, 7.0, 20.0}) {
      const double fluid = fluid_ranks(instance, types, T);
      if (std::isinf(fluid)) {
        CHECK(std::isinf(bound.ranks(T)));
        continue;
      }
      std::vector<double> m(instance.modes.size());
      for (double& each : m)
        each = random() % 4 == 0 ? static_cast<double>(random() % 2) : 1e-3 * static_cast<double>(random() % 1001);
      bound.set_multipliers(m);
      const double drawn = bound.ranks(T), raised = bound.ascend(T);
      CHECK(drawn <= raised * (1 + 1e-12) && raised <= fluid * (1 + 1e-9) + 1e-12);
      CHECK_NEAR(bound.ranks(T), raised, 1e-9 * (1 + raised));
      double sum = 0.0;
      for (int i = 0; i < types.size(); ++i) sum += types.count[i] * bound.profit(types.item[i], T);
      CHECK_NEAR(sum, raised, 1e-9 * (1 + raised));
      ++cases;
      met += raised >= fluid * (1 - 1e-4) - 1e-9;
    }
  }
  CHECK(cases > 2500);
  CHECK(met > cases * 97 / 100);
}

TEST(the_makespan_is_the_largest_that_its_multipliers_refute) {
  for (unsigned seed = 0; seed < 1000; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Instance instance = random_instance(seed, 20);
    SurrogateBound bound(instance, make_types(instance.items));
    const double proven = bound.makespan();
    if (std::isinf(proven) || proven == 0.0) continue;
    CHECK(bound.ranks(proven * (1.0 - 1e-8)) > instance.ranks);
    CHECK(bound.ranks(proven * (1.0 + 1e-6)) <= instance.ranks * (1.0 + 1e-9));
    CHECK(bound.makespan(false) >= proven && bound.makespan() >= proven);
  }
}

TEST(many_modes_share_multipliers) {
  Instance instance{300, 0, {}, {}};
  for (std::int32_t d = 1; d <= 300; ++d)
    instance.modes.push_back({d, 900 * d, 1e-6 / d, (1e-3 + (d > 8 ? 4e-4 : d > 1 ? 1e-4 : 0.0)) / d, 0.0});
  std::mt19937 random(7);
  for (int i = 0; i < 150; ++i) {
    const auto s = static_cast<std::int64_t>(std::exp(4.0 + 1e-3 * static_cast<double>(random() % 5000)));
    instance.items.push_back({s, static_cast<double>(s) * static_cast<double>(s)});
  }
  const ItemTypes types = make_types(instance.items, 0.02);
  SurrogateBound bound(instance, types);
  const double proven = bound.makespan(), all = surrogate_makespan(instance).seconds,
               area = AreaBound(instance, types).makespan();
  CHECK(proven >= area * (1.0 - 1e-8) && all >= proven * 0.999);
  CHECK(fluid_ranks(instance, types, proven) >= instance.ranks * (1.0 - 1e-7));
  CHECK(fluid_ranks(instance, types, proven * 1.01) <= instance.ranks);
}

TEST(nothing_to_bound) {
  const auto of = [](const std::vector<Item>& items) { return surrogate_makespan(two_modes(2, items)).seconds; };
  CHECK(of({}) == 0.0);
  CHECK(of({{0, 5.0}}) == 0.0);           // items that take no time
  CHECK(std::isinf(of({{101, 0.0}})));    // no mode holds it
  CHECK(std::isinf(of({{90, 0.0}, {90, 0.0}})));  // 180 tokens on ranks that hold 100
}

TEST_MAIN()
