// What the cases of hopper_primitives.cuh are made of.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <type_traits>
#include <vector>

#include "hetsp/attention/cuda/hopper/mbarrier.cuh"
#include "hetsp/attention/cuda/hopper/shared_tile.cuh"
#include "hetsp/attention/cuda/hopper/tma.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"
#include "hetsp/attention/cuda/hopper/wgmma.cuh"
#include "hetsp/attention/number.h"

namespace hopper_primitives {

using hetsp::attention::BFloat16;
using hetsp::attention::Float16;
using hetsp::attention::cuda::exp2_fast;
using hetsp::attention::cuda::pack;
using namespace hetsp::attention::cuda::hopper;  // NOLINT(google-build-using-namespace): these are what is tested

template <class Element>
constexpr bool is_bf16 = std::is_same_v<Element, BFloat16>;
template <class Element>
constexpr const char* name_of = is_bf16<Element> ? "bf16" : "f16";

template <class Element>
__host__ __device__ inline std::uint16_t round_to(float value) {
  if constexpr (is_bf16<Element>) {
    return hetsp::attention::to_bfloat16(value).bits;
  } else {
    return hetsp::attention::to_float16(value).bits;
  }
}

// Integers in [-range, range], the same for the same seed.
inline std::vector<float> integers(std::size_t count, std::uint64_t seed, int range) {
  std::vector<float> out(count);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (float& value : out) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value = static_cast<float>(static_cast<int>((state >> 33) % static_cast<unsigned>(2 * range + 1)) - range);
  }
  return out;
}

inline std::string differs(const char* what, std::size_t at, double got, double wanted) {
  char text[160];
  std::snprintf(text, sizeof text, "%s[%zu] = %.9g, not %.9g", what, at, got, wanted);
  return text;
}

// "" where all are equal, bit by bit but for the sign of zero.
inline std::string compare(const char* what, const std::vector<float>& got, const std::vector<float>& wanted) {
  std::size_t wrong = 0, first = 0;
  for (std::size_t i = wanted.size(); i-- > 0;)
    if (!(got[i] == wanted[i])) ++wrong, first = i;
  if (wrong == 0) return "";
  return differs(what, first, got[first], wanted[first]) + "; " + std::to_string(wrong) + " of " +
         std::to_string(wanted.size()) + " wrong";
}

}  // namespace hopper_primitives
