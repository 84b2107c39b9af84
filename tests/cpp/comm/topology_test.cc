#include "hetsp/comm/topology.h"

#include <set>

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::comm;

namespace {

std::vector<Nic> nics(int count) {
  std::vector<Nic> all;
  for (int i = 0; i < count; ++i) all.push_back({.name = "nic" + std::to_string(i), .address = "10.0.0.1", .rate = 1e8});
  return all;
}

Node node(std::vector<int> ranks, std::vector<Nic> nics) {
  return {.ranks = std::move(ranks), .nics = std::move(nics), .control = ""};
}

}  // namespace

TEST(with_as_many_nics_as_ranks_everyone_owns_one) {
  const Topology topology({node({0, 1, 2, 3}, nics(4)), node({4, 5, 6, 7}, nics(4))});
  CHECK_EQ(topology.ranks(), 8);
  CHECK_EQ(topology.nodes(), 2);
  CHECK_EQ(topology.rails(0, 1), 4);
  for (int k = 0; k < 4; ++k) {
    CHECK_EQ(topology.owner(0, k), k);
    CHECK_EQ(topology.owner(1, k), 4 + k);
    CHECK_EQ(topology.home_rail(k, 1), k);
    CHECK_EQ(topology.home_rail(4 + k, 0), k);
  }
  CHECK(topology.same_node(4, 7) && !topology.same_node(3, 4));
}

TEST(interleaved_ranks_and_unequal_nodes) {
  const Topology topology({node({1, 4}, nics(4)), node({0, 2, 3, 5, 6}, nics(2))});
  CHECK_EQ(topology.rails(0, 1), 2);
  CHECK_EQ(topology.rails(1, 0), 2);
  CHECK_EQ(topology.owner(0, 0), 1);
  CHECK_EQ(topology.owner(0, 3), 4);  // more NICs than ranks: round robin
  CHECK_EQ(topology.owner(1, 1), 2);
  CHECK_EQ(topology.home_rail(4, 1), 1);
  CHECK_EQ(topology.home_rail(6, 0), 0);  // the fifth rank of its node, two rails
  CHECK_EQ(topology.node_of(3), 1);
}

TEST(every_rail_has_one_owner_at_each_end_and_homes_are_rails) {
  for (int seed = 0; seed < 200; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const int a = 1 + seed % 5, b = 1 + seed / 5 % 4, x = 1 + seed % 7, y = 1 + seed / 7 % 6;
    std::vector<int> first, second;
    for (int rank = 0; rank < a + b; ++rank)
      (first.size() < static_cast<std::size_t>(a) && (rank + seed) % 2 == 0) || second.size() == static_cast<std::size_t>(b)
          ? first.push_back(rank)
          : second.push_back(rank);
    const Topology topology({node(first, nics(x)), node(second, nics(y))});
    CHECK_EQ(topology.rails(0, 1), std::min(x, y));
    std::set<int> owners;
    for (int k = 0; k < x; ++k) {
      CHECK_EQ(topology.node_of(topology.owner(0, k)), 0);
      owners.insert(topology.owner(0, k));
    }
    CHECK_EQ(static_cast<int>(owners.size()), std::min<int>(x, static_cast<int>(first.size())));  // NICs are spread over ranks
    for (int rank = 0; rank < a + b; ++rank) {
      const int home = topology.home_rail(rank, 1 - topology.node_of(rank));
      CHECK(home >= 0 && home < std::min(x, y));
    }
  }
}

TEST(one_node_needs_no_nic) {
  const Topology topology({node({0, 1}, nics(0))});
  CHECK(topology.same_node(0, 1));
}

TEST(what_cannot_be_is_refused_by_name) {
  const auto make = [](std::vector<Node> nodes) { return Topology(std::move(nodes)); };
  CHECK_THROWS(InvalidArgument, "no ranks", make({}));
  CHECK_THROWS(InvalidArgument, "node 1 has no ranks", make({node({0}, nics(1)), node({}, nics(1))}));
  CHECK_THROWS(InvalidArgument, "node 1 has no NIC", make({node({0}, nics(1)), node({1}, nics(0))}));
  CHECK_THROWS(InvalidArgument, "rank 0 is on node 0 and on node 1", make({node({0}, nics(1)), node({0}, nics(1))}));
  CHECK_THROWS(InvalidArgument, "rank 2, allowed are 0 to 1", make({node({0, 2}, nics(1))}));
  CHECK_THROWS(InvalidArgument, "rank -1", make({node({-1, 0}, nics(1))}));
  CHECK_THROWS(InvalidArgument, "node 0 are not in ascending order", make({node({1, 0}, nics(1))}));
  std::vector<Nic> bad = nics(1);
  bad[0].rate = -1;
  CHECK_THROWS(InvalidArgument, "nic0 of node 0 has rate -1", make({node({0}, bad)}));
  const Topology topology({node({0, 1}, nics(1))});
  CHECK_THROWS(InvalidArgument, "node 0 has no NIC 1", topology.owner(0, 1));
}

TEST_MAIN()
