// The tile registers of AMX-BF16 and their instructions in plain C++, after the pseudo code of Intel's manual (SDM, volume 2:
// LDTILECFG, TILELOADD, TILESTORED, TDPBF16PS, TILERELEASE, TILEZERO). What the CPU answers with an exception throws here.
#pragma once

#include <cstddef>
#include <cstdint>

namespace amx_emulator {

constexpr int kRegisters = 8, kRows = 16, kRowBytes = 64;

// Of one thread. Registers begin unconfigured, as a thread does.
class Tiles {
 public:
  void configure(const void* config);  // 64 bytes
  void release();
  void zero(int t);
  void load(int t, const void* from, std::ptrdiff_t step);  // rows `step` bytes apart
  void store(int t, void* to, std::ptrdiff_t step) const;
  void dot(int c, int a, int b);  // TDPBF16PS tmm_c, tmm_a, tmm_b

  [[nodiscard]] bool configured() const { return configured_; }
  [[nodiscard]] std::int64_t dots() const { return dots_; }  // since the thread began

 private:
  struct Register {
    int rows = 0, row_bytes = 0;
    alignas(64) unsigned char data[kRows][kRowBytes] = {};
  };
  void check(int t) const;

  Register registers_[kRegisters];
  bool configured_ = false;
  std::int64_t dots_ = 0;
};

Tiles& this_thread();

// a * b + c and a + b in float, rounded to the nearest even number; subnormal numbers are 0 before and after.
float multiply_add(float a, float b, float c);
float add(float a, float b);

}  // namespace amx_emulator
