#include "hetsp/planner/network.h"

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

const Network kNodes{.intra_node = {100.0, 0.25}, .inter_node = {10.0, 0.5}, .nics_per_node = 2};  // bytes/s

}  // namespace

TEST(inside_a_node_only_its_own_links_count) {
  for (int node : {0, 8}) {
    const Crossing crossing(kNodes, 4, node);
    CHECK_NEAR(crossing.all_to_all(), 0.01, 1e-15);
    CHECK_NEAR(crossing.ring_hop(), 0.01, 1e-15);
    CHECK_NEAR(crossing.all_gather(), 0.01, 1e-15);
    CHECK_EQ(crossing.start_seconds(), 0.25);
  }
  const Crossing alone(kNodes, 1, 8);
  CHECK_EQ(alone.all_to_all() + alone.ring_hop() + alone.all_gather() + alone.start_seconds(), 0.0);
}

TEST(two_whole_nodes) {
  const Crossing crossing(kNodes, 8, 4);
  // Each rank sends 4/7 of its bytes out; the 4 ranks of a node share 2 NICs, 5 bytes/s each.
  CHECK_NEAR(crossing.all_to_all(), 4.0 / 7.0 / 5.0, 1e-15);
  CHECK_NEAR(crossing.ring_hop(), 0.1, 1e-15);        // one rank of a node sends out, over one NIC
  CHECK_NEAR(crossing.ring_hop(2), 0.1, 1e-15);       // two ranks, two NICs
  CHECK_NEAR(crossing.ring_hop(4), 0.2, 1e-15);       // four ranks, two NICs
  CHECK_NEAR(crossing.all_gather(), 1.0 / 20.0, 1e-15);
  CHECK_EQ(crossing.start_seconds(), 0.5);
}

TEST(the_last_node_of_a_group_sends_the_most) {
  const Crossing crossing(kNodes, 5, 4);
  CHECK_NEAR(crossing.all_to_all(), 4.0 / 4.0 / 5.0, 1e-15);  // one rank there, all its peers outside
  CHECK_NEAR(crossing.all_gather(), 0.1, 1e-15);              // a quarter of 2 NICs, but never less than one
}

TEST(bad_values_are_named) {
  Network bad = kNodes;
  bad.inter_node.bytes_per_second = 0.0;
  CHECK_THROWS(InvalidArgument, "inter_node bytes_per_second is 0", (planner::check(bad), 0));
  bad = kNodes;
  bad.intra_node.start_seconds = -1.0;
  CHECK_THROWS(InvalidArgument, "intra_node start_seconds is -1", (planner::check(bad), 0));
  bad = kNodes;
  bad.nics_per_node = -2;
  CHECK_THROWS(InvalidArgument, "nics_per_node is -2", (planner::check(bad), 0));
  CHECK_THROWS(InvalidArgument, "degree is 0", Crossing(kNodes, 0, 4));
}

TEST_MAIN()
