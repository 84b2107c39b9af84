// The names of csrc/hetsp/attention/cuda/arrival.cuh on the fibers of cuda_on_cpu.h: include it before the kernel. Flags may be
// set by another thread of the process; a launch that waits for one, or for its own patience to end, has the option
// `outside_waits`.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

#include "support/cuda_on_cpu.h"

namespace hetsp::attention::cuda {

inline std::uint32_t load_flag(const std::uint32_t* flag) { return __atomic_load_n(flag, __ATOMIC_ACQUIRE); }
inline std::uint64_t load_word(const std::uint64_t* word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
inline void add_to_word(std::uint64_t* word, std::uint64_t value) {
  std::atomic_ref<std::uint64_t>(*word).fetch_add(value, std::memory_order_release);
}
inline std::int32_t look_at(const std::int32_t* word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }

inline std::uint64_t nanoseconds() {
  return static_cast<std::uint64_t>(std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
}

inline cuda_on_cpu::Options outside_waits(cuda_on_cpu::Options options) {
  options.most_idle = ~0u;
  return options;
}

inline void pause(const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  const cuda_on_cpu::detail::Unseen unseen;
  if (threadIdx.x % 32 == 0) std::this_thread::yield();  // once a warp: on a busy machine it takes long
  cuda_on_cpu::detail::wait_until([] { return true; },
                                  [&](std::string& text) { text += "waiting at " + cuda_on_cpu::text_of(where); }, true);
}

}  // namespace hetsp::attention::cuda
