#include "support/amx_emulator.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "hetsp/base/error.h"

namespace amx_emulator {

namespace {

using hetsp::require;

float flushed(float x) { return std::abs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0F, x) : x; }

// To float, where what would round to less than the least normal number is 0.
float rounded(double exact) {
  constexpr double kLeast = 0x1p-126 * (1 - 0x1p-25);
  return std::abs(exact) < kLeast ? std::copysign(0.0F, static_cast<float>(exact)) : static_cast<float>(exact);
}

float number(const unsigned char* bfloat16) {
  std::uint32_t bits = 0;
  std::memcpy(reinterpret_cast<unsigned char*>(&bits) + 2, bfloat16, 2);
  float x = 0;
  std::memcpy(&x, &bits, 4);
  return x;
}

}  // namespace

// The product of two bfloat16 numbers has 16 bits. Its sum with a float in double is either exact, or so far from the middle
// between two floats that it rounds as the exact one does.
float multiply_add(float a, float b, float c) {
  return rounded(static_cast<double>(flushed(a)) * static_cast<double>(flushed(b)) + static_cast<double>(flushed(c)));
}

float add(float a, float b) { return rounded(static_cast<double>(flushed(a)) + static_cast<double>(flushed(b))); }

void Tiles::configure(const void* config) {
  const auto* bytes = static_cast<const unsigned char*>(config);
  if (bytes[0] == 0) return release();
  require(bytes[0] == 1, "#GP: palette is ", int{bytes[0]}, ", must be 0 or 1");
  require(bytes[1] == 0, "start_row is ", int{bytes[1]}, ": restarts are not emulated");
  for (int i = 2; i < 16; ++i) require(bytes[i] == 0, "#GP: byte ", i, " of the configuration is reserved");
  for (int t = 0; t < 16; ++t) {
    std::uint16_t row_bytes = 0;
    std::memcpy(&row_bytes, bytes + 16 + 2 * t, 2);
    const int rows = bytes[48 + t];
    require(t < kRegisters || (rows == 0 && row_bytes == 0), "#GP: register ", t, " is configured, there are ", kRegisters);
    if (t >= kRegisters) continue;
    require(rows <= kRows && row_bytes <= kRowBytes, "#GP: register ", t, " has ", rows, " rows of ", row_bytes, " bytes");
    require((rows == 0) == (row_bytes == 0), "#GP: register ", t, " has ", rows, " rows of ", row_bytes, " bytes");
    registers_[t] = {};
    registers_[t].rows = rows, registers_[t].row_bytes = row_bytes;
  }
  configured_ = true;
}

void Tiles::release() {
  for (Register& r : registers_) r = {};
  configured_ = false;
}

void Tiles::check(int t) const {
  require(configured_, "#UD: register ", t, " is used outside of a configured region");
  require(t >= 0 && t < kRegisters && registers_[t].rows > 0, "#UD: register ", t, " is not configured");
}

void Tiles::zero(int t) {
  check(t);
  std::memset(registers_[t].data, 0, sizeof(registers_[t].data));
}

void Tiles::load(int t, const void* from, std::ptrdiff_t step) {
  zero(t);
  Register& r = registers_[t];
  for (int row = 0; row < r.rows; ++row)
    std::memcpy(r.data[row], static_cast<const unsigned char*>(from) + row * step, static_cast<std::size_t>(r.row_bytes));
}

void Tiles::store(int t, void* to, std::ptrdiff_t step) const {
  check(t);
  const Register& r = registers_[t];
  for (int row = 0; row < r.rows; ++row)
    std::memcpy(static_cast<unsigned char*>(to) + row * step, r.data[row], static_cast<std::size_t>(r.row_bytes));
}

void Tiles::dot(int c, int a, int b) {
  check(c), check(a), check(b);
  require(c != a && c != b && a != b, "#UD: registers ", c, ", ", a, ", ", b, " are not three");
  const Register &x = registers_[a], &y = registers_[b];
  Register& z = registers_[c];
  require(z.row_bytes % 4 == 0 && x.row_bytes % 4 == 0 && y.row_bytes == z.row_bytes && x.rows == z.rows &&
              x.row_bytes / 4 == y.rows,
          "#UD: shapes of registers ", c, ", ", a, ", ", b, " do not fit");
  ++dots_;
  const int columns = z.row_bytes / 4;
  for (int m = 0; m < z.rows; ++m) {
    float sum[2 * kRows] = {};
    for (int k = 0; k < x.row_bytes / 4; ++k)
      for (int n = 0; n < columns; ++n)
        for (int odd = 0; odd < 2; ++odd)
          sum[2 * n + odd] =
              multiply_add(number(x.data[m] + 4 * k + 2 * odd), number(y.data[k] + 4 * n + 2 * odd), sum[2 * n + odd]);
    float row[kRows] = {};
    std::memcpy(row, z.data[m], static_cast<std::size_t>(z.row_bytes));
    for (int n = 0; n < columns; ++n) row[n] = add(row[n], add(sum[2 * n], sum[2 * n + 1]));
    std::memset(z.data[m], 0, kRowBytes);
    std::memcpy(z.data[m], row, static_cast<std::size_t>(z.row_bytes));
  }
}

Tiles& this_thread() {
  static thread_local Tiles tiles;
  return tiles;
}

}  // namespace amx_emulator
