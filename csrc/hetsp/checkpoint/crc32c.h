// CRC-32C (Castagnoli; RFC 3720, appendix B.4): reflected, initial value and final xor all ones.
//
// Where the processor has SSE 4.2's crc32 instruction, three independent streams hide its latency of 3 cycles; their values are
// joined by crc(A B) = shift(crc(A), |B|) xor crc(B), shift being a multiplication by x^(8 |B|) modulo the polynomial.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hetsp::checkpoint {

// crc of (what `crc` is the crc of, then the data); 0 is the crc of nothing.
[[nodiscard]] std::uint32_t crc32c(std::uint32_t crc, const void* data, std::size_t bytes);

// The same from a table of 8 x 256 words, on any processor.
[[nodiscard]] std::uint32_t crc32c_portable(std::uint32_t crc, const void* data, std::size_t bytes);

}  // namespace hetsp::checkpoint
