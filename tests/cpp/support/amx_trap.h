// Runs code made of AMX instructions on a CPU that lacks them: each is an illegal instruction there, whose signal this class
// takes to decode the instruction, have the thread's emulated registers execute it, and go on behind it. So the very code that
// a CPU with AMX runs is tested, operands and encodings, at a microsecond an instruction.
#pragma once

namespace amx_emulator {

// Of the whole process, while it lives; one at a time. What is no AMX instruction, or breaks a rule of one, ends the process
// with a message.
class Trap {
 public:
  Trap();
  ~Trap();
  Trap(const Trap&) = delete;
  Trap& operator=(const Trap&) = delete;
};

}  // namespace amx_emulator
