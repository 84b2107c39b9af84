// Compiled once per instruction set, with its options and its namespace HETSP_ISA (CMakeLists.txt). xxHash's functions are
// static here, so none of one set can be linked in place of another's.
#include "hetsp/checkpoint/xxh3/xxh3_isa.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace hetsp::checkpoint::HETSP_ISA {
namespace {

static_assert(sizeof(XXH3_state_t) <= sizeof(Xxh3State) && alignof(XXH3_state_t) <= alignof(Xxh3State));

XXH3_state_t* of(Xxh3State& state) { return reinterpret_cast<XXH3_state_t*>(state.bytes); }

void reset(Xxh3State& state) {
  XXH3_INITSTATE(of(state));
  XXH3_128bits_reset(of(state));
}

void update(Xxh3State& state, const void* data, std::size_t bytes) { XXH3_128bits_update(of(state), data, bytes); }

void digest(const Xxh3State& state, unsigned char (&canonical)[16]) {
  XXH128_canonical_t out;
  XXH128_canonicalFromHash(&out, XXH3_128bits_digest(reinterpret_cast<const XXH3_state_t*>(state.bytes)));
  for (int i = 0; i < 16; ++i) canonical[i] = out.digest[i];
}

}  // namespace

const Xxh3 functions{reset, update, digest};

}  // namespace hetsp::checkpoint::HETSP_ISA
