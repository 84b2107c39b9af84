// Blocks of a CUDA kernel on the CPU: threads as fibers that take turns, barriers, and what is found where they go wrong.
// cuda_on_cpu.h, which kernels are compiled with, gives this the names that they call it by.
//
// Each block runs on `threads` fibers of the calling thread (ucontext): a fiber runs until it has to wait, for
// __syncthreads() or for a condition of warp_on_cpu.h and hopper_on_cpu.h, then the next one does. A thread that returns early
// is no longer waited for, as on the device. What this finds:
//
//   a missing barrier         fibers run in rising order in one round and in falling order in the next, so a value that is
//                             read too early is the old one; and ThreadSanitizer, which is told of the fibers and of the
//                             barriers and of nothing else, reports the two accesses as a data race
//   a divergent barrier       threads waiting at different __syncthreads(): BrokenBarrier names both
//   a deadlock                no fiber can go on: Deadlock says which threads wait where, for what
//   shared memory             each block gets its own allocation of exactly sizeof(Shared) bytes, filled with NaN:
//                             AddressSanitizer sees a step outside, arithmetic sees what was never written
//
// Blocks run one after another, or Options::together of them at once. Options::seed 0 is the order above; from 2 on whole warps
// are held back at random, so that one runs far ahead of another. Not here: 2-D blocks, true parallelism.
//
// Long because the scheduler, what it schedules and what waits for it are one thing.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "hetsp/base/error.h"
#include "support/seen_by_sanitizers.h"

namespace cuda_on_cpu {

struct Index {
  unsigned x;
};

class BrokenBarrier : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};
class Deadlock : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};
// What the device would not have answered with an error: lanes that diverge, an operand outside shared memory, ...
class BrokenKernel : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

struct Options {
  unsigned together = 1;  // blocks that run at the same time
  unsigned seed = 0;  // 0: round by round; 1: the same, asynchronous work at once and not as late as it may; >= 2: random
  unsigned most_idle = 1000;  // rounds in which all that goes on is looking at memory, before that is a Deadlock
};

// What a layer above keeps for each block; finish() when its threads have returned.
class BlockState {
 public:
  BlockState() = default;
  BlockState(const BlockState&) = delete;
  BlockState& operator=(const BlockState&) = delete;
  virtual ~BlockState() = default;
  virtual bool work_when_idle() { return false; }  // did something that may let a fiber go on
  virtual void meet() {}  // all threads have come to a __syncthreads()
  virtual void finish() {}
};

using hetsp::concat;

// Where a kernel called.
struct Place {
  const char* file = "";
  int line = 0;
  static constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
  bool operator==(const Place& other) const { return line == other.line && std::strcmp(file, other.file) == 0; }
};

inline std::string text_of(const Place& where) {
  const char* const slash = std::strrchr(where.file, '/');
  return concat(slash == nullptr ? where.file : slash + 1, ":", where.line);
}

namespace detail {

constexpr std::size_t stack_bytes = 256 * 1024;

struct Block {
  Index index{}, grid{}, dim{};
  unsigned char* shared = nullptr;
  std::size_t shared_bytes = 0;
  unsigned live = 0, arrived = 0, generation = 0;  // of __syncthreads()
  Place first_place;  // of the arrivals
  unsigned first_thread = 0;
  char barrier[2] =
      {};  // addresses for ThreadSanitizer, in turn: a late fiber must not acquire what an early one released next
  std::map<int, std::unique_ptr<BlockState>> states;  // by the layer that owns it
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  Index thread{};
  Block* block = nullptr;
  void* tsan = nullptr;
  void* fake_stack = nullptr;
  bool finished = true;
  // What it waits for, in its own stack; null: it can go on.
  bool (*ready)(void*) = nullptr;
  void* condition = nullptr;
  void (*describe)(void*, std::string&) = nullptr;
  bool polling = false;  // it looks at memory, or votes on what the lanes of its warp have seen there
  bool voting = false;  // the second of these
  bool looked = false;  // what it does now comes behind the first

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
  std::vector<std::unique_ptr<Block>> blocks;
  ucontext_t context{};
  void* tsan = nullptr;
  void* fake_stack = nullptr;
  const void* own_stack = nullptr;
  std::size_t own_stack_bytes = 0;
  Fiber* running = nullptr;
  std::exception_ptr failure;
  void (*body)(void*, void*) = nullptr;
  void* argument = nullptr;
  Options options;
  std::uint64_t random = 0;
  unsigned round = 0;
  char block_begin = 0, block_end = 0;  // addresses for ThreadSanitizer

  std::uint32_t next_random() {
    random = random * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>(random >> 33);
  }
};

inline Scheduler& scheduler() {
  static Scheduler instance;
  return instance;
}

// Switching orders nothing in ThreadSanitizer's eyes (flag no_sync): only barriers do.
CUDA_ON_CPU_UNSEEN inline void enter(Scheduler& all, Fiber& fiber) {
  all.running = &fiber;
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(fiber.tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&all.fake_stack, fiber.stack.get(), stack_bytes);
#endif
  swapcontext(&all.context, &fiber.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(all.fake_stack, nullptr, nullptr);
#endif
}

CUDA_ON_CPU_UNSEEN inline void leave(Scheduler& all, Fiber& self) {
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(all.tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&self.fake_stack, all.own_stack, all.own_stack_bytes);
#endif
  swapcontext(&self.context, &all.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(self.fake_stack, &all.own_stack, &all.own_stack_bytes);
#endif
}

CUDA_ON_CPU_UNSEEN inline void complete_barrier(Block& block) {
  block.arrived = 0, ++block.generation;
  for (const auto& [layer, state] : block.states) state->meet();
}

CUDA_ON_CPU_UNSEEN inline void fiber_main() {
  Scheduler& all = scheduler();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &all.own_stack, &all.own_stack_bytes);
#endif
  Fiber& self = *all.running;
  for (;;) {
    acquire(&all.block_begin);
    try {
      all.body(all.argument, self.block->shared);
    } catch (...) {
      if (!all.failure) all.failure = std::current_exception();
    }
    release(&all.block_end);
    self.finished = true;
    {
      const Unseen unseen;
      Block& block = *self.block;
      --block.live;
      if (block.live > 0 && block.arrived == block.live) complete_barrier(block);
    }
    leave(all, self);
  }
}

// "threads 0-127, 160: text" for every text.
inline std::string who_waits(const Scheduler& all) {
  std::map<std::string, std::vector<const Fiber*>> by_text;
  for (const auto& fiber : all.fibers) {
    if (fiber->finished) continue;
    std::string text = "the scheduler";
    if (fiber->describe != nullptr) text.clear(), fiber->describe(fiber->condition, text);
    by_text[concat("block ", fiber->block->index.x, ": ", text)].push_back(fiber.get());
  }
  std::string result;
  for (const auto& [text, fibers] : by_text) {
    result += "\n  threads";
    for (std::size_t i = 0; i < fibers.size();) {
      std::size_t last = i;
      while (last + 1 < fibers.size() && fibers[last + 1]->thread.x == fibers[last]->thread.x + 1) ++last;
      result += concat(" ", fibers[i]->thread.x);
      if (last > i) result += concat("-", fibers[last]->thread.x);
      i = last + 1;
    }
    result += concat(" of ", text);
  }
  return result;
}

// One turn of every fiber that can go on. True if any could.
CUDA_ON_CPU_UNSEEN inline bool turn(Scheduler& all, std::size_t count) {
  bool progress = false, held = false;
  const std::uint32_t go = all.options.seed < 2 || all.round % 8 == 7 ? ~0u : all.next_random() | 1u << all.next_random() % 32;
  for (std::size_t i = 0; i < count && !all.failure; ++i) {
    const std::size_t at = all.round % 2 == 0 ? i : count - 1 - i;
    Fiber& fiber = *all.fibers[at];
    if (fiber.finished) continue;
    if ((go >> (at / 32 % 32) & 1u) == 0) {
      held = true;
      continue;
    }
    if (fiber.ready != nullptr && !fiber.ready(fiber.condition)) continue;
    const bool polled = fiber.polling;
    fiber.looked = polled && !fiber.voting;
    fiber.ready = nullptr, fiber.polling = fiber.voting = false;
    enter(all, fiber);
    progress |= !polled || !fiber.polling;  // one that only looked, and will look again, has done nothing
  }
  ++all.round;
  return progress || held;
}

CUDA_ON_CPU_UNSEEN inline void run_blocks(Scheduler& all, std::size_t threads) {
  const Unseen unseen;
  const std::size_t count = all.blocks.size() * threads;
  for (std::size_t i = 0; i < count; ++i) {
    Fiber& fiber = *all.fibers[i];
    fiber.block = all.blocks[i / threads].get();
    fiber.thread = {static_cast<unsigned>(i % threads)};
    fiber.finished = false, fiber.ready = nullptr, fiber.describe = nullptr;
    fiber.polling = fiber.voting = fiber.looked = false;
  }
  release(&all.block_begin);
  const auto all_finished = [&] {
    return std::all_of(all.fibers.begin(), all.fibers.begin() + static_cast<std::ptrdiff_t>(count),
                       [](const auto& fiber) { return fiber->finished; });
  };
  unsigned idle = 0;
  while (!all.failure && !all_finished()) {
    bool progress = turn(all, count);
    if (all.failure) break;
    if (!progress || (all.options.seed >= 2 && all.next_random() % 4 == 0))
      for (const auto& block : all.blocks)
        for (const auto& [layer, state] : block->states)
          if (!progress || all.options.seed >= 2) progress |= state->work_when_idle();
    idle = progress ? 0 : idle + 1;
    const bool polls = std::any_of(all.fibers.begin(), all.fibers.begin() + static_cast<std::ptrdiff_t>(count),
                                   [](const auto& fiber) { return !fiber->finished && fiber->polling; });
    if (idle > (polls ? all.options.most_idle : 0u)) {
      throw Deadlock(concat("nobody can go on:", who_waits(all)));
    }
  }
  acquire(&all.block_end);
  if (all.failure) std::rethrow_exception(std::exchange(all.failure, nullptr));
  for (const auto& block : all.blocks)
    for (const auto& [layer, state] : block->states) state->finish();
}

CUDA_ON_CPU_UNSEEN inline void prepare(Scheduler& all, std::size_t fibers, const Options& options) {
#if defined(__SANITIZE_THREAD__)
  all.tsan = __tsan_get_current_fiber();
#endif
  while (all.fibers.size() < fibers) all.fibers.push_back(std::make_unique<Fiber>(fiber_main));
  all.options = options;
  all.random = options.seed * 0x9e3779b97f4a7c15u + 12345;
  all.round = 0;
}

// Lets the others run until ready() holds. `describe` appends what is waited for. Called in the scope of an Unseen, which a
// fiber must not be in while it is suspended: it may be destroyed then.
template <class Ready, class Describe>
CUDA_ON_CPU_UNSEEN void wait_until(Ready&& ready, Describe&& describe, bool polling = false) {
  struct Condition {
    std::remove_reference_t<Ready>* ready;
    std::remove_reference_t<Describe>* describe;
  } condition{&ready, &describe};
  Scheduler& all = scheduler();
  Fiber& self = *all.running;
  self.condition = &condition;
  self.polling = polling;
  self.ready = [](void* pointer) -> bool { return (*static_cast<Condition*>(pointer)->ready)(); };
  self.describe = [](void* pointer, std::string& text) { (*static_cast<Condition*>(pointer)->describe)(text); };
  release(&all.block_end);  // in case this is the last thing it does
  Unseen::end();
  leave(all, self);
  Unseen::begin();
}

struct AlignedDelete {
  void operator()(unsigned char* memory) const { ::operator delete(memory, std::align_val_t{1024}); }
};

}  // namespace detail

CUDA_ON_CPU_UNSEEN inline const Index* thread_index() { return &detail::scheduler().running->thread; }
CUDA_ON_CPU_UNSEEN inline const Index* block_index() { return &detail::scheduler().running->block->index; }
CUDA_ON_CPU_UNSEEN inline const Index* block_dim() { return &detail::scheduler().running->block->dim; }
CUDA_ON_CPU_UNSEEN inline const Index* grid_dim() { return &detail::scheduler().running->block->grid; }

// Ends the launch: the device would have gone wrong in silence.
[[noreturn]] inline void fail(const std::string& what, const Place& where) {
  throw BrokenKernel(concat("block ", block_index()->x, " thread ", thread_index()->x, ": ", what, " at ", text_of(where)));
}

CUDA_ON_CPU_UNSEEN inline void synchronise(const Place& where) {
  const detail::Unseen unseen;
  detail::Fiber& self = *detail::scheduler().running;
  detail::Block& block = *self.block;
  const unsigned generation = block.generation;
  char* const barrier = &block.barrier[generation % 2];
  if (block.arrived == 0) {
    block.first_place = where, block.first_thread = self.thread.x;
  } else if (!(where == block.first_place)) {
    throw BrokenBarrier(concat("block ", block.index.x, ": thread ", block.first_thread, " waits at ",
                               text_of(block.first_place), ", thread ", self.thread.x, " waits at ", text_of(where)));
  }
  detail::release(barrier);
  if (++block.arrived == block.live) detail::complete_barrier(block);
  detail::wait_until([&] { return block.generation != generation; },
                     [&](std::string& text) { text += concat("__syncthreads at ", text_of(where)); });
  detail::acquire(barrier);
}

// The body of a loop that looks at memory until another thread or block has written it.
inline void yield(const Place& where = Place::here()) {
  const detail::Unseen unseen;
  detail::wait_until([] { return true; }, [&](std::string& text) { text += concat("polling at ", text_of(where)); }, true);
}

// Runs body(shared) on `threads` threads of each of `blocks` blocks. Shared: a trivial type, the block's shared memory.
// prepare_block(block) may add what a layer keeps for each.
template <class Shared, class Body>
void launch(unsigned blocks, unsigned threads, const Body& body, const Options& options = {},
            const std::function<void(detail::Block&)>& prepare_block = {}) {
  static_assert(std::is_trivially_destructible_v<Shared>);
  detail::Scheduler& all = detail::scheduler();
  const unsigned together = std::clamp(options.together, 1u, std::max(blocks, 1u));
  detail::prepare(all, static_cast<std::size_t>(together) * threads, options);
  all.argument = const_cast<void*>(static_cast<const void*>(&body));
  all.body = [](void* function, void* shared) { (*static_cast<const Body*>(function))(*static_cast<Shared*>(shared)); };
  for (unsigned first = 0; first < blocks; first += together) {
    std::vector<std::unique_ptr<unsigned char, detail::AlignedDelete>> memory;
    all.blocks.clear();
    for (unsigned b = first; b < std::min(blocks, first + together); ++b) {
      memory.emplace_back(static_cast<unsigned char*>(::operator new(sizeof(Shared), std::align_val_t{1024})));
      std::memset(memory.back().get(), 0xff, sizeof(Shared));
      auto block = std::make_unique<detail::Block>();
      block->index = {b}, block->grid = {blocks}, block->dim = {threads}, block->live = threads;
      block->shared = memory.back().get(), block->shared_bytes = sizeof(Shared);
      if (prepare_block) prepare_block(*block);
      all.blocks.push_back(std::move(block));
    }
    try {
      detail::run_blocks(all, threads);
    } catch (...) {
      detail::acquire(&all.block_end);
      const detail::Unseen unseen;
      all.fibers.clear();  // suspended in the middle of the kernel, of no further use
      all.blocks.clear();
      throw;
    }
    all.blocks.clear();
  }
}

}  // namespace cuda_on_cpu
