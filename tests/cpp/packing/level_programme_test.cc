#include "hetsp/packing/level_programme.h"

#include <cmath>
#include <string>

#include "packing/random_programme.h"
#include "support/check.h"

using namespace hetsp::packing;

TEST(the_cheapest_of_all_choices) {
  int solved = 0, impossible = 0;
  for (unsigned seed = 0; seed < 2000; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const int fewest = 1 + static_cast<int>(seed % 3), most = fewest + static_cast<int>(seed / 3 % (4 - fewest));
    const RandomProgramme random(seed, 6, fewest, most);
    const double best = random.optimum(), upper = 1e6;
    Effort effort;
    const auto choice = enumerate(random.programme, random.rows, most, upper, effort);
    CHECK(choice.parts.empty() == std::isinf(best));
    CHECK_NEAR(choice.cost, std::min(best, upper), 1e-9);
    (std::isinf(best) ? impossible : solved) += 1;
    if (std::isinf(best)) continue;
    double cost = 0.0;
    int hosts = 0;
    for (const auto& part : choice.parts) cost += random.programme.cost[part.level], hosts += part.kind >= 0;
    CHECK_NEAR(cost, best, 1e-9);
    CHECK(hosts == 1);
    for (const auto& row : random.rows) {
      double earned = 0.0;
      for (const auto& part : choice.parts) earned += row.earned(part.kind, part.level);
      CHECK(earned >= row.need - 1e-6);
    }
    const auto none = enumerate(random.programme, random.rows, most, best, effort);
    CHECK(none.parts.empty() && none.cost == best);
  }
  CHECK(solved > 500 && impossible > 100);
}

TEST(spent_effort_ends_it) {
  const RandomProgramme random(3, 6, 3, 3);
  Effort effort(1);
  effort.spend(1);
  const auto choice = enumerate(random.programme, random.rows, 3, 1e6, effort);
  CHECK(effort.spent() && choice.cost <= 1e6);
}

TEST_MAIN()
