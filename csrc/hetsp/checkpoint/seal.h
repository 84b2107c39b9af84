// Sealed text: a small file that says itself whether it is whole. The last line is the name of a checksum and the checksum
// of every byte before it:
//
//   {"version": 1, ...}
//   xxh3-128 0f3a...
//
// One newline ends the text and belongs to what is summed; a second one ends the seal. So a file that was cut, extended,
// filled with zeros or changed in one bit is told from a whole one, with a chance of error of 2^-128 (2^-32 for crc32c). It
// guards against accidents; whoever means to forge a file computes a new seal.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "hetsp/checkpoint/checksum.h"
#include "hetsp/checkpoint/file_system.h"

namespace hetsp::checkpoint {

// Texts are held in memory whole, so a length that no manifest has is refused before it is allocated.
inline constexpr std::int64_t kLargestSealed = std::int64_t{1} << 30;  // bytes

// The last line of a sealed text.
struct Seal {
  Checksum checksum;
  std::string digest;  // lower-case hex
  [[nodiscard]] std::string line() const;
};

// `text` with its seal. Throws InvalidArgument where text is sealed already, or longer than kLargestSealed.
std::string seal(std::string_view text, Checksum checksum);

// The text as it was before seal(). Throws Corrupt, naming `path` and what is wrong; with `expected`, also where another
// checksum than that was used.
std::string unseal(std::string_view sealed, const std::string& path, std::optional<Checksum> expected = std::nullopt);

// The seal of a sealed text that is whole; throws as unseal().
Seal seal_of(std::string_view sealed, const std::string& path);

// All of a file, as a text that may be sealed. Throws IoError, or Corrupt where its length is out of reason.
std::string read_text(FileSystem& files, const std::string& path);

// unseal() of a file. Throws IoError where the file cannot be read, a missing one included.
std::string read_sealed(FileSystem& files, const std::string& path, std::optional<Checksum> expected = std::nullopt);

}  // namespace hetsp::checkpoint
