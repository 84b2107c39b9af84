// The online-softmax state of one query row (Milakov and Gimelshein, arXiv 1805.02867), shared by every device and by the
// tests: the value (max, sum) stands for the sum of exponentials 2^max * sum, so that no exponential overflows.
//
// C++17: this header is also compiled by nvcc.
#pragma once

#include <cmath>
#include <limits>

#if defined(__CUDACC__)
#define HETSP_HOST_DEVICE __host__ __device__
#else
#define HETSP_HOST_DEVICE
#endif

namespace hetsp::attention {

constexpr double kLog2E = 1.4426950408889634074;
constexpr double kLn2 = 0.69314718055994530942;

template <class Acc>
struct SoftmaxState {
  Acc max = -std::numeric_limits<Acc>::infinity();  // of the scores seen, times log2(e)
  Acc sum = 0;                                      // of 2^(score - max); 0 iff nothing with weight was seen
};

// Factors that bring two parts, each of weight 2^max, to the weight of their union.
template <class Acc>
struct MergeWeights {
  SoftmaxState<Acc> state;
  Acc a, b;
};

// The empty state is the neutral element: -inf stays -inf, where a naive e^(a - max) would be NaN. A stand-in 0 for a
// maximum of -inf is used in exponents only and is never stored: a later, very negative score must still win.
template <class Acc>
HETSP_HOST_DEVICE MergeWeights<Acc> merge(const SoftmaxState<Acc>& a, const SoftmaxState<Acc>& b) {
  const Acc max = b.max > a.max ? b.max : a.max;
  const Acc origin = max == -std::numeric_limits<Acc>::infinity() ? Acc(0) : max;
  const Acc weight_a = std::exp2(a.max - origin), weight_b = std::exp2(b.max - origin);
  return {{max, a.sum * weight_a + b.sum * weight_b}, weight_a, weight_b};
}

// The state of a part of which only the logarithm is known.
template <class Acc>
HETSP_HOST_DEVICE SoftmaxState<Acc> state_from_lse(Acc lse) {
  return {lse * Acc(kLog2E), lse == -std::numeric_limits<Acc>::infinity() ? Acc(0) : Acc(1)};
}

// ln of the sum of exponentials; -inf for the empty state, NaN where a NaN was summed.
template <class Acc>
HETSP_HOST_DEVICE Acc lse(const SoftmaxState<Acc>& state) {
  if (state.sum == Acc(0)) return -std::numeric_limits<Acc>::infinity();
  return (state.max == -std::numeric_limits<Acc>::infinity() ? Acc(0) : state.max) * Acc(kLn2) + std::log(state.sum);
}

}  // namespace hetsp::attention
