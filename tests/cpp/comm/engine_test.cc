#include "hetsp/comm/engine.h"

#include <algorithm>
#include <cstddef>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "comm/wires.h"
#include "support/check.h"

using namespace hetsp::comm;
using wires::grid;
using wires::Group;

namespace {

std::vector<std::byte> noise(std::size_t bytes, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> data(bytes);
  for (std::byte& one : data) one = static_cast<std::byte>(random());
  return data;
}

constexpr EngineOptions kSmall{.job = 7, .chunk_bytes = 1000, .eager_bytes = 100, .direct_bytes = 3000};

}  // namespace

TEST(messages_of_every_size_arrive_whole) {
  for (const std::size_t bytes : {0, 1, 99, 100, 101, 999, 1000, 1001, 2999, 3000, 100'000}) {
    for (const int peer : {1, 4, 7}) {
      check::context() = std::to_string(bytes) + " bytes to rank " + std::to_string(peer);
      Group group(grid(2, 4, 4), kSmall);
      const auto sent = noise(bytes, 3);
      std::vector<std::byte> got(bytes);
      group.engine(0).send(1, peer, 5, sent, 9);
      group.settle();
      CHECK(!group.done(1));
      group.engine(peer).receive(2, 0, 5, got, 9);
      group.settle();
      CHECK(group.done(1) && group.done(2));
      CHECK(group.outcome(1).kind == Outcome::Kind::done && group.outcome(2).kind == Outcome::Kind::done);
      CHECK(sent == got);
      CHECK_EQ(group.held(), std::size_t{0});
      CHECK(group.engine(0).idle() && group.engine(peer).idle());
    }
  }
}

TEST(a_large_message_crosses_every_rail_and_a_small_one_its_own) {
  for (const std::size_t bytes : {2999, 200'000}) {
    Group group(grid(2, 4, 4), kSmall);
    const auto sent = noise(bytes, 4);
    std::vector<std::byte> got(bytes);
    group.engine(1).send(1, 6, 0, sent, 0);
    group.engine(6).receive(2, 1, 0, got, 0);
    group.settle();
    CHECK(sent == got);
    std::set<int> rails;
    for (const Header& header : group.seen)
      if (header.kind == Kind::chunk) rails.insert(header.rail);
    CHECK_EQ(rails.size(), std::size_t{bytes < 3000 ? 1u : 4u});
    CHECK(bytes >= 3000 || *rails.begin() == 1);
    CHECK_EQ(group.engine(1).statistics().spread, std::uint64_t{bytes >= 3000});
  }
}

TEST_MAIN()
