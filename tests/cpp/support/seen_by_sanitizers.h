// What the sanitizers are told of fibers: ThreadSanitizer is to see the accesses of kernels and their barriers, and nothing of
// the scheduler in between (block_on_cpu.h).
#pragma once

#include <cstddef>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define CUDA_ON_CPU_UNSEEN __attribute__((no_sanitize_thread, noinline))  // the scheduler's own words are no kernel's race
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
void __tsan_read_range(void* address, unsigned long size);  // NOLINT(bugprone-reserved-identifier)
void __tsan_write_range(void* address, unsigned long size);  // NOLINT(bugprone-reserved-identifier)
}
#else
#define CUDA_ON_CPU_UNSEEN
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_on_cpu::detail {

// ThreadSanitizer sees nothing of what the thread does in this scope, in the standard library either.
struct Unseen {
  Unseen() { begin(); }
  Unseen(const Unseen&) = delete;
  Unseen& operator=(const Unseen&) = delete;
  ~Unseen() { end(); }
  static void begin() {
#if defined(__SANITIZE_THREAD__)
    AnnotateIgnoreReadsBegin("", 0), AnnotateIgnoreWritesBegin("", 0);
#endif
  }
  static void end() {
#if defined(__SANITIZE_THREAD__)
    AnnotateIgnoreWritesEnd("", 0), AnnotateIgnoreReadsEnd("", 0);
#endif
  }
};

// Tells ThreadSanitizer of accesses that asynchronous work makes on the thread's behalf; in the scope of an Unseen.
inline void seen_to_read([[maybe_unused]] const void* address, [[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_THREAD__)
  Unseen::end();
  __tsan_read_range(const_cast<void*>(address), bytes);
  Unseen::begin();
#endif
}
inline void seen_to_write([[maybe_unused]] void* address, [[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_THREAD__)
  Unseen::end();
  __tsan_write_range(address, bytes);
  Unseen::begin();
#endif
}

inline void release([[maybe_unused]] const void* address) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(const_cast<void*>(address));
#endif
}
inline void acquire([[maybe_unused]] const void* address) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(const_cast<void*>(address));
#endif
}

}  // namespace cuda_on_cpu::detail
