// From a product q . k to the exponent of 2 of its weight.
#pragma once

#include "hetsp/attention/cuda/mma/warp_mma.cuh"
#include "hetsp/attention/params.h"
#include "hetsp/attention/softmax_state.h"

namespace hetsp::attention::cuda::mma {

// tanh to 2^-23 absolute, which is what a score needs: it is multiplied by the cap and goes into an exponent.
__device__ inline float tanh_by_exp2(float x) {
  const float e = exp2_fast(static_cast<float>(2 * kLog2E) * x);  // inf and 0 give 1 and -1
  return 1.0f - divide_fast(2.0f, e + 1.0f);
}

struct Exponent {
  float scale, factor, cap;  // softmax_scale; softmax_scale log2 e; softcap or 0

  __device__ explicit Exponent(const Score& score)
      : scale(static_cast<float>(score.softmax_scale)),
        factor(static_cast<float>(score.softmax_scale * kLog2E)),
        cap(static_cast<float>(score.softcap)) {}

  __device__ bool plain() const { return cap <= 0 && factor > 0; }  // the largest product has the largest weight
  __device__ float squashed(float product) const { return tanh_by_exp2(divide_fast(product * scale, cap)); }
  __device__ float operator()(float product) const {
    return cap > 0 ? static_cast<float>(kLog2E) * cap * squashed(product) : product * factor;
  }
};

}  // namespace hetsp::attention::cuda::mma
