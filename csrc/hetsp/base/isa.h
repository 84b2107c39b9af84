// The instruction sets that hot loops are compiled for, those that this machine can run, and the one in use.
//
// A room compiles one source once per set, each into a namespace of its name, and picks a table of functions at run time:
// a wheel runs everywhere and is fast where it can be.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace hetsp {

// Each includes those before it. avx2: with FMA and F16C. avx512: F, BW, VL and DQ. avx512_bf16: with dot products of bfloat16
// pairs; a room that has nothing of its own for it treats it as avx512.
enum class Isa { portable, avx2, avx512, avx512_bf16 };
inline constexpr Isa kAllIsas[] = {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_bf16};

[[nodiscard]] const char* name(Isa isa);
[[nodiscard]] const std::vector<Isa>& supported_isas();  // ascending, `portable` always first
[[nodiscard]] Isa best_isa();

// The supported set of that name. Throws InvalidArgument, which lists what this machine has.
[[nodiscard]] Isa supported_isa(std::string_view name);

// What every dispatch uses unless it is given one: the forced set, else the best. Forcing is for tests and for comparisons; it
// counts from the next call of a kernel on. Throws InvalidArgument if the machine lacks the set, and then changes nothing.
// Every shared object that holds the core has a state of its own.
void force_isa(std::optional<Isa> isa);
[[nodiscard]] Isa active_isa();

}  // namespace hetsp
