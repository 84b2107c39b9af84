// What blocks tell each other, and others them, through words in memory. Loads acquire and additions release: what was written
// before the word was is read behind the load, by the loading thread and behind a barrier by its block.
//
// On the host the same names come from tests/cpp/support/arrival_on_cpu.h, which is included before.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)

namespace hetsp::attention::cuda {

// Written by whoever brings a piece: the host, a copy engine, a NIC or another GPU.
__device__ inline std::uint32_t load_flag(const std::uint32_t* flag) {
  std::uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}

// Written by blocks of the same launch.
__device__ inline std::uint64_t load_word(const std::uint64_t* word) {
  std::uint64_t value;
  asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
  return value;
}
__device__ inline void add_to_word(std::uint64_t* word, std::uint64_t value) {
  asm volatile("red.release.gpu.global.add.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}
__device__ inline std::int32_t look_at(const std::int32_t* word) {  // orders nothing
  std::int32_t value;
  asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
  return value;
}

__device__ inline std::uint64_t nanoseconds() {
  std::uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

// Between two looks at a word, so that waiting takes neither issue slots nor the memory's time.
__device__ inline void pause() { __nanosleep(100); }

}  // namespace hetsp::attention::cuda

#endif  // __CUDACC__
