// The primitives of csrc/hetsp/attention/cuda/mma/warp_mma.cuh on the fibers of cuda_on_cpu.h. Include it before the kernels;
// launch with mma_on_cpu::launch, whose scheduler knows warps: a lane that calls a collective waits until all 32 have called
// one.
//
// What this finds, beyond cuda_on_cpu.h:
//
//   a divergent collective    lanes of a warp at different primitives, or some at __syncthreads(): BrokenBarrier
//   a copy used too early     asynchronous copies arrive when the thread waits for them and no sooner; until then the
//   destination
//                             is NaN, and so is what a copy overwrites while others still read it
//   wrong operands            matrix products are computed from the registers of all lanes, by the layout of the PTX ISA
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "hetsp/attention/number.h"
#include "support/cuda_on_cpu.h"

namespace mma_on_cpu {

constexpr unsigned lanes = 32;

enum class Call : std::uint8_t { none, load, load_transposed, multiply_bfloat16, multiply_float16, shuffle };

// What the lanes of a warp hand each other. Two in turn: nobody can be two calls ahead.
struct Exchange {
  std::uint32_t a[lanes][4], b[lanes][2];
  float d[lanes][4];
  bool computed = false;
};

struct Copy {
  void* to;
  const void* from;
  int size, bytes;  // bytes of size are read, the others are 0
};

struct Lane {
  Call waits = Call::none;
  unsigned calls = 0;
  std::vector<std::vector<Copy>> groups;  // of asynchronous copies, the last one open
};

struct Block {
  std::vector<Lane> lane;
  std::vector<Exchange> exchange;  // two for each warp
};

inline Block& block() {
  static Block instance;
  return instance;
}

CUDA_ON_CPU_UNSEEN inline Lane& self() { return block().lane[threadIdx.x]; }

// Hands in this lane's part and returns when all lanes have.
template <class Deposit>
CUDA_ON_CPU_UNSEEN Exchange& meet(Call call, const Deposit& deposit) {
  namespace detail = cuda_on_cpu::detail;
  detail::Scheduler& all = detail::scheduler();
  Lane& lane = self();
  Exchange& exchange = block().exchange[threadIdx.x / lanes * 2 + lane.calls++ % 2];
  exchange.computed = false;
  deposit(exchange, threadIdx.x % lanes);
  lane.waits = call;
  detail::release(&exchange);
  detail::release(&all.block_end);
  detail::back_to_scheduler(all, *all.running);
  detail::acquire(&exchange);
  return exchange;
}

CUDA_ON_CPU_UNSEEN inline std::uint16_t half_of(std::uint32_t word, unsigned which) {
  return static_cast<std::uint16_t>(word >> 16 * which);
}

// Runs the lanes of one warp until each waits at a barrier of the block or has returned.
CUDA_ON_CPU_UNSEEN inline void run_warp(cuda_on_cpu::detail::Scheduler& all, unsigned first) {
  for (;;) {
    unsigned waiting = 0, finished = 0;
    Call call = Call::none;
    for (unsigned i = 0; i < lanes; ++i) {
      const unsigned t = first + (all.phase % 2 == 0 ? i : lanes - 1 - i);
      cuda_on_cpu::detail::Fiber& fiber = *all.fibers[t];
      if (fiber.finished) {
        ++finished;
        continue;
      }
      Lane& lane = block().lane[t];
      lane.waits = Call::none;
      cuda_on_cpu::detail::resume(all, fiber);
      if (lane.waits == Call::none) continue;
      if (waiting++ == 0) call = lane.waits;
      if (lane.waits != call) waiting = lanes + 1;
    }
    if (waiting == 0) return;
    if (waiting == lanes) continue;
    cuda_on_cpu::detail::acquire(&all.block_end);
    all.fibers.clear();
    throw cuda_on_cpu::BrokenBarrier("warp " + std::to_string(first / lanes) + ": " + std::to_string(waiting) +
                                     " lanes at a collective, or at different ones");
  }
}

CUDA_ON_CPU_UNSEEN inline void run_block(cuda_on_cpu::detail::Scheduler& all, unsigned index, unsigned blocks,
                                         unsigned threads) {
  for (unsigned t = 0; t < threads; ++t) {
    cuda_on_cpu::detail::Fiber& fiber = *all.fibers[t];
    fiber.thread = {t}, fiber.block = {index}, fiber.grid = {blocks};
    fiber.finished = false;
  }
  block().lane.assign(threads, Lane{});
  for (Lane& lane : block().lane) lane.groups.resize(1);
  block().exchange.resize(threads / lanes * 2);
  cuda_on_cpu::detail::release(&all.block_begin);
  for (bool waiting = true; waiting; ++all.phase) {
    const unsigned warps = threads / lanes;
    for (unsigned w = 0; w < warps; ++w) run_warp(all, (all.phase % 2 == 0 ? w : warps - 1 - w) * lanes);
    waiting = false;
    for (unsigned t = 0; t < threads; ++t) waiting = waiting || !all.fibers[t]->finished;
    cuda_on_cpu::detail::check_barrier(all, threads);
  }
  cuda_on_cpu::detail::acquire(&all.block_end);
}

// As cuda_on_cpu::launch; `threads` is a multiple of 32.
template <class Shared, class Body>
void launch(unsigned blocks, unsigned threads, const Body& body) {
  static_assert(std::is_trivially_destructible_v<Shared>);
  struct Argument {
    const Body* body;
    Shared* shared;
  };
  cuda_on_cpu::detail::Scheduler& all = cuda_on_cpu::detail::scheduler();
  cuda_on_cpu::detail::prepare(all, threads);
  for (unsigned index = 0; index < blocks; ++index) {
    constexpr std::align_val_t alignment{alignof(Shared) < 16 ? 16 : alignof(Shared)};
    void* const memory = ::operator new(sizeof(Shared), alignment);
    std::memset(memory, 0xff, sizeof(Shared));
    Argument argument{&body, static_cast<Shared*>(memory)};
    all.argument = &argument;
    all.body = [](void* pointer) {
      const auto* own = static_cast<const Argument*>(pointer);
      (*own->body)(*own->shared);
    };
    mma_on_cpu::run_block(all, index, blocks, threads);
    ::operator delete(memory, sizeof(Shared), alignment);
  }
}

}  // namespace mma_on_cpu

namespace hetsp::attention::cuda::mma {

namespace emulated {

// One number in the format of Element.
template <class Element>
float number(std::uint16_t bits) {
  return to_float(Element{bits});
}

template <bool Transposed>
void load(std::uint32_t (&r)[4], const void* row) {
  using namespace mma_on_cpu;
  std::uint32_t words[4];
  std::memcpy(words, row, sizeof(words));  // each lane reads its own row, in the sanitizers' eyes too
  const Exchange& exchange = meet(Transposed ? Call::load_transposed : Call::load, [&](Exchange& e, unsigned lane) {
    for (unsigned i = 0; i < 4; ++i) e.a[lane][i] = words[i];
  });
  const unsigned lane = threadIdx.x % lanes, g = lane / 4, t = lane % 4;
  const auto element = [&](unsigned m, unsigned line, unsigned column) -> std::uint32_t {
    return half_of(exchange.a[8 * m + line][column / 2], column % 2);
  };
  for (unsigned m = 0; m < 4; ++m)
    r[m] = Transposed ? element(m, 2 * t, g) | element(m, 2 * t + 1, g) << 16
                      : element(m, g, 2 * t) | element(m, g, 2 * t + 1) << 16;
}

template <class Element>
CUDA_ON_CPU_UNSEEN void multiply(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                                 mma_on_cpu::Call call) {
  using namespace mma_on_cpu;
  Exchange& exchange = meet(call, [&](Exchange& e, unsigned lane) {
    for (unsigned i = 0; i < 4; ++i) e.a[lane][i] = a[i], e.d[lane][i] = d[i];
    e.b[lane][0] = b0, e.b[lane][1] = b1;
  });
  if (!exchange.computed) {  // by the first lane that wakes, for all
    exchange.computed = true;
    double left[16][16], right[16][8];
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned t = k % 8 / 2;
      for (unsigned i = 0; i < 16; ++i)
        left[i][k] = static_cast<double>(number<Element>(half_of(exchange.a[4 * (i % 8) + t][k / 8 * 2 + i / 8], k % 2)));
      for (unsigned n = 0; n < 8; ++n)
        right[k][n] = static_cast<double>(number<Element>(half_of(exchange.b[4 * n + t][k / 8], k % 2)));
    }
    for (unsigned i = 0; i < 16; ++i)
      for (unsigned n = 0; n < 8; ++n) {
        float& place = exchange.d[4 * (i % 8) + n / 2][i / 8 * 2 + n % 2];
        double sum = 0;
        for (unsigned k = 0; k < 16; ++k) sum += left[i][k] * right[k][n];
        place = static_cast<float>(static_cast<double>(place) + sum);
      }
  }
  for (unsigned i = 0; i < 4; ++i) d[i] = exchange.d[threadIdx.x % lanes][i];
}

inline void copy(void* shared, const void* global, int size, int bytes) {
  std::memset(shared, 0xff, static_cast<std::size_t>(size));
  mma_on_cpu::self().groups.back().push_back({shared, global, size, bytes});
}

}  // namespace emulated

inline void load_matrices(std::uint32_t (&r)[4], const void* row) { emulated::load<false>(r, row); }
inline void load_matrices_transposed(std::uint32_t (&r)[4], const void* row) { emulated::load<true>(r, row); }

template <class Element>
void multiply(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1);
template <>
inline void multiply<BFloat16>(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  emulated::multiply<BFloat16>(d, a, b0, b1, mma_on_cpu::Call::multiply_bfloat16);
}
template <>
inline void multiply<Float16>(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  emulated::multiply<Float16>(d, a, b0, b1, mma_on_cpu::Call::multiply_float16);
}

inline void converge() {}
inline float shuffle_xor(float value, int mask) {
  const mma_on_cpu::Exchange& exchange =
      mma_on_cpu::meet(mma_on_cpu::Call::shuffle, [&](mma_on_cpu::Exchange& e, unsigned lane) { e.d[lane][0] = value; });
  return exchange.d[threadIdx.x % mma_on_cpu::lanes ^ static_cast<unsigned>(mask)][0];
}

inline void copy_16(void* shared, const void* global, int bytes) { emulated::copy(shared, global, 16, bytes); }
inline void copy_4(void* shared, const void* global, int bytes) { emulated::copy(shared, global, 4, bytes); }
inline void commit_copies() { mma_on_cpu::self().groups.emplace_back(); }
template <int N>
void wait_copies() {
  auto& groups = mma_on_cpu::self().groups;
  while (groups.size() > N + 1) {
    for (const mma_on_cpu::Copy& copy : groups.front()) {
      std::memset(copy.to, 0, static_cast<std::size_t>(copy.size));
      std::memcpy(copy.to, copy.from, static_cast<std::size_t>(copy.bytes));
    }
    groups.erase(groups.begin());
  }
}

inline float exp2_fast(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0.0f : y;
}
inline float divide_fast(float a, float b) { return a / b; }

template <class Element>
std::uint32_t pack(float low, float high);
template <>
inline std::uint32_t pack<BFloat16>(float low, float high) {
  return to_bfloat16(low).bits | static_cast<std::uint32_t>(to_bfloat16(high).bits) << 16;
}
template <>
inline std::uint32_t pack<Float16>(float low, float high) {
  return to_float16(low).bits | static_cast<std::uint32_t>(to_float16(high).bits) << 16;
}

}  // namespace hetsp::attention::cuda::mma
