// How a file is cut into extents, each with a checksum of its own: small enough to name what is damaged and to verify a part
// of a tensor alone, large enough that their list stays short (a terabyte has a quarter of a million).
//
// An extent is at most 4 MiB. A span above 1 MiB begins an extent and ends one; smaller ones in a row share.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/checkpoint/extent.h"

namespace hetsp::checkpoint {

constexpr std::int64_t kLargestExtent = std::int64_t{4} << 20;  // bytes
constexpr std::int64_t kLargestSharer = std::int64_t{1} << 20;  // bytes

// Extents of spans of `bytes` each that lie back to back from file offset `begin`; they tile [begin, begin + sum of bytes).
[[nodiscard]] std::vector<Extent> extents_of(std::int64_t begin, const std::vector<std::int64_t>& bytes);

}  // namespace hetsp::checkpoint
