// AMX-BF16: products of whole tiles of bfloat16, in registers of 8 KiB that Linux gives to a process that asks for them (Intel
// SDM, volume 1, chapter 18; the kernel's documentation, arch/x86/xstate). Asking is for good: from then on the frames of
// signals are larger in all threads of the process, so nobody asks who does not want the registers.
#pragma once

#include <string>

namespace hetsp::amx {

// What shows without asking.
struct Sight {
  bool cpu;     // CPUID: AMX-TILE and AMX-BF16
  bool kernel;  // the kernel saves the registers, and says that it gives them
};
[[nodiscard]] Sight look();

// Which of the two is missing, or nothing.
[[nodiscard]] std::string missing(const Sight& sight);

// Asks the kernel, at the first call alone: its refusal, or nothing.
[[nodiscard]] const std::string& refusal();

}  // namespace hetsp::amx
