#include "support/amx_trap.h"

#include <signal.h>  // NOLINT(modernize-deprecated-headers): sigaction is not in csignal
#include <sys/ucontext.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "hetsp/base/error.h"
#include "support/amx_emulator.h"

namespace amx_emulator {

namespace {

struct sigaction before;

constexpr int kOrder[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                            REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

// A VEX-encoded instruction of map 0F38: C4, two bytes of prefix, opcode, ModRM, and what that asks for.
class Instruction {
 public:
  Instruction(const unsigned char* at, const greg_t* registers) : at_(at), registers_(registers) {
    hetsp::require(at[0] == 0xc4 && (at[1] & 0x1f) == 2 && (at[2] & 0x84) == 0, "no AMX instruction");
    memory_ = mod() == 3 ? 0 : memory_operand();
  }
  [[nodiscard]] int opcode() const { return at_[3]; }
  [[nodiscard]] int prefix() const { return at_[2] & 3; }  // 0: none, 1: 66, 2: F3, 3: F2
  [[nodiscard]] int mod() const { return at_[4] >> 6; }
  [[nodiscard]] int reg() const { return (at_[4] >> 3 & 7) + (at_[1] & 0x80 ? 0 : 8); }
  [[nodiscard]] int rm() const { return (at_[4] & 7) + (at_[1] & 0x20 ? 0 : 8); }
  [[nodiscard]] int vvvv() const { return ~(at_[2] >> 3) & 15; }
  // NOLINTNEXTLINE(performance-no-int-to-ptr): an address is what a register holds
  [[nodiscard]] char* memory() const { return reinterpret_cast<char*>(memory_); }
  [[nodiscard]] std::ptrdiff_t step() const { return static_cast<std::ptrdiff_t>(step_); }  // scaled index
  [[nodiscard]] const unsigned char* end() const { return at_ + size_; }

 private:
  [[nodiscard]] std::uint64_t value(int number) const { return static_cast<std::uint64_t>(registers_[kOrder[number]]); }
  std::uint64_t displacement(int bytes) {
    std::int8_t narrow = 0;
    std::int32_t wide = 0;
    if (bytes == 1) std::memcpy(&narrow, at_ + size_, 1);
    if (bytes == 4) std::memcpy(&wide, at_ + size_, 4);
    size_ += bytes;
    return static_cast<std::uint64_t>(std::int64_t{narrow} + wide);
  }
  // Without the index, which AMX multiplies by the row.
  std::uint64_t memory_operand() {
    int base = rm();
    if ((at_[4] & 7) == 4) {
      const int sib = at_[size_++];
      const int index = (sib >> 3 & 7) + (at_[1] & 0x40 ? 0 : 8);
      step_ = index == 4 ? 0 : value(index) << (sib >> 6);
      base = (sib & 7) + (at_[1] & 0x20 ? 0 : 8);
      if (mod() == 0 && (base & 7) == 5) return displacement(4);
    } else if (mod() == 0 && (base & 7) == 5) {  // relative to the next instruction
      const std::uint64_t offset = displacement(4);
      return reinterpret_cast<std::uint64_t>(end()) + offset;
    }
    return value(base) + displacement(mod() == 0 ? 0 : mod() == 1 ? 1 : 4);
  }

  const unsigned char* at_;
  const greg_t* registers_;
  int size_ = 5;
  std::uint64_t memory_ = 0, step_ = 0;
};

void execute(const Instruction& i, Tiles& tiles) {
  const int code = i.opcode() << 8 | i.prefix();
  if (code == 0x4900 && i.mod() != 3) return tiles.configure(i.memory());
  if (code == 0x4900 && i.reg() == 0 && i.rm() == 0) return tiles.release();
  if (code == 0x4903 && i.mod() == 3 && i.rm() == 0) return tiles.zero(i.reg());
  if ((code == 0x4b03 || code == 0x4b01) && i.mod() != 3) return tiles.load(i.reg(), i.memory(), i.step());
  if (code == 0x4b02 && i.mod() != 3) return tiles.store(i.reg(), i.memory(), i.step());
  if (code == 0x5c02 && i.mod() == 3) return tiles.dot(i.reg(), i.rm(), i.vvvv());
  throw hetsp::InvalidArgument("an instruction of AMX that is not emulated");
}

void trapped(int, siginfo_t*, void* context) {
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  try {
    // NOLINTNEXTLINE(performance-no-int-to-ptr): an address is what a register holds
    const Instruction instruction(reinterpret_cast<const unsigned char*>(registers[REG_RIP]), registers);
    execute(instruction, this_thread());
    registers[REG_RIP] = reinterpret_cast<greg_t>(instruction.end());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "illegal instruction: %s\n", error.what());
    std::_Exit(1);
  }
}

}  // namespace

Trap::Trap() {
  struct sigaction action{};
  action.sa_sigaction = trapped;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGILL, &action, &before);
}

Trap::~Trap() { sigaction(SIGILL, &before, nullptr); }

}  // namespace amx_emulator
