// Runs the body of a CUDA kernel on the CPU, so that its arithmetic, its addresses and its barriers are tested without a
// GPU. Include it before the .cuh; then
//
//   cuda_on_cpu::launch<Shared>(blocks, threads, [&](Shared& shared) { body(arguments, shared); });
//
// Blocks run one after another, each on `threads` fibers of the calling thread (ucontext): a fiber runs until its next
// __syncthreads(), then the next one does, and when all have arrived the next phase begins. A thread that returns early
// is no longer waited for, as on the device. What this finds:
//
//   a missing barrier         fibers run in rising order in one phase and in falling order in the next, so a value that is
//                             read too early is the old one; and ThreadSanitizer, which is told of the fibers and of the
//                             barriers and of nothing else, reports the two accesses as a data race
//   a divergent barrier       threads waiting at different __syncthreads(): BrokenBarrier names both
//   shared memory             each block gets its own allocation of exactly sizeof(Shared) bytes, filled with NaN:
//                             AddressSanitizer sees a step outside, arithmetic sees what was never written
//
// Not here: warp intrinsics, tensor cores, asynchronous copies, 2-D blocks, two blocks at once.
#pragma once

#include <ucontext.h>

#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define CUDA_ON_CPU_UNSEEN __attribute__((no_sanitize_thread, noinline))  // the scheduler's own words are no kernel's race
#else
#define CUDA_ON_CPU_UNSEEN
#endif

// NOLINTBEGIN(bugprone-reserved-identifier): CUDA reserved them first
#define __device__
#define __host__
#define threadIdx (*cuda_on_cpu::thread_index())
#define blockIdx (*cuda_on_cpu::block_index())
#define gridDim (*cuda_on_cpu::grid_dim())
#define __syncthreads() cuda_on_cpu::synchronise(__FILE__, __LINE__)
// NOLINTEND(bugprone-reserved-identifier)

namespace cuda_on_cpu {

struct Index {
  unsigned x;
};

class BrokenBarrier : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

namespace detail {

constexpr std::size_t stack_bytes = 256 * 1024;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  Index thread{}, block{}, grid{};
  void* tsan = nullptr;
  bool finished = true;
  const char* file = nullptr;  // of the barrier it waits at
  int line = 0;

  explicit Fiber(void (*main)()) : stack(new char[stack_bytes]) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack.get();
    context.uc_stack.ss_size = stack_bytes;
    context.uc_link = nullptr;
    makecontext(&context, main, 0);
#if defined(__SANITIZE_THREAD__)
    tsan = __tsan_create_fiber(0);
#endif
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber() {
#if defined(__SANITIZE_THREAD__)
    __tsan_destroy_fiber(tsan);
#endif
  }
};

struct Scheduler {
  std::vector<std::unique_ptr<Fiber>> fibers;
  ucontext_t context{};
  void* tsan = nullptr;
  Fiber* running = nullptr;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  unsigned phase = 0;
  // Addresses that stand for "everything before this barrier". Two in turn: a fiber that is late in a phase must not
  // acquire what an early one released at the end of it.
  char barrier[2], block_begin, block_end;
};

inline Scheduler& scheduler() {
  static Scheduler instance;
  return instance;
}

inline void release([[maybe_unused]] void* address) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(address);
#endif
}
inline void acquire([[maybe_unused]] void* address) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(address);
#endif
}

// Switching orders nothing in ThreadSanitizer's eyes (flag no_sync): only barriers do.
CUDA_ON_CPU_UNSEEN inline void change([[maybe_unused]] void* tsan, ucontext_t& from, ucontext_t& to) {
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(tsan, __tsan_switch_to_fiber_no_sync);
#endif
  swapcontext(&from, &to);
}

CUDA_ON_CPU_UNSEEN inline void back_to_scheduler(Scheduler& all, Fiber& self) { change(all.tsan, self.context, all.context); }

CUDA_ON_CPU_UNSEEN inline void fiber_main() {
  Scheduler& all = scheduler();
  Fiber& self = *all.running;
  for (;;) {
    acquire(&all.block_begin);
    all.body(all.argument);
    release(&all.block_end);
    self.finished = true;
    back_to_scheduler(all, self);
  }
}

CUDA_ON_CPU_UNSEEN inline void resume(Scheduler& all, Fiber& fiber) {
  all.running = &fiber;
  change(fiber.tsan, all.context, fiber.context);
}

CUDA_ON_CPU_UNSEEN inline void prepare(Scheduler& all, unsigned threads) {
#if defined(__SANITIZE_THREAD__)
  all.tsan = __tsan_get_current_fiber();
#endif
  while (all.fibers.size() < threads) all.fibers.push_back(std::make_unique<Fiber>(fiber_main));
}

inline std::string place(const Fiber& fiber) {
  return "thread " + std::to_string(fiber.thread.x) + " waits at " + fiber.file + ":" + std::to_string(fiber.line);
}

CUDA_ON_CPU_UNSEEN inline void check_barrier(Scheduler& all, unsigned threads) {
  const Fiber* first = nullptr;
  for (unsigned t = 0; t < threads; ++t) {
    const Fiber& fiber = *all.fibers[t];
    if (fiber.finished) continue;
    if (first == nullptr) first = &fiber;
    if (fiber.line == first->line && std::strcmp(fiber.file, first->file) == 0) continue;
    const std::string text = "block " + std::to_string(fiber.block.x) + ": " + place(*first) + ", " + place(fiber);
    acquire(&all.block_end);
    all.fibers.clear();  // suspended in the middle of the kernel, of no further use
    throw BrokenBarrier(text);
  }
}

CUDA_ON_CPU_UNSEEN inline void run_block(Scheduler& all, unsigned block, unsigned blocks, unsigned threads) {
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = *all.fibers[t];
    fiber.thread = {t}, fiber.block = {block}, fiber.grid = {blocks};
    fiber.finished = false;
  }
  release(&all.block_begin);
  for (unsigned waiting = threads; waiting > 0; ++all.phase) {
    waiting = 0;
    for (unsigned i = 0; i < threads; ++i) {
      Fiber& fiber = *all.fibers[all.phase % 2 == 0 ? i : threads - 1 - i];
      if (fiber.finished) continue;
      resume(all, fiber);
      waiting += !fiber.finished;
    }
    check_barrier(all, threads);
  }
  acquire(&all.block_end);
}

}  // namespace detail

CUDA_ON_CPU_UNSEEN inline const Index* thread_index() { return &detail::scheduler().running->thread; }
CUDA_ON_CPU_UNSEEN inline const Index* block_index() { return &detail::scheduler().running->block; }
CUDA_ON_CPU_UNSEEN inline const Index* grid_dim() { return &detail::scheduler().running->grid; }

CUDA_ON_CPU_UNSEEN inline void synchronise(const char* file, int line) {
  detail::Scheduler& all = detail::scheduler();
  detail::Fiber& self = *all.running;
  self.file = file, self.line = line;
  char* const barrier = &all.barrier[all.phase % 2];
  detail::release(barrier);
  detail::release(&all.block_end);  // in case this barrier is the last thing it does
  detail::back_to_scheduler(all, self);
  detail::acquire(barrier);
}

// Runs body(shared) on `threads` threads of each of `blocks` blocks. Shared: a trivial type, the block's shared memory.
template <class Shared, class Body>
void launch(unsigned blocks, unsigned threads, const Body& body) {
  static_assert(std::is_trivially_destructible_v<Shared>);
  struct Argument {
    const Body* body;
    Shared* shared;
  };
  detail::Scheduler& all = detail::scheduler();
  detail::prepare(all, threads);
  for (unsigned block = 0; block < blocks; ++block) {
    const std::unique_ptr<unsigned char[]> memory(new unsigned char[sizeof(Shared)]);
    std::memset(memory.get(), 0xff, sizeof(Shared));
    Argument argument{&body, reinterpret_cast<Shared*>(memory.get())};
    all.argument = &argument;
    all.body = [](void* pointer) {
      const auto* own = static_cast<const Argument*>(pointer);
      (*own->body)(*own->shared);
    };
    detail::run_block(all, block, blocks, threads);
  }
}

}  // namespace cuda_on_cpu

// Device functions that the kernels use, as in CUDA: each returns the old value.
inline int atomicMin(int* address, int value) {
  std::atomic_ref<int> target(*address);
  int old = target.load();
  while (value < old && !target.compare_exchange_weak(old, value)) {
  }
  return old;
}
inline int atomicMax(int* address, int value) {
  std::atomic_ref<int> target(*address);
  int old = target.load();
  while (value > old && !target.compare_exchange_weak(old, value)) {
  }
  return old;
}
inline int atomicAdd(int* address, int value) { return std::atomic_ref<int>(*address).fetch_add(value); }
inline unsigned atomicOr(unsigned* address, unsigned value) { return std::atomic_ref<unsigned>(*address).fetch_or(value); }

// Bits of a word, as in CUDA.
// NOLINTBEGIN(bugprone-reserved-identifier)
inline int __popc(unsigned value) { return std::popcount(value); }
inline int __clz(int value) { return std::countl_zero(static_cast<unsigned>(value)); }
inline int __ffs(int value) { return value == 0 ? 0 : std::countr_zero(static_cast<unsigned>(value)) + 1; }
// NOLINTEND(bugprone-reserved-identifier)
