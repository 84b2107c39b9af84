#include "hetsp/packing/level_tree.h"

#include <cmath>
#include <string>

#include "packing/random_programme.h"
#include "support/check.h"

using namespace hetsp::packing;

namespace {

bool whole(const LevelTree::Choice& choice) {
  for (const auto& part : choice.parts)
    if (std::abs(part.times - std::round(part.times)) > 1e-5) return false;
  return true;
}

}  // namespace

TEST(the_first_whole_choice_is_the_cheapest) {
  int solved = 0, impossible = 0, split = 0;
  for (unsigned seed = 0; seed < 600; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const int fewest = 2 + static_cast<int>(seed % 4);
    const RandomProgramme random(seed, 5, fewest, fewest + static_cast<int>(seed % 2));
    const double best = random.optimum();
    LevelTree tree(random.programme, 1);
    const bool at_once = seed % 2 == 0;  // else rows come one by one, as a choice breaks them
    if (at_once)
      for (const auto& row : random.rows) tree.add(row);
    Effort effort;
    double last = 0.0;
    for (;;) {
      const auto choice = tree.next(1e6, effort);
      CHECK(tree.bound() >= last - 1e-7);
      last = tree.bound();
      CHECK(last <= best + 1e-6);
      if (choice.parts.empty()) {
        CHECK(std::isinf(best));
        ++impossible;
        break;
      }
      bool broken = false;
      for (const auto& row : random.rows) {
        double earned = 0.0;
        for (const auto& part : choice.parts) earned += part.times * row.earned(part.kind, part.level);
        if (earned >= row.need - 1e-5 * std::max(1.0, row.need)) continue;
        CHECK(!at_once);
        tree.add(row);
        broken = true;
        break;
      }
      if (broken) continue;
      if (tree.split(choice)) {
        CHECK(!whole(choice));
        ++split;
        continue;
      }
      CHECK(whole(choice));
      CHECK_NEAR(choice.cost, best, 1e-5);
      ++solved;
      break;
    }
  }
  CHECK(solved > 200 && impossible > 20 && split > 100);
}

TEST(nothing_below_the_best_known) {
  for (unsigned seed = 0; seed < 100; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const RandomProgramme random(seed, 5, 2, 3);
    const double best = random.optimum();
    if (std::isinf(best)) continue;
    LevelTree tree(random.programme, 1);
    for (const auto& row : random.rows) tree.add(row);
    Effort effort;
    for (;;) {
      const auto choice = tree.next(best * (1.0 - 1e-6), effort);
      if (choice.parts.empty()) break;
      if (!tree.split(choice)) CHECK(choice.cost >= best - 1e-5);
    }
    CHECK(std::isinf(tree.bound()));
  }
}

TEST_MAIN()
