// Timing on the GPU at hand for the benchmarks of Hopper's primitives: one line a measurement, the best of five launches timed
// by events.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "hetsp/attention/cuda/hopper/warp.cuh"
#include "launch.cuh"

namespace hopper_bench {

using hetsp::attention::cuda::exp2_fast;
using hetsp::attention::cuda::pack;
using namespace hetsp::attention::cuda::hopper;  // NOLINT(google-build-using-namespace): what is measured
using hetsp::attention::BFloat16;

inline int multiprocessors = 0;

// Milliseconds of the fastest of five launches, after one that warms up.
template <class Case>
double best_ms(int blocks, const Case& body) {
  cudaEvent_t begin, end;
  backend::check(cudaEventCreate(&begin), "event");
  backend::check(cudaEventCreate(&end), "event");
  backend::run(blocks, body);
  float best = 1e30f;
  for (int i = 0; i < 5; ++i) {
    using Shared = typename Case::Shared;
    constexpr int bytes = std::is_empty_v<Shared> ? 0 : static_cast<int>(sizeof(Shared));
    backend::check(cudaEventRecord(begin), "event");
    backend::kernel<Case><<<blocks, Case::threads, bytes>>>(body);
    backend::check(cudaEventRecord(end), "event");
    backend::check(cudaEventSynchronize(end), "run");
    float ms = 0;
    backend::check(cudaEventElapsedTime(&ms, begin, end), "event");
    best = ms < best ? ms : best;
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return best;
}

__device__ inline float noise(std::uint32_t state) {  // about normal: what a tensor core's power depends on
  float sum = 0;
  for (int i = 0; i < 4; ++i) {
    state = state * 1664525u + 1013904223u;
    sum += static_cast<float>(state >> 8) * 0x1p-24f - 0.5f;
  }
  return sum * 1.7f;
}

struct Measurement {
  const char* name;
  std::function<void()> run;
};

// Runs the measurements whose names hold one of the words, or all.
inline int run(int argc, char** argv, const std::vector<Measurement>& measurements) {
  try {
    int device = 0;
    cudaDeviceProp properties{};
    backend::check(cudaGetDevice(&device), "device");
    backend::check(cudaGetDeviceProperties(&properties, device), "device");
    multiprocessors = properties.multiProcessorCount;
    std::printf("%s, %d multiprocessors\n", properties.name, multiprocessors);
    for (const auto& one : measurements) {
      bool wanted = argc < 2;
      for (int i = 1; i < argc; ++i) wanted |= std::strstr(one.name, argv[i]) != nullptr;
      if (wanted) one.run();
      std::fflush(stdout);
    }
  } catch (const std::exception& error) {
    std::printf("FAILED %s\n", error.what());
    return 1;
  }
  return 0;
}

}  // namespace hopper_bench
