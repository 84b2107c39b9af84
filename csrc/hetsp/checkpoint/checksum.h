// The checksums that a manifest may name: against accident (flipped bits, holes, stale or swapped blocks), not forgery.
//
//   "xxh3-128"  128 bits, as fast as memory; where xxHash's header was found when this was built
//   "crc32c"    32 bits, always there; misses one damaged extent in 4 * 10^9
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "hetsp/base/isa.h"
#include "hetsp/checkpoint/xxh3.h"

namespace hetsp::checkpoint {

enum class Checksum { xxh3_128, crc32c };

[[nodiscard]] const char* name(Checksum checksum);
[[nodiscard]] Checksum checksum_of(const std::string& name);  // throws InvalidArgument for a name that is none
[[nodiscard]] bool available(Checksum checksum);
[[nodiscard]] Checksum best_checksum();

// Bytes in, hex digits out; how the bytes are cut into updates makes no difference.
class Hasher {
 public:
  explicit Hasher(Checksum checksum, Isa isa = active_isa());  // throws InvalidArgument unless available(checksum)
  void update(const void* data, std::size_t bytes);
  [[nodiscard]] std::string hex() const;  // of all so far, lower case; more may follow
  void reset();
  [[nodiscard]] Checksum checksum() const { return checksum_; }

 private:
  Checksum checksum_;
  const Xxh3* xxh3_ = nullptr;  // functions, for xxh3_128 only
  Xxh3State state_;
  std::uint32_t crc_ = 0;
};

[[nodiscard]] std::string hash(Checksum checksum, const void* data, std::size_t bytes);

}  // namespace hetsp::checkpoint
