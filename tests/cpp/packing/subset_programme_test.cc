#include "hetsp/packing/subset_programme.h"

#include <cmath>
#include <string>

#include "hetsp/base/error.h"
#include "packing/brute_force.h"
#include "packing/random_instance.h"
#include "support/check.h"

using namespace hetsp::packing;

TEST(equals_trying_everything) {
  int solved = 0, impossible = 0;
  for (unsigned seed = 0; seed < 1500; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    Instance instance = random_instance(seed, 6);
    if (seed % 3 == 0) instance.ranks_per_node = 1 + static_cast<int>(seed / 3 % 4);
    const double best = brute_force_makespan(instance);
    SubsetProgramme programme(instance);
    Effort effort;
    CHECK(programme.solve(effort));
    CHECK(programme.makespan() <= best * (1 + 1e-12));
    if (instance.ranks_per_node == 0) {
      CHECK(std::isinf(best) == std::isinf(programme.makespan()));
      CHECK(std::isinf(best) || programme.packing().has_value());
    }
    if (!programme.packing()) {
      impossible += std::isinf(best);
      continue;
    }
    hetsp::packing::check(instance, *programme.packing());
    CHECK_NEAR(programme.packing()->makespan, best, 1e-9 * std::max(1.0, best));
    ++solved;
  }
  CHECK(solved > 800 && impossible > 20);
}

TEST(twelve_items_and_no_more) {
  Instance instance = random_instance(1, 6);
  instance.ranks = 9;
  instance.items.assign(SubsetProgramme::kMost, {3, 9.0});
  SubsetProgramme programme(instance);
  Effort effort, spent(10);
  CHECK(programme.solve(effort));
  if (programme.packing()) hetsp::packing::check(instance, *programme.packing());
  CHECK(!programme.solve(spent));
  instance.items.push_back({3, 9.0});
  CHECK_THROWS(hetsp::InvalidArgument, "13 items", SubsetProgramme(instance));
}

TEST_MAIN()
