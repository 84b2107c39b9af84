// The instruction sets that hot loops are compiled for, those that this machine can run, and the one in use.
//
// A room compiles one source once per set, each into a namespace of its name, and picks a table of functions at run time:
// a wheel runs everywhere and is fast where it can be.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hetsp {

// Each includes those before it. avx2: with FMA and F16C. avx512: F, BW, VL and DQ. avx512_bf16: with dot products of bfloat16
// pairs. amx: with AMX-BF16. A room that has nothing of its own for a set treats it as the one before.
enum class Isa { portable, avx2, avx512, avx512_bf16, amx };
inline constexpr Isa kAllIsas[] = {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx};

[[nodiscard]] const char* name(Isa isa);
[[nodiscard]] const std::vector<Isa>& supported_isas();  // ascending, `portable` always first
// The last that this process may use: asks the system for what it needs (permit).
[[nodiscard]] Isa best_isa();

// Why it cannot be used here, or nothing: what this machine lacks, or what the system refuses when it is asked.
[[nodiscard]] std::string missing(Isa isa);

// Asks the system for what a supported set needs before its functions run. Throws InvalidArgument if it is refused.
void permit(Isa isa);

// The supported set of that name. Throws InvalidArgument, which lists what this machine has.
[[nodiscard]] Isa supported_isa(std::string_view name);

// What every dispatch uses unless it is given one: the forced set, else the best. Forcing is for tests and for comparisons; it
// counts from the next call of a kernel on. Throws InvalidArgument if the machine lacks the set or refuses it, and then changes
// nothing.
// Every shared object that holds the core has a state of its own.
void force_isa(std::optional<Isa> isa);
[[nodiscard]] Isa active_isa();

}  // namespace hetsp
