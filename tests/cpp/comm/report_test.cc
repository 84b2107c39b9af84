#include "hetsp/comm/report.h"

#include <cstddef>
#include <string>
#include <vector>

#include "comm/wires.h"
#include "support/check.h"

using namespace wires;

TEST(a_report_says_how_far_each_operation_is) {
  Group group(grid(2, 2, 2), kSmall);
  const auto sent = noise(20'000, 6);
  std::vector<std::byte> got(20'000), other(8);
  const auto says = [&](int rank, const std::string& what) {
    const std::string report = group.engine(rank).report();
    check::context() = report;
    return report.find(what) != std::string::npos;
  };
  group.engine(0).send(1, 3, 5, sent, 9);
  group.engine(3).receive(2, 1, 6, other, 9);
  group.settle();
  CHECK(says(0, "rank 0 of 4: 1 operation is open\n"));
  CHECK(says(0, "sending to rank 3, transfer 1, rail 0: 20000 bytes, no receive for it is known"));
  CHECK(says(0, "rail 0 to rank 2: up, generation 1"));
  CHECK(says(3, "receiving from rank 1, no transfer begun, rail 1: no message for it has come"));

  group.lose = [](Link, const Header& header) { return header.kind == Kind::chunk && header.chunk == 7; };
  group.engine(3).receive(3, 0, 5, got, 9);
  for (int round = 0; round < 30; ++round) group.round();
  CHECK(says(0, "19 of 20 chunks are there, 1 under way, 0 wait"));
  CHECK(says(3, "receiving from rank 0, transfer 1, rail 1: 19 of 20 chunks are here"));
}

TEST_MAIN()
