// The primitives of csrc/hetsp/attention/cuda/mma/warp_mma.cuh on the fibers of cuda_on_cpu.h. Include it before the kernels.
// What this finds, beyond cuda_on_cpu.h and warp_on_cpu.h:
//
//   a copy used too early     asynchronous copies arrive when the thread waits for them and no sooner; until then the
//   destination
//                             is NaN, and so is what a copy overwrites while others still read it
//   wrong operands            matrix products are computed from the registers of all lanes, by the layout of the PTX ISA
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "hetsp/attention/number.h"
#include "support/cuda_on_cpu.h"
#include "support/fast_math_on_cpu.h"
#include "support/warp_on_cpu.h"

namespace mma_on_cpu {

using cuda_on_cpu::Place;

constexpr int copies_layer = 2;  // of BlockState

struct Copy {
  void* to;
  const void* from;
  int size, bytes;  // bytes of size are read, the others are 0
};

// Asynchronous copies of each thread, in groups, of which the last is open.
struct Copies : cuda_on_cpu::BlockState {
  std::map<unsigned, std::vector<std::vector<Copy>>> groups;
};

inline std::vector<std::vector<Copy>>& own_groups() {
  const cuda_on_cpu::detail::Unseen unseen;
  auto& state = cuda_on_cpu::detail::scheduler().running->block->states[copies_layer];
  if (!state) state = std::make_unique<Copies>();
  auto& groups = static_cast<Copies&>(*state).groups[threadIdx.x];
  if (groups.empty()) groups.emplace_back();
  return groups;
}

inline void copy(void* shared, const void* global, int size, int bytes) {
  std::memset(shared, 0xff, static_cast<std::size_t>(size));
  own_groups().back().push_back({shared, global, size, bytes});
}

struct Row {
  std::uint16_t elements[8];
};
struct Words {
  std::uint32_t words[4];
};

template <bool Transposed>
void load(std::uint32_t (&r)[4], const void* row, const Place& where) {
  Row mine;
  std::memcpy(&mine, row, sizeof(mine));  // each lane reads its own row, in the sanitizers' eyes too
  const Words words = cuda_on_cpu::warp_collective<Words>(
      Transposed ? "ldmatrix, transposed" : "ldmatrix", mine,
      [](const Row* rows, Words* out, int lanes) {
        const auto element = [&](int matrix, int line, int column) -> std::uint32_t {
          return rows[8 * matrix + line].elements[column];
        };
        for (int lane = 0; lane < lanes; ++lane)
          for (int m = 0; m < 4; ++m) {
            const int g = lane / 4, t = lane % 4 * 2;
            out[lane].words[m] =
                Transposed ? element(m, t, g) | element(m, t + 1, g) << 16 : element(m, g, t) | element(m, g, t + 1) << 16;
          }
      },
      where);
  for (int m = 0; m < 4; ++m) r[m] = words.words[m];
}

struct Operands {
  std::uint32_t a[4], b[2];
  float d[4];
};
struct Sums {
  float d[4];
};

template <class Element>
double number(std::uint32_t word, int half) {
  return static_cast<double>(to_float(Element{static_cast<std::uint16_t>(word >> 16 * half)}));
}

template <class Element>
void multiply(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1, const char* name,
              const Place& where) {
  const Operands mine{{a[0], a[1], a[2], a[3]}, {b0, b1}, {d[0], d[1], d[2], d[3]}};
  const Sums sums = cuda_on_cpu::warp_collective<Sums>(
      name, mine,
      [](const Operands* all, Sums* out, int) {
        double left[16][16], right[16][8];
        for (int k = 0; k < 16; ++k) {
          const int t = k % 8 / 2;
          for (int i = 0; i < 16; ++i) left[i][k] = number<Element>(all[4 * (i % 8) + t].a[k / 8 * 2 + i / 8], k % 2);
          for (int n = 0; n < 8; ++n) right[k][n] = number<Element>(all[4 * n + t].b[k / 8], k % 2);
        }
        for (int i = 0; i < 16; ++i)
          for (int n = 0; n < 8; ++n) {
            const int lane = 4 * (i % 8) + n / 2, place = i / 8 * 2 + n % 2;
            auto sum = static_cast<double>(all[lane].d[place]);
            for (int k = 0; k < 16; ++k) sum += left[i][k] * right[k][n];
            out[lane].d[place] = static_cast<float>(sum);
          }
      },
      where);
  for (int i = 0; i < 4; ++i) d[i] = sums.d[i];
}

}  // namespace mma_on_cpu

namespace hetsp::attention::cuda::mma {

using mma_on_cpu::Place;

using SharedAddress = std::uintptr_t;
inline SharedAddress shared_address(const void* pointer) { return std::bit_cast<SharedAddress>(pointer); }
inline void* pointer_of(SharedAddress address) { return std::bit_cast<void*>(address); }

inline void load_matrices(std::uint32_t (&r)[4], SharedAddress row, const Place& where = Place::here()) {
  mma_on_cpu::load<false>(r, pointer_of(row), where);
}
inline void load_matrices_transposed(std::uint32_t (&r)[4], SharedAddress row, const Place& where = Place::here()) {
  mma_on_cpu::load<true>(r, pointer_of(row), where);
}

template <class Element>
void multiply(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
              const Place& where = Place::here());
template <>
inline void multiply<BFloat16>(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                               const Place& where) {
  mma_on_cpu::multiply<BFloat16>(d, a, b0, b1, "mma of bfloat16", where);
}
template <>
inline void multiply<Float16>(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                              const Place& where) {
  mma_on_cpu::multiply<Float16>(d, a, b0, b1, "mma of float16", where);
}

inline void converge(const Place& where = Place::here()) { cuda_on_cpu::warp_sync(where); }
inline bool any(bool flag, const Place& where = Place::here()) { return cuda_on_cpu::warp_ballot(flag, where) != 0; }
inline int uniform(int value, const Place& where = Place::here()) { return cuda_on_cpu::warp_shuffle(value, 0, where); }
inline float shuffle_xor(float value, int mask, const Place& where = Place::here()) {
  return cuda_on_cpu::warp_shuffle(value, static_cast<int>(threadIdx.x % 32) ^ mask, where);
}

inline void copy_16(SharedAddress shared, const void* global, int bytes) {
  mma_on_cpu::copy(pointer_of(shared), global, 16, bytes);
}
inline void copy_4(SharedAddress shared, const void* global, int bytes) {
  mma_on_cpu::copy(pointer_of(shared), global, 4, bytes);
}
inline void commit_copies() { mma_on_cpu::own_groups().emplace_back(); }
template <int N>
void wait_copies() {
  auto& groups = mma_on_cpu::own_groups();
  while (groups.size() > N + 1) {
    for (const mma_on_cpu::Copy& copy : groups.front()) {
      std::memset(copy.to, 0, static_cast<std::size_t>(copy.size));
      std::memcpy(copy.to, copy.from, static_cast<std::size_t>(copy.bytes));
    }
    groups.erase(groups.begin());
  }
}

inline float divide_fast(float a, float b) { return a / b; }

}  // namespace hetsp::attention::cuda::mma
