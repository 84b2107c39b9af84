// What the 32 lanes of a warp do together, on the fibers of cuda_on_cpu.h. Every lane brings a value, the last one to come
// computes all results, each takes its own:
//
//   const Out mine = cuda_on_cpu::warp_collective<Out>("name", in, [](const In* all, Out* results, int lanes) { ... });
//
// Lanes that meet in different calls are a BrokenKernel, lanes that never come a Deadlock. All 32 lanes take part: there are no
// partial masks. In and Out are trivially copyable, of at most 256 bytes.
#pragma once

#include <array>
#include <bit>

#include "support/cuda_on_cpu.h"

namespace cuda_on_cpu {

namespace detail {

struct Warp {
  unsigned generation = 0;
  int arrived = 0;
  const char* name = "";
  Place where;
  // In turn: a lane may begin the next collective before another has taken its result of this one.
  alignas(16) unsigned char in[2][32 * 256], out[2][32 * 256];
  char barrier[2] = {};
};

struct Warps : BlockState {
  std::map<unsigned, Warp> warps;
};

constexpr int warps_layer = 0, hopper_layer = 1;

inline Warp& own_warp() {
  Block& block = *scheduler().running->block;
  auto& state = block.states[warps_layer];
  if (!state) state = std::make_unique<Warps>();
  return static_cast<Warps&>(*state).warps[threadIdx.x / 32];
}

}  // namespace detail

template <class Out, class In, class Compute>
CUDA_ON_CPU_UNSEEN Out warp_collective(const char* name, const In& mine, const Compute& compute,
                                       const Place& where = Place::here(), bool is_vote = false) {
  static_assert(std::is_trivially_copyable_v<In> && std::is_trivially_copyable_v<Out> && sizeof(In) <= 256 &&
                sizeof(Out) <= 256);
  const detail::Unseen unseen;
  detail::Warp& warp = detail::own_warp();
  const int lane = static_cast<int>(threadIdx.x % 32),
            lanes = static_cast<int>(std::min(32u, blockDim.x - threadIdx.x / 32 * 32));
  const unsigned generation = warp.generation, slot = generation % 2;
  if (warp.arrived == 0) {
    warp.name = name, warp.where = where;
  } else if (std::strcmp(warp.name, name) != 0) {
    fail(concat("lanes diverge: ", name, ", while others are in ", warp.name, " at ", text_of(warp.where)), where);
  }
  In* const in = reinterpret_cast<In*>(warp.in[slot]);
  Out* const out = reinterpret_cast<Out*>(warp.out[slot]);
  in[lane] = mine;
  detail::release(&warp.barrier[slot]);
  if (++warp.arrived == lanes) {
    compute(static_cast<const In*>(in), out, lanes);
    warp.arrived = 0;
    ++warp.generation;
  } else {
    detail::Fiber& self = *detail::scheduler().running;
    self.voting = is_vote && self.looked;  // a warp that looks at memory together does nothing else by that
    detail::wait_until([&] { return warp.generation != generation; },
                       [&](std::string& text) { text += concat(name, " of a warp at ", text_of(where)); }, self.voting);
  }
  detail::acquire(&warp.barrier[slot]);
  return out[lane];
}

// The lanes meet.
inline void warp_sync(const Place& where = Place::here()) {
  warp_collective<char>("__syncwarp", '\0', [](const char*, char* out, int lanes) { std::fill_n(out, lanes, '\0'); }, where);
}

template <class T>
T warp_shuffle(T value, int lane, const Place& where = Place::here()) {
  struct Wish {
    T value;
    int lane;
  };
  return warp_collective<T>(
      "shuffle", Wish{value, lane},
      [](const Wish* all, T* out, int lanes) {
        for (int i = 0; i < lanes; ++i) out[i] = all[all[i].lane % 32].value;
      },
      where);
}

// Bit i: lane i's flag.
inline std::uint32_t warp_ballot(bool flag, const Place& where = Place::here()) {
  return warp_collective<std::uint32_t>(
      "ballot", flag,
      [](const bool* all, std::uint32_t* out, int lanes) {
        std::uint32_t bits = 0;
        for (int i = 0; i < lanes; ++i) bits |= static_cast<std::uint32_t>(all[i]) << i;
        std::fill_n(out, lanes, bits);
      },
      where, true);
}

}  // namespace cuda_on_cpu

// The intrinsics of the same name; `mask` must be all lanes.
// NOLINTBEGIN(bugprone-reserved-identifier)
#define __syncwarp() cuda_on_cpu::warp_sync({__FILE__, __LINE__})
#define __shfl_sync(mask, value, lane) cuda_on_cpu::warp_shuffle(value, lane, {__FILE__, __LINE__})
#define __shfl_xor_sync(mask, value, bits) \
  cuda_on_cpu::warp_shuffle(value, static_cast<int>(threadIdx.x % 32) ^ (bits), {__FILE__, __LINE__})
#define __shfl_up_sync(mask, value, lanes)                                                                               \
  cuda_on_cpu::warp_shuffle(value,                                                                                       \
                            static_cast<int>(threadIdx.x % 32) < (lanes) ? static_cast<int>(threadIdx.x % 32)            \
                                                                         : static_cast<int>(threadIdx.x % 32) - (lanes), \
                            {__FILE__, __LINE__})
#define __ballot_sync(mask, flag) cuda_on_cpu::warp_ballot(flag, {__FILE__, __LINE__})
#define __any_sync(mask, flag) (cuda_on_cpu::warp_ballot(flag, {__FILE__, __LINE__}) != 0)
#define __all_sync(mask, flag) (cuda_on_cpu::warp_ballot(!(flag), {__FILE__, __LINE__}) == 0)
inline std::uint32_t __float_as_uint(float value) { return std::bit_cast<std::uint32_t>(value); }
inline float __uint_as_float(std::uint32_t bits) { return std::bit_cast<float>(bits); }
inline void __threadfence() {}
inline void __nanosleep(unsigned) { cuda_on_cpu::yield(); }
// NOLINTEND(bugprone-reserved-identifier)
