#include "hetsp/packing/instance.h"

#include <limits>

#include "hetsp/base/error.h"
#include "support/check.h"

namespace {
using namespace hetsp::packing;
using hetsp::InvalidArgument;

Instance small() { return {4, 0, {{1, 100, 1e-6, 1e-3, 0.0}, {2, 200, 6e-7, 6e-4, 0.1}}, {{50, 2500.0}, {0, 0.0}}}; }
}  // namespace

TEST(seconds_are_linear_in_pairs_and_tokens) {
  const Instance instance = small();
  CHECK_NEAR(instance.modes[1].seconds(instance.items[0]), 2500 * 6e-7 + 50 * 6e-4 + 0.1, 1e-15);
  CHECK(instance.modes[0].seconds(instance.items[1]) == 0.0);
}

TEST(check_names_what_is_wrong) {
  hetsp::packing::check(small());
  auto broken = small();
  broken.ranks = 0;
  CHECK_THROWS(InvalidArgument, "ranks is 0", hetsp::packing::check(broken));
  broken = small();
  broken.modes[0].ranks = 3;
  CHECK_THROWS(InvalidArgument, "mode 1 has 2 ranks and follows 3", hetsp::packing::check(broken));
  broken = small();
  broken.modes[1].per_item = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS(InvalidArgument, "mode 1", hetsp::packing::check(broken));
  broken = small();
  broken.items[1].tokens = -1;
  CHECK_THROWS(InvalidArgument, "item 1 has -1 tokens", hetsp::packing::check(broken));
  broken = small();
  broken.modes.clear();
  CHECK_THROWS(InvalidArgument, "no modes", hetsp::packing::check(broken));
}

TEST(rooms_that_groups_can_fill) {
  auto instance = small();
  instance.items = {{48, 0.0}, {0, 0.0}, {32, 0.0}};
  const auto whole = with_whole_rooms(instance);
  CHECK(whole.modes[0].room == 96 && whole.modes[1].room == 192 && whole.ranks == instance.ranks);
  instance.items.push_back({7, 0.0});
  CHECK(with_whole_rooms(instance).modes[0].room == 100);
  instance.items = {{0, 1.0}};
  CHECK(with_whole_rooms(instance).modes[1].room == 200);
}

TEST_MAIN()
