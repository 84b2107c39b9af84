#include "c10d/program.h"

#include <algorithm>

namespace hetsp::routed {

void ring_reduce_scatter(Program& program, const Ring& ring, const Pieces& pieces,
                         const std::function<std::span<std::byte>(int rank)>& incoming,
                         const std::function<void(int rank)>& reduce) {
  for (int step = 0; step + 1 < ring.size(); ++step) {
    const int out = ring.at(ring.position - 1 - step), in = ring.at(ring.position - 2 - step);
    program.push_back({.sends = {{ring.next(), pieces[out]}},
                       .receives = {{ring.previous(), incoming(in)}},
                       .then = [reduce, in] { reduce(in); }});
  }
}

void ring_allgather(Program& program, const Ring& ring, const Pieces& pieces) {
  for (int step = 0; step + 1 < ring.size(); ++step) {
    const int out = ring.at(ring.position - step), in = ring.at(ring.position - 1 - step);
    program.push_back({.sends = {{ring.next(), pieces[out]}}, .receives = {{ring.previous(), pieces[in]}}, .then = nullptr});
  }
}

void flat_allgather(Program& program, int rank, const Pieces& pieces) {
  Round round;
  for (int peer = 0; peer < static_cast<int>(pieces.size()); ++peer) {
    if (peer == rank) continue;
    round.sends.push_back({peer, pieces[rank]});
    round.receives.push_back({peer, pieces[peer]});
  }
  program.push_back(std::move(round));
}

void chain_broadcast(Program& program, const Ring& ring, int root, std::span<std::byte> bytes, std::size_t segment) {
  const auto at = std::find(ring.order.begin(), ring.order.end(), root) - ring.order.begin();
  const int place = static_cast<int>((ring.position - at + ring.size()) % ring.size());  // in the chain
  const bool first = place == 0, last = place == ring.size() - 1;
  const std::size_t segments = std::max<std::size_t>(1, (bytes.size() + segment - 1) / segment);
  const auto piece = [&](std::size_t i) { return bytes.subspan(i * segment, std::min(segment, bytes.size() - i * segment)); };
  // Round i receives segment i and passes on the one before; the root has them all and is a round ahead.
  for (std::size_t i = 0; i < segments + (first ? 0 : 1); ++i) {
    Round round;
    if (!first && i < segments) round.receives.push_back({ring.previous(), piece(i)});
    if (first) round.sends.push_back({ring.next(), piece(i)});
    if (!first && !last && i > 0) round.sends.push_back({ring.next(), piece(i - 1)});
    program.push_back(std::move(round));
  }
}

void dissemination_barrier(Program& program, int rank, int size) {
  for (int step = 1; step < size; step *= 2) {
    program.push_back(
        {.sends = {{(rank + step) % size, {}}}, .receives = {{(rank - step % size + size) % size, {}}}, .then = nullptr});
  }
}

}  // namespace hetsp::routed
