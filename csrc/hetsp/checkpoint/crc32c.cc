#include "hetsp/checkpoint/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hetsp::checkpoint {

namespace {

constexpr std::uint32_t kPolynomial = 0x82f63b78;  // reflected: the highest power is bit 0

using Table = std::array<std::array<std::uint32_t, 256>, 8>;

// table[k][b]: what byte b contributes when k more bytes follow it.
constexpr Table byte_tables() {
  Table table{};
  for (std::uint32_t b = 0; b < 256; ++b) {
    std::uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    table[0][b] = crc;
  }
  for (std::size_t k = 1; k < 8; ++k)
    for (std::size_t b = 0; b < 256; ++b) table[k][b] = (table[k - 1][b] >> 8) ^ table[0][table[k - 1][b] & 0xff];
  return table;
}
constexpr Table kBytes = byte_tables();

std::uint32_t by_table(std::uint32_t state, const unsigned char* p, std::size_t n) {
  for (; n >= 8; p += 8, n -= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, p, 8);  // little-endian, as are all machines that this is built for
    word ^= state;
    state = 0;
    for (unsigned k = 0; k < 8; ++k) state ^= kBytes[7 - k][(word >> (8 * k)) & 0xff];
  }
  for (; n > 0; ++p, --n) state = (state >> 8) ^ kBytes[0][(state ^ *p) & 0xff];
  return state;
}

#if defined(__x86_64__)

// Product of two polynomials modulo kPolynomial, in reflected order: 1 is bit 31.
constexpr std::uint32_t product(std::uint32_t a, std::uint32_t b) {
  std::uint32_t sum = 0;
  for (std::uint32_t bit = 0x80000000; bit != 0; bit >>= 1) {
    if ((a & bit) != 0) sum ^= b;
    b = (b >> 1) ^ ((b & 1) != 0 ? kPolynomial : 0);
  }
  return sum;
}

// x^(8 bytes)
constexpr std::uint32_t power(std::uint64_t bytes) {
  std::uint32_t square = 0x00800000, result = 0x80000000;  // x^8 and 1
  for (; bytes != 0; bytes >>= 1, square = product(square, square))
    if ((bytes & 1) != 0) result = product(result, square);
  return result;
}

// A state moved over a fixed number of zero bytes, a byte of the state at a time.
struct Shift {
  std::array<std::array<std::uint32_t, 256>, 4> table{};
  constexpr explicit Shift(std::uint64_t bytes) {
    const std::uint32_t factor = power(bytes);
    for (unsigned k = 0; k < 4; ++k)
      for (std::uint32_t b = 0; b < 256; ++b) table[k][b] = product(b << (8 * k), factor);
  }
  [[nodiscard]] std::uint32_t operator()(std::uint32_t state) const {
    return table[0][state & 0xff] ^ table[1][(state >> 8) & 0xff] ^ table[2][(state >> 16) & 0xff] ^ table[3][state >> 24];
  }
};

// Long enough that joining costs nothing, short enough that small spans profit too.
constexpr std::size_t kLong = 8192, kShort = 256;

__attribute__((target("sse4.2"))) std::uint64_t step(std::uint64_t state, const unsigned char* p) {
  std::uint64_t word = 0;
  std::memcpy(&word, p, 8);
  return _mm_crc32_u64(state, word);
}

template <std::size_t kBlock>
__attribute__((target("sse4.2"))) std::uint32_t three_streams(std::uint32_t state, const unsigned char*& p, std::size_t& n) {
  static const Shift shift(kBlock);
  for (; n >= 3 * kBlock; p += 3 * kBlock, n -= 3 * kBlock) {
    std::uint64_t a = state, b = 0, c = 0;
    for (std::size_t i = 0; i < kBlock; i += 8) {
      a = step(a, p + i);
      b = step(b, p + kBlock + i);
      c = step(c, p + 2 * kBlock + i);
    }
    state = shift(shift(static_cast<std::uint32_t>(a)) ^ static_cast<std::uint32_t>(b)) ^ static_cast<std::uint32_t>(c);
  }
  return state;
}

__attribute__((target("sse4.2"))) std::uint32_t by_instruction(std::uint32_t state, const unsigned char* p, std::size_t n) {
  state = three_streams<kLong>(state, p, n);
  state = three_streams<kShort>(state, p, n);
  for (; n >= 8; p += 8, n -= 8) state = static_cast<std::uint32_t>(step(state, p));
  for (; n > 0; ++p, --n) state = _mm_crc32_u8(state, *p);
  return state;
}

bool has_instruction() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("sse4.2") != 0;
}

#endif

}  // namespace

std::uint32_t crc32c_portable(std::uint32_t crc, const void* data, std::size_t bytes) {
  return ~by_table(~crc, static_cast<const unsigned char*>(data), bytes);
}

std::uint32_t crc32c(std::uint32_t crc, const void* data, std::size_t bytes) {
#if defined(__x86_64__)
  static const bool fast = has_instruction();
  if (fast) return ~by_instruction(~crc, static_cast<const unsigned char*>(data), bytes);
#endif
  return crc32c_portable(crc, data, bytes);
}

}  // namespace hetsp::checkpoint
