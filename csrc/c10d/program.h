// A collective as a straight line of rounds.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace hetsp::routed {

struct Message {
  int peer = 0;
  std::span<std::byte> bytes;
};

// The messages of a round are under way together; `then` runs when all have arrived.
struct Round {
  std::vector<Message> sends, receives;
  std::function<void()> then;
};

// Ranks must agree on what they send each other: the i-th message from a to b in a's program meets the i-th from a in b's.
using Program = std::vector<Round>;

// The ranks in the order of a ring that enters and leaves each node once, whatever the numbering.
struct Ring {
  std::vector<int> order;  // ranks
  int position = 0;        // of this rank
  int size() const { return static_cast<int>(order.size()); }
  int at(int index) const { return order[static_cast<std::size_t>(((index % size()) + size()) % size())]; }
  int next() const { return at(position + 1); }
  int previous() const { return at(position - 1); }
};

using Pieces = std::vector<std::span<std::byte>>;  // one for each rank, by rank

// `reduce(rank)`: adds what came for the piece of `rank` to it. Both are Patarasuk and Yuan's ring (JPDC 69, 2009): p - 1
// rounds, in each of which everyone sends one piece to the next rank, so that each link carries (p - 1)/p of the whole. After
// ring_reduce_scatter pieces[r] of rank r is the sum of all, in the order of the ring that ends at r; the others are spent.
// `incoming(rank)`: room for a piece of that rank's size.
void ring_reduce_scatter(Program& program, const Ring& ring, const Pieces& pieces,
                         const std::function<std::span<std::byte>(int rank)>& incoming,
                         const std::function<void(int rank)>& reduce);
void ring_allgather(Program& program, const Ring& ring, const Pieces& pieces);

// Everybody sends its piece to everybody: one round, for small pieces.
void flat_allgather(Program& program, int rank, const Pieces& pieces);

// From `root` along the ring, cut into segments that follow each other.
void chain_broadcast(Program& program, const Ring& ring, int root, std::span<std::byte> bytes, std::size_t segment);

// Rounds of ever longer steps (Hensgen, Finkel, Manber, IJPP 17, 1988): after ceil(log2 p) of them everyone has heard of
// everyone.
void dissemination_barrier(Program& program, int rank, int size);

}  // namespace hetsp::routed
