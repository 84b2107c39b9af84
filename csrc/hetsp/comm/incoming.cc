#include "hetsp/comm/incoming.h"

#include <algorithm>

#include "hetsp/base/ceil_div.h"

namespace hetsp::comm {

Incoming::Incoming(const Offered& offer, const Posted& receive, std::size_t chunk_bytes)
    : operation(receive.operation),
      source(offer.source),
      transfer(offer.transfer),
      tag(offer.tag),
      bytes(receive.bytes),
      chunk_bytes_(chunk_bytes),
      state_(ceil_div(receive.bytes.size(), chunk_bytes), At::missing) {}

std::byte* Incoming::begin(const Header& chunk) {
  if (ended || chunk.chunk >= state_.size() || state_[chunk.chunk] != At::missing) return nullptr;
  const std::size_t offset = chunk.chunk * chunk_bytes_;
  if (chunk.value != offset || chunk.length != std::min(chunk_bytes_, bytes.size() - offset)) return nullptr;
  state_[chunk.chunk] = At::storing;
  ++storing;
  return bytes.data() + offset;
}

void Incoming::stored(std::uint32_t chunk) {
  --storing;
  state_[chunk] = At::stored;
  ++stored_;
  fresh.push_back(chunk);
}

}  // namespace hetsp::comm
