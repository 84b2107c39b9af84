// Programs of collectives, run by all ranks in step: the i-th message from a to b in a's program must meet the i-th from a in
// b's, of the same size, and nobody may wait for what is not under way.
#include "c10d/program.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "support/check.h"

using namespace hetsp::routed;

namespace {

using Bytes = std::vector<std::byte>;

// Runs each rank's rounds as far as they go, in any order of the ranks, until all are through. False: they are stuck.
bool run(std::vector<Program>& programs, std::mt19937& random) {
  const int ranks = static_cast<int>(programs.size());
  std::map<std::pair<int, int>, std::deque<Bytes>> under_way;  // from, to
  std::vector<std::size_t> round(ranks), posted(ranks);
  std::vector<int> order(ranks);
  std::iota(order.begin(), order.end(), 0);
  for (bool moved = true; moved;) {
    moved = false;
    std::shuffle(order.begin(), order.end(), random);
    for (const int rank : order) {
      while (round[rank] < programs[rank].size()) {
        Round& now = programs[rank][round[rank]];
        if (posted[rank] == round[rank]) {
          for (const Message& message : now.sends)
            under_way[{rank, message.peer}].emplace_back(message.bytes.begin(), message.bytes.end());
          ++posted[rank];
        }
        const bool all_there = std::all_of(now.receives.begin(), now.receives.end(),
                                           [&](const Message& message) { return !under_way[{message.peer, rank}].empty(); });
        if (!all_there) break;
        for (const Message& message : now.receives) {
          auto& queue = under_way[{message.peer, rank}];
          CHECK_EQ(queue.front().size(), message.bytes.size());
          if (queue.front().size() == message.bytes.size() && !message.bytes.empty())
            std::memcpy(message.bytes.data(), queue.front().data(), message.bytes.size());
          queue.pop_front();
        }
        if (now.then) now.then();
        ++round[rank];
        moved = true;
        if (random() % 2 == 0) break;  // the others go on first
      }
    }
  }
  bool over = true;
  for (int rank = 0; rank < ranks; ++rank) over &= round[rank] == programs[rank].size();
  for (const auto& [_, queue] : under_way) CHECK(!over || queue.empty());
  return over;
}

// A random ring of all ranks, as each of them sees it.
std::vector<Ring> rings(int ranks, std::mt19937& random) {
  std::vector<int> order(ranks);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  std::vector<Ring> all(ranks);
  for (int i = 0; i < ranks; ++i) all[order[i]] = {.order = order, .position = i};
  return all;
}

Pieces cut(Bytes& bytes, const std::vector<std::size_t>& sizes) {
  Pieces pieces;
  std::size_t offset = 0;
  for (const std::size_t size : sizes) {
    pieces.push_back(std::span(bytes).subspan(offset, size));
    offset += size;
  }
  return pieces;
}

std::byte pattern(int rank, std::size_t i) { return static_cast<std::byte>(rank * 37 + static_cast<int>(i * 7 % 251)); }

struct Case {
  int ranks;
  std::vector<std::size_t> sizes;
  std::size_t total;
};

// Unequal pieces, some of them empty.
Case random_case(std::mt19937& random) {
  Case drawn{.ranks = static_cast<int>(1 + random() % 7), .sizes = {}, .total = 0};
  for (int rank = 0; rank < drawn.ranks; ++rank) drawn.sizes.push_back(random() % 4 == 0 ? 0 : random() % 40);
  drawn.total = std::accumulate(drawn.sizes.begin(), drawn.sizes.end(), std::size_t{0});
  return drawn;
}

}  // namespace

TEST(allgathers_of_uneven_pieces_seeds_0_to_199) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    const Case drawn = random_case(random);
    const auto ring = rings(drawn.ranks, random);
    Bytes expected(drawn.total);
    {
      const Pieces pieces = cut(expected, drawn.sizes);
      for (int rank = 0; rank < drawn.ranks; ++rank)
        for (std::size_t i = 0; i < pieces[rank].size(); ++i) pieces[rank][i] = pattern(rank, i);
    }
    for (const bool flat : {false, true}) {
      std::vector<Bytes> memory(drawn.ranks, Bytes(drawn.total));
      std::vector<Program> programs(drawn.ranks);
      for (int rank = 0; rank < drawn.ranks; ++rank) {
        const Pieces pieces = cut(memory[rank], drawn.sizes);
        for (std::size_t i = 0; i < pieces[rank].size(); ++i) pieces[rank][i] = pattern(rank, i);
        if (flat) {
          flat_allgather(programs[rank], rank, pieces);
        } else {
          ring_allgather(programs[rank], ring[rank], pieces);
        }
      }
      CHECK(run(programs, random));
      for (int rank = 0; rank < drawn.ranks; ++rank) CHECK(memory[rank] == expected);
    }
  }
}

TEST(ring_reduce_scatter_adds_in_the_order_of_the_ring_seeds_0_to_199) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    const Case drawn = random_case(random);
    const auto ring = rings(drawn.ranks, random);
    std::vector<Bytes> memory(drawn.ranks, Bytes(drawn.total)), room(drawn.ranks, Bytes(40));
    std::vector<Program> programs(drawn.ranks);
    for (int rank = 0; rank < drawn.ranks; ++rank) {
      const Pieces pieces = cut(memory[rank], drawn.sizes);
      for (const auto piece : pieces)
        for (std::size_t i = 0; i < piece.size(); ++i) piece[i] = pattern(rank, i);
      ring_reduce_scatter(
          programs[rank], ring[rank], pieces,
          [&room, &drawn, rank](int of) { return std::span(room[rank]).first(drawn.sizes[of]); },
          [&room, rank, pieces](int of) {
            // A product that is neither associative nor commutative tells every order from every other: 3 a + b.
            for (std::size_t i = 0; i < pieces[of].size(); ++i)
              pieces[of][i] =
                  static_cast<std::byte>(3 * std::to_integer<int>(room[rank][i]) + std::to_integer<int>(pieces[of][i]));
          });
    }
    CHECK(run(programs, random));
    for (int rank = 0; rank < drawn.ranks; ++rank) {
      const Pieces pieces = cut(memory[rank], drawn.sizes);
      for (std::size_t i = 0; i < pieces[rank].size(); ++i) {
        int sum = std::to_integer<int>(pattern(ring[rank].next(), i));
        for (int step = 2; step <= drawn.ranks; ++step)
          sum = (3 * sum + std::to_integer<int>(pattern(ring[rank].at(ring[rank].position + step), i))) & 255;
        CHECK_EQ(std::to_integer<int>(pieces[rank][i]), sum);
      }
    }
  }
}

TEST(chain_broadcast_from_every_root_in_segments_of_every_size_seeds_0_to_99) {
  for (unsigned seed = 0; seed < 100; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    const int ranks = static_cast<int>(2 + random() % 6), root = static_cast<int>(random() % ranks);
    const std::size_t bytes = random() % 3 == 0 ? random() % 3 : random() % 100, segment = 1 + random() % 40;
    const auto ring = rings(ranks, random);
    std::vector<Bytes> memory(ranks, Bytes(bytes));
    for (std::size_t i = 0; i < bytes; ++i) memory[root][i] = pattern(root, i);
    std::vector<Program> programs(ranks);
    for (int rank = 0; rank < ranks; ++rank) chain_broadcast(programs[rank], ring[rank], root, memory[rank], segment);
    CHECK(run(programs, random));
    for (int rank = 0; rank < ranks; ++rank) CHECK(memory[rank] == memory[root]);
  }
}

// Nobody leaves the barrier before everybody has come to it.
TEST(dissemination_barrier_holds_everybody_until_the_last_has_come) {
  for (int ranks = 1; ranks <= 9; ++ranks)
    for (int late = 0; late < ranks; ++late) {
      check::context() = std::to_string(ranks) + " ranks, rank " + std::to_string(late) + " is late";
      std::mt19937 random(1);
      std::vector<Program> programs(ranks);
      int left = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        if (rank != late) dissemination_barrier(programs[rank], rank, ranks);
        programs[rank].push_back({.sends = {}, .receives = {}, .then = [&left] { ++left; }});
      }
      // The late rank has posted nothing: it is never to be heard of, so all others must be stuck.
      std::vector<Program> without = programs;
      without[late].clear();
      if (ranks > 1) {
        CHECK(!run(without, random));
        CHECK_EQ(left, 0);
      }
      left = 0;
      programs[late].clear();
      dissemination_barrier(programs[late], late, ranks);
      CHECK(run(programs, random));
      CHECK_EQ(left, ranks - 1);
    }
}

TEST_MAIN()
