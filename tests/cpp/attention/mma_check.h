// What the tests of the tensor-core kernels check alike: results within bounds, and random cases.
#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "attention/attention_case.h"
#include "attention/attention_truth.h"
#include "support/check.h"

namespace attention_case {

// Rounding errors allowed on top of those of the rounded factors, in units of attention_case::worst_error.
constexpr double kUnits = 8;
constexpr unsigned kBlocks = 2;  // so that each takes several items and must leave shared memory fit for the next
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr unsigned kSeeds = 2;  // many times slower there, and it is addresses and barriers that are looked at
#else
constexpr unsigned kSeeds = 8;
#endif

// By the tests of a program so far.
inline double worst_seen = 0;
inline int suspects_seen = 0;

inline void check_close(const char* what, const Array& actual, const std::vector<Sum>& expected, DType dtype) {
  const double worst = worst_error(actual.values(), expected, dtype, DType::float32, true);
  worst_seen = std::max(worst_seen, worst);
  if (worst > kUnits) check::fail(__FILE__, __LINE__, std::string(what) + " is off by " + std::to_string(worst) + " units");
  CHECK_EQ(actual.strays(), 0);
}

// kSeeds random cases of each dims; check_case(case, random) does the call and compares.
template <class CheckCase>
void check_random(DType dtype, unsigned first_seed, const std::vector<Dims>& all_dims, std::int64_t most_tokens,
                  const CheckCase& check_case) {
  worst_seen = 0, suspects_seen = 0;
  unsigned seed = first_seed;
  for (const Dims& dims : all_dims)
    for (unsigned i = 0; i < kSeeds; ++i, ++seed) {
      const Case c = random_case(seed, dtype, dims, most_tokens);
      Random random(seed);
      check_case(c, random);
    }
  std::printf("     %s: %zu cases, worst error %.1f of %.0f units, %d items computed again\n", name(dtype),
              all_dims.size() * kSeeds, worst_seen, kUnits, suspects_seen);
}

}  // namespace attention_case
