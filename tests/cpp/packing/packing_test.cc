#include "hetsp/packing/packing.h"

#include "hetsp/base/error.h"
#include "support/check.h"

namespace {
using namespace hetsp::packing;
using hetsp::InvalidArgument;

// Two modes, one second a token on one rank, 0.6 on two.
Instance small() { return {3, 0, {{1, 100, 0.0, 1.0, 0.0}, {2, 200, 0.0, 0.6, 0.0}}, {{50, 0.0}, {60, 0.0}, {70, 0.0}}}; }
Packing good() { return {{{0, {0}}, {1, {1, 2}}}, 78.0}; }
}  // namespace

TEST(makespan_is_the_longest_bin) { CHECK_NEAR(makespan(small(), good().bins), 78.0, 1e-12); }

TEST(check_accepts_a_packing_and_finds_every_damage) {
  hetsp::packing::check(small(), good());
  auto damaged = good();
  damaged.bins[1].items.pop_back();
  CHECK_THROWS(InvalidArgument, "item 2 is in no bin", hetsp::packing::check(small(), damaged));
  damaged = good();
  damaged.bins[0].items[0] = 1;
  CHECK_THROWS(InvalidArgument, "item 1 is in two bins", hetsp::packing::check(small(), damaged));
  damaged = {{{0, {0, 1}}, {1, {2}}}, 110.0};
  CHECK_THROWS(InvalidArgument, "bin 0 holds 110 tokens", hetsp::packing::check(small(), damaged));
  damaged = {{{1, {0}}, {1, {1, 2}}}, 78.0};
  CHECK_THROWS(InvalidArgument, "do not fit on 3 ranks", hetsp::packing::check(small(), damaged));
  damaged = good();
  damaged.makespan = 70.0;
  CHECK_THROWS(InvalidArgument, "makespan is 70", hetsp::packing::check(small(), damaged));
  damaged = good();
  damaged.bins.push_back({0, {}});
  CHECK_THROWS(InvalidArgument, "bin 2 is empty", hetsp::packing::check(small(), damaged));
}

TEST(groups_stand_on_nodes) {
  Instance instance = small();
  instance.ranks = 16, instance.ranks_per_node = 8;
  CHECK(places(instance, {5, 3, 5, 3}));
  CHECK(!places(instance, {5, 5, 5}));        // 15 ranks, but no node holds two of them
  CHECK(places(instance, {10, 6}));           // a whole node and two ranks beside the six
  CHECK(!places(instance, {10, 7}));
  CHECK(places(instance, {16}));
  instance.ranks = 12;                        // the last node has four
  CHECK(places(instance, {8, 4}));
  CHECK(!places(instance, {6, 6}));
}

TEST_MAIN()
