// The instruction sets that hot loops are compiled for, and those that this machine can run.
//
// A room compiles one source once per set, each into a namespace of its name, and picks a table of functions at run time:
// a wheel runs everywhere and is fast where it can be.
#pragma once

#include <vector>

namespace hetsp {

enum class Isa { portable, avx2, avx512 };  // avx2: with FMA. avx512: F, VL and DQ

[[nodiscard]] const char* name(Isa isa);
[[nodiscard]] const std::vector<Isa>& supported_isas();  // ascending, `portable` always first
[[nodiscard]] Isa best_isa();

}  // namespace hetsp
