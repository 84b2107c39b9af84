// From a product q . k to a weight, formulas in params.h, in base 2: p = 2^(inner product - lse) or, under a softcap c,
// p = 2^(cap tanh y - lse) with y = scale product / c. `lse` is times log2(e).
#pragma once

#include "hetsp/attention/cuda/hopper/backward_shared.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"
#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda::hopper {

struct WeightFactors {
  float inner, cap;
  bool capped;
};
__device__ inline WeightFactors weight_factors(const Score& score) {
  const auto scale = static_cast<float>(score.softmax_scale), softcap = static_cast<float>(score.softcap);
  const bool capped = softcap > 0;
  return {capped ? 2 * log2_e * scale / softcap : log2_e * scale, log2_e * softcap, capped};
}

struct Weight {
  float p, slope;  // dS = p (dP - D) slope
};
// Of x = inner product.
template <bool Softcap>
__device__ inline Weight weight_of(float x, float cap, float lse) {
  if constexpr (Softcap) {
    // tanh y = 1 - 2 / (1 + e^2y), x = 2 log2(e) y; tanh.approx would be off by up to softcap / 2048 in lse
    const float tanh = 1 - 2 * exp2_fast(-log2_fast(1 + exp2_fast(x)));
    return {exp2_fast(cap * tanh - lse), 1 - tanh * tanh};
  } else {
    return {exp2_fast(x - lse), 1};
  }
}

}  // namespace hetsp::attention::cuda::hopper
