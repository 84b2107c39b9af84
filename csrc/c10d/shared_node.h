// The memory that the ranks of a node share: one segment of each rank, into which the others write what they send it.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "c10d/bell.h"
#include "c10d/shared_ring.h"
#include "hetsp/comm/engine.h"

namespace hetsp::routed {

// A segment: a page with the bell of the rank that it belongs to, then a link from each rank of the node, by place.
struct SharedShape {
  RingShape link;
  int ranks = 0;  // of the node

  static SharedShape of(const comm::EngineOptions& options, int ranks);
  std::size_t bytes() const;
};

// Maps `bytes` of the file behind a descriptor, which may be closed then. InvalidArgument with the reason where it cannot.
std::shared_ptr<std::byte> map_shared(int descriptor, std::size_t bytes);

// What one rank has of it.
struct SharedNode {
  struct Neighbour {
    int rank = 0;
    int place = 0;                      // in the node
    std::shared_ptr<std::byte> memory;  // its segment
    std::vector<int> watched;           // descriptors that become readable or hang up when the process ends; owned
  };

  SharedShape shape;
  int rank = 0, place = 0;
  std::shared_ptr<std::byte> memory;  // this rank's segment
  std::vector<Neighbour> neighbours;

  Bell bell() const { return bell_of(memory); }
  static Bell bell_of(const std::shared_ptr<std::byte>& memory);
  std::shared_ptr<RingReader> from(const Neighbour& neighbour) const;
  RingWriter to(const Neighbour& neighbour) const;

 private:
  std::shared_ptr<std::byte> link(const std::shared_ptr<std::byte>& segment, int place) const;
};

}  // namespace hetsp::routed
