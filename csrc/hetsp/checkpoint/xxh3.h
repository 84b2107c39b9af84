// XXH3-128 (Collet, xxHash 0.8), as streaming functions of one instruction set. xxh3/ inlines them from xxHash's header,
// compiled once per set, because the code for plain x86-64 runs at half the rate of the widest; no_xxh3/ has none.
#pragma once

#include <cstddef>

#include "hetsp/base/isa.h"

namespace hetsp::checkpoint {

struct Xxh3State {  // opaque; big and aligned enough for xxHash's own
  alignas(64) unsigned char bytes[640];
};

struct Xxh3 {
  void (*reset)(Xxh3State& state);
  void (*update)(Xxh3State& state, const void* data, std::size_t bytes);
  void (*digest)(const Xxh3State& state, unsigned char (&canonical)[16]);  // big-endian, as xxHash prints it
};

// Null where xxHash was not found when this was built; `isa` from supported_isas().
[[nodiscard]] const Xxh3* xxh3(Isa isa);

}  // namespace hetsp::checkpoint
