#include "c10d/shared_node.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "c10d/shared_link.h"
#include "hetsp/base/error.h"

namespace hetsp::routed {

namespace {

constexpr std::size_t least_ring = 256 * 1024;  // several eager messages
constexpr std::uint32_t slots = 16;  // at shared_link.h's marks: half is in flight, the rest is for what a reader holds

}  // namespace

SharedShape SharedShape::of(const comm::EngineOptions& options, int ranks) {
  const std::size_t small = SharedLink::most_in_ring;
  return {{.ring_bytes = std::bit_ceil(std::max(least_ring, 4 * small)),
           .slot_payload = std::max({options.chunk_bytes, options.eager_bytes, options.rail_eager_bytes}),
           .slots = slots},
          ranks};
}

std::size_t SharedShape::bytes() const { return RingShape::page + static_cast<std::size_t>(ranks) * link.bytes(); }

std::shared_ptr<std::byte> map_shared(int descriptor, std::size_t bytes) {
  struct stat about{};
  require(fstat(descriptor, &about) == 0, "descriptor ", descriptor, " is no shared memory: ", std::strerror(errno));
  require(static_cast<std::size_t>(about.st_size) == bytes, "the shared memory of a rank has ", about.st_size, " bytes, not ",
          bytes);
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  require(memory != MAP_FAILED, "the shared memory of a rank, ", bytes, " bytes, cannot be mapped: ", std::strerror(errno));
  madvise(memory, bytes, MADV_DONTFORK);  // nothing for the workers of a data loader
  return {static_cast<std::byte*>(memory), [bytes](std::byte* done) { munmap(done, bytes); }};
}

Bell SharedNode::bell_of(const std::shared_ptr<std::byte>& memory) {
  return Bell(std::shared_ptr<Bell::Word>(memory, reinterpret_cast<Bell::Word*>(memory.get())));
}

std::shared_ptr<std::byte> SharedNode::link(const std::shared_ptr<std::byte>& segment, int of) const {
  return {segment, segment.get() + RingShape::page + static_cast<std::size_t>(of) * shape.link.bytes()};
}

std::shared_ptr<RingReader> SharedNode::from(const Neighbour& neighbour) const {
  return std::make_shared<RingReader>(link(memory, neighbour.place), shape.link, bell_of(neighbour.memory));
}

RingWriter SharedNode::to(const Neighbour& neighbour) const {
  return {link(neighbour.memory, place), shape.link, bell_of(neighbour.memory)};
}

}  // namespace hetsp::routed
