#include "hetsp/simulator/fair_share.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "support/check.h"

using namespace hetsp::simulator;

namespace {

std::vector<double> rates(const std::vector<double>& capacities, const std::vector<Bundle>& bundles) {
  std::vector<const Bundle*> pointers;
  for (const auto& bundle : bundles) pointers.push_back(&bundle);
  return fair_rates(capacities, pointers);
}

Bundle over(std::vector<Use> uses) { return {.bytes = 1.0, .start_seconds = 0.0, .uses = std::move(uses)}; }

}  // namespace

TEST(two_flows_on_one_link_halve) {
  const auto got = rates({10.0}, {over({{0, 1.0}}), over({{0, 1.0}})});
  CHECK_NEAR(got[0], 5.0, 1e-12);
  CHECK_NEAR(got[1], 5.0, 1e-12);
  CHECK(std::isinf(rates({10.0}, {over({})})[0]));
}

TEST(what_a_slow_flow_leaves_others_take) {
  // The textbook case: 0 over links 0 and 1, 1 over link 0, 2 over link 1; link 1 is narrow.
  const auto got = rates({10.0, 4.0}, {over({{0, 1.0}, {1, 1.0}}), over({{0, 1.0}}), over({{1, 1.0}})});
  CHECK_NEAR(got[0], 2.0, 1e-12);
  CHECK_NEAR(got[1], 8.0, 1e-12);
  CHECK_NEAR(got[2], 2.0, 1e-12);
  CHECK_NEAR(rates({10.0}, {over({{0, 4.0}}), over({{0, 1.0}})})[0], 2.0, 1e-12);  // 4 messages of the one, 1 of the other
}

TEST(no_link_is_overfull_and_every_flow_has_a_full_one_where_it_is_among_the_fastest) {
  std::mt19937_64 random(5);
  for (int trial = 0; trial < 200; ++trial) {
    check::context() = "trial " + std::to_string(trial);
    const int links = 1 + static_cast<int>(random() % 8), flows = 1 + static_cast<int>(random() % 10);
    std::vector<double> capacities(links);
    for (auto& capacity : capacities) capacity = 1.0 + static_cast<double>(random() % 100);
    std::vector<Bundle> bundles;
    for (int flow = 0; flow < flows; ++flow) {
      Bundle bundle = over({});
      for (int link = 0; link < links; ++link) {
        if (random() % 3 == 0 || (link == links - 1 && bundle.uses.empty()))
          bundle.uses.push_back({link, 0.25 * static_cast<double>(1 + random() % 8)});
      }
      bundles.push_back(bundle);
    }
    const auto got = rates(capacities, bundles);
    std::vector<double> load(links), fastest(links);
    for (int flow = 0; flow < flows; ++flow) {
      for (const auto& use : bundles[flow].uses) {
        load[use.resource] += use.weight * got[flow];
        fastest[use.resource] = std::max(fastest[use.resource], got[flow]);
      }
    }
    for (int link = 0; link < links; ++link) CHECK(load[link] <= capacities[link] * (1 + 1e-9));
    for (int flow = 0; flow < flows; ++flow) {
      bool bottleneck = false;  // the definition of max-min fairness
      for (const auto& use : bundles[flow].uses) {
        const int link = use.resource;
        bottleneck |= load[link] >= capacities[link] * (1 - 1e-9) && got[flow] >= fastest[link] * (1 - 1e-9);
      }
      CHECK(bottleneck);
    }
  }
}

TEST_MAIN()
