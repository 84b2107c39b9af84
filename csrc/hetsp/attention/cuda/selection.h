// Which family of kernels serves a call: a function of the call and of the device's compute capability alone, so that it is
// tested without a GPU.
//
//   scalar  any type and stride, head dimensions up to 256: plain arithmetic, slow
//   mma     16-bit types on the tensor cores of any GPU from Ampere on (mma/)
//   hopper  16-bit types that the copy engine can take, on Hopper alone (hopper/)
//
// The last that can serve is taken. What it cannot it says in words.
#pragma once

#include <string_view>

#include "hetsp/attention/params.h"
#include "hetsp/attention/pieces.h"

namespace hetsp::attention::cuda {

enum class Family { scalar, mma, hopper };  // each serves fewer calls than the one before it, and faster
inline constexpr Family kAllFamilies[] = {Family::scalar, Family::mma, Family::hopper};

[[nodiscard]] const char* name(Family family);
[[nodiscard]] Family family_of(std::string_view name);  // throws InvalidArgument, which lists the names

// Why a family does not serve a call: the tensor at fault, or "", and the reason. Both null: it does.
struct Refusal {
  const char* what = nullptr;
  const char* why = nullptr;
  int piece = -1;  // of the keys, where they have several
  explicit operator bool() const { return why != nullptr; }
};

// `capability`: 10 * major + minor of the device.
[[nodiscard]] Refusal refusal(Family family, const ForwardParams& params, int capability);
[[nodiscard]] Refusal refusal(Family family, const PiecesParams& params, int capability);
[[nodiscard]] Refusal refusal(Family family, const BackwardParams& params, int capability);

// The best family that any call on such a device can have.
[[nodiscard]] Family best_family(int capability);

constexpr std::int64_t max_head_dim = 256;              // of any kernel
constexpr std::int64_t hopper_backward_head_dim = 128;  // the most that one kernel of hopper/ takes backward

// Whether hopper/ takes two kernels for a backward: for wide heads, and for sums of dq in a fixed order.
constexpr bool hopper_backward_is_split(const BackwardParams& params) {
  return params.deterministic || params.shape.head_dim > hopper_backward_head_dim ||
         params.shape.head_dim_v > hopper_backward_head_dim;
}

// What the process prefers: no family beyond `most`, and with `only` no other than it. For tests and comparisons.
struct Preference {
  Family most = Family::hopper;
  bool only = false;
};
void prefer(Preference preference);
[[nodiscard]] Preference preference();

// The family that serves the call under a preference. Throws InvalidArgument where `only` forbids all that can, or where no
// family takes its head dimensions.
[[nodiscard]] Family select_family(const ForwardParams& params, int capability, Preference preference);
[[nodiscard]] Family select_family(const PiecesParams& params, int capability, Preference preference);
[[nodiscard]] Family select_family(const BackwardParams& params, int capability, Preference preference);

}  // namespace hetsp::attention::cuda
