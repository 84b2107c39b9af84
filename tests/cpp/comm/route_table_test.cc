#include "hetsp/comm/route_table.h"

#include <vector>

#include "comm/wires.h"
#include "support/check.h"

using namespace hetsp::comm;
using wires::grid;

TEST(every_way_ends_at_its_destination_over_its_rail) {
  for (const auto& [ranks, nics] : std::vector<std::pair<int, int>>{{4, 4}, {4, 2}, {2, 4}, {1, 3}, {3, 1}}) {
    const Topology topology = grid(2, ranks, nics);
    for (int from = 0; from < topology.ranks(); ++from)
      for (int to = 0; to < topology.ranks(); ++to) {
        if (from == to) continue;
        for (int rail = 0; rail < nics; ++rail) {
          int at = from, crossed = 0, hops = 0;
          for (; at != to && hops < 4; ++hops) {
            const Link link = RouteTable(topology, at).hop(to, rail);
            CHECK_EQ(link.stage == Stage::local, topology.same_node(at, link.peer));
            if (link.stage == Stage::rail) {
              ++crossed;
              CHECK_EQ(topology.owner(topology.node_of(at), link.rail), at);
              CHECK_EQ(topology.owner(topology.node_of(link.peer), link.rail), link.peer);
              CHECK_EQ(link.rail, rail);
            }
            at = link.peer;
          }
          CHECK_EQ(at, to);
          CHECK(hops <= 3);
          CHECK_EQ(crossed, topology.same_node(from, to) ? 0 : 1);
        }
      }
  }
}

TEST(living_rails_the_own_one_first) {
  const Topology topology = grid(2, 4, 4);
  RouteTable routes(topology, 1);
  CHECK((routes.living(1) == std::vector<int>{0, 2, 3}));  // its own is not connected yet
  routes.set_up(1, 1, true);
  CHECK((routes.living(1) == std::vector<int>{1, 0, 2, 3}));
  routes.set_up(1, 2, false);
  routes.gone(3);  // drives rail 3 here
  routes.gone(4);  // and rail 0 there
  CHECK((routes.living(1) == std::vector<int>{1}));
}

TEST_MAIN()
