#include "hetsp/packing/need.h"

#include <limits>
#include <string>

#include "packing/corner_instance.h"
#include "support/check.h"

namespace {
using namespace hetsp::packing;

// The first size that has a mode which holds the set and ends by T: what Need must find without trying all.
std::int32_t first_that_fits(const Instance& instance, const Sums& sums, double target) {
  std::int32_t size = -1, ranks = 0;
  for (const Mode& mode : instance.modes) {
    if (mode.ranks != ranks) ++size, ranks = mode.ranks;
    const double seconds = mode.per_pair * sums.pairs + mode.per_token * static_cast<double>(sums.tokens) +
                           mode.per_item * static_cast<double>(sums.items);
    if (seconds <= target && sums.tokens <= mode.room) return size;
  }
  return size + 1;
}
}  // namespace

TEST(the_least_size_is_the_first_that_fits) {
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const Instance instance = corner_instance::make(seed, 12, 30);
    Need need(instance);
    Sums sums;
    for (std::size_t i = 0; i < instance.items.size(); ++i) {
      sums.add(instance.items[i]);
      for (const double target : {0.013, 0.17, 1.9, std::numeric_limits<double>::infinity()}) {
        check::context() =
            "seed " + std::to_string(seed) + " items " + std::to_string(i + 1) + " target " + std::to_string(target);
        need.set_target(target);
        const auto size = need.least(sums);
        CHECK(size >= first_that_fits(instance, sums, target * (1.0 + 1e-12)));
        CHECK(size <= first_that_fits(instance, sums, target * (1.0 - 1e-12)));
        if (size == need.sizes()) continue;
        CHECK(need.load(size, sums) <= 1.0);
        CHECK(instance.modes[need.mode(size, sums)].ranks == need.ranks(size));
        CHECK(need.cost(size, sums) <= need.ranks(size));
        CHECK(need.cost(size, sums) >= (size == 0 ? 0 : need.ranks(size - 1)));
      }
    }
  }
}

TEST(a_room_that_is_filled_exactly_fits_and_one_token_more_does_not) {
  for (const std::int64_t room : {std::int64_t{1}, std::int64_t{410'048}, std::int64_t{999'999'999'999}}) {
    const Instance instance{1, 0, {{1, room, 0.0, 0.0, 0.0}}, {}};
    const Need need(instance);
    CHECK(need.least({0.0, room, 3}) == 0);
    CHECK(need.least({0.0, room + 1, 3}) == 1);
  }
}

TEST(cost_rises_from_the_size_below_to_its_own) {
  const Instance instance{8, 0, {{2, 200, 0.0, 0.5, 0.0}, {4, 400, 0.0, 0.25, 0.0}}, {}};
  Need need(instance);
  need.set_target(100.0);
  double before = need.cost(0, {0.0, 199, 1});
  CHECK(before < 2.0 && before > 1.99);
  for (std::int64_t tokens = 201; tokens <= 400; tokens += 10) {
    const double cost = need.cost(1, {0.0, tokens, 1});
    CHECK(cost > before);
    before = cost;
  }
  CHECK_NEAR(need.cost(1, {0.0, 400, 1}), 4.0, 1e-12);
}

TEST_MAIN()
