// Matrix products of a warpgroup: D (64 x N, float32, in registers) = A (64 x 16) B (16 x N) [+ D], asynchronously. B lies in
// shared memory, A there or in registers.
//
// Accumulator: in warp w, lane l, register 4 j + 2 h + e holds row 16 w + l / 4 + 8 h, column 8 j + 2 (l mod 4) + e. So
// registers [8 s, 8 s + 8) of one product, packed in pairs, are the A of k-step s of the next: P feeds P V without a shuffle.
//
// mma_fence() before the first product that reads registers or shared memory which the thread has touched; mma_commit() closes
// a group; mma_wait<N>() until at most N groups run. Until then nobody may touch the group's registers: hold() keeps the
// compiler from doing it.
#pragma once

#include <cstdint>
#include <type_traits>

#include "hetsp/attention/cuda/hopper/warp.cuh"

#if defined(__CUDACC__)

namespace hetsp::attention::cuda::hopper {

__device__ inline void mma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void mma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N>
__device__ inline void mma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
template <class T, int N>
__device__ inline void hold(T (&registers)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if constexpr (std::is_same_v<T, float>) {
      asm volatile("" : "+f"(registers[i])::"memory");
    } else {
      asm volatile("" : "+r"(registers[i])::"memory");
    }
  }
}

// The operands of an asm statement have literal numbers. HETSP_R<g> names accumulators 0 to 8 g + 7, HETSP_D<g> binds them.
// clang-format off
#define HETSP_R0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define HETSP_R1 HETSP_R0 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define HETSP_R2 HETSP_R1 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define HETSP_R3 HETSP_R2 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define HETSP_R4 HETSP_R3 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define HETSP_R5 HETSP_R4 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define HETSP_R6 HETSP_R5 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define HETSP_R7 HETSP_R6 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define HETSP_R8 HETSP_R7 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define HETSP_R9 HETSP_R8 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define HETSP_R10 HETSP_R9 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define HETSP_R11 HETSP_R10 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define HETSP_R12 HETSP_R11 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define HETSP_R13 HETSP_R12 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define HETSP_R14 HETSP_R13 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define HETSP_R15 HETSP_R14 ", %120, %121, %122, %123, %124, %125, %126, %127"
#define HETSP_EIGHT(g) "+f"(d[8 * g]), "+f"(d[8 * g + 1]), "+f"(d[8 * g + 2]), "+f"(d[8 * g + 3]), \
                       "+f"(d[8 * g + 4]), "+f"(d[8 * g + 5]), "+f"(d[8 * g + 6]), "+f"(d[8 * g + 7])
#define HETSP_D0 HETSP_EIGHT(0)
#define HETSP_D1 HETSP_D0, HETSP_EIGHT(1)
#define HETSP_D2 HETSP_D1, HETSP_EIGHT(2)
#define HETSP_D3 HETSP_D2, HETSP_EIGHT(3)
#define HETSP_D4 HETSP_D3, HETSP_EIGHT(4)
#define HETSP_D5 HETSP_D4, HETSP_EIGHT(5)
#define HETSP_D6 HETSP_D5, HETSP_EIGHT(6)
#define HETSP_D7 HETSP_D6, HETSP_EIGHT(7)
#define HETSP_D8 HETSP_D7, HETSP_EIGHT(8)
#define HETSP_D9 HETSP_D8, HETSP_EIGHT(9)
#define HETSP_D10 HETSP_D9, HETSP_EIGHT(10)
#define HETSP_D11 HETSP_D10, HETSP_EIGHT(11)
#define HETSP_D12 HETSP_D11, HETSP_EIGHT(12)
#define HETSP_D13 HETSP_D12, HETSP_EIGHT(13)
#define HETSP_D14 HETSP_D13, HETSP_EIGHT(14)
#define HETSP_D15 HETSP_D14, HETSP_EIGHT(15)

// p0 to p6: the numbers of the operands behind the accumulators: of a shared A: A, B, flag, transpositions of A and of B; with A in
// registers: its four, B, flag, transposition of B.
#define HETSP_SS(n, type, g, p0, p1, p2, p3, p4)                                                                               \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " p2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type     \
               " {" HETSP_R##g "}, " p0 ", " p1 ", p, 1, 1, " p3 ", " p4 ";\n}"                                               \
               : HETSP_D##g                                                                                                    \
               : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(TransposeA ? 1 : 0), "n"(TransposeB ? 1 : 0))
#define HETSP_RS(n, type, g, p0, p1, p2, p3, p4, p5, p6)                                                                       \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " p5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type     \
               " {" HETSP_R##g "}, {" p0 ", " p1 ", " p2 ", " p3 "}, " p4 ", p, 1, 1, " p6 ";\n}"                             \
               : HETSP_D##g                                                                                                    \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)),                        \
                 "n"(TransposeB ? 1 : 0))
#define HETSP_WIDTH_SS(n, g, p0, p1, p2, p3, p4)                                                                               \
  if constexpr (N == n && std::is_same_v<Element, BFloat16>) HETSP_SS(n, "bf16", g, p0, p1, p2, p3, p4);                       \
  if constexpr (N == n && std::is_same_v<Element, Float16>) HETSP_SS(n, "f16", g, p0, p1, p2, p3, p4)
#define HETSP_WIDTH_RS(n, g, p0, p1, p2, p3, p4, p5, p6)                                                                       \
  if constexpr (N == n && std::is_same_v<Element, BFloat16>) HETSP_RS(n, "bf16", g, p0, p1, p2, p3, p4, p5, p6);               \
  if constexpr (N == n && std::is_same_v<Element, Float16>) HETSP_RS(n, "f16", g, p0, p1, p2, p3, p4, p5, p6)
// clang-format on

template <int N>
constexpr bool mma_has_width =
    N == 16 || N == 32 || N == 64 || N == 80 || N == 96 || N == 128 || N == 160 || N == 176 || N == 192 || N == 256;

// D = A B, or D += A B where `accumulate`. Descriptors from SharedTile: k_major, or mn_major for an operand that is transposed.
template <class Element, int N, bool TransposeA = false, bool TransposeB = false>
__device__ inline void mma_ss(float (&d)[N / 2], std::uint64_t a, std::uint64_t b, bool accumulate) {
  static_assert(mma_has_width<N>, "a width without its line below");
  HETSP_WIDTH_SS(16, 0, "%8", "%9", "%10", "%11", "%12");
  HETSP_WIDTH_SS(32, 1, "%16", "%17", "%18", "%19", "%20");
  HETSP_WIDTH_SS(64, 3, "%32", "%33", "%34", "%35", "%36");
  HETSP_WIDTH_SS(80, 4, "%40", "%41", "%42", "%43", "%44");
  HETSP_WIDTH_SS(96, 5, "%48", "%49", "%50", "%51", "%52");
  HETSP_WIDTH_SS(128, 7, "%64", "%65", "%66", "%67", "%68");
  HETSP_WIDTH_SS(160, 9, "%80", "%81", "%82", "%83", "%84");
  HETSP_WIDTH_SS(176, 10, "%88", "%89", "%90", "%91", "%92");
  HETSP_WIDTH_SS(192, 11, "%96", "%97", "%98", "%99", "%100");
  HETSP_WIDTH_SS(256, 15, "%128", "%129", "%130", "%131", "%132");
}

// The same with A in registers, see above: a[0], a[1] hold rows l / 4 and l / 4 + 8 of columns 0 to 7, a[2], a[3] of 8 to 15.
template <class Element, int N, bool TransposeB = false>
__device__ inline void mma_rs(float (&d)[N / 2], const std::uint32_t (&a)[4], std::uint64_t b, bool accumulate) {
  static_assert(mma_has_width<N>, "a width without its line below");
  HETSP_WIDTH_RS(16, 0, "%8", "%9", "%10", "%11", "%12", "%13", "%14");
  HETSP_WIDTH_RS(32, 1, "%16", "%17", "%18", "%19", "%20", "%21", "%22");
  HETSP_WIDTH_RS(64, 3, "%32", "%33", "%34", "%35", "%36", "%37", "%38");
  HETSP_WIDTH_RS(80, 4, "%40", "%41", "%42", "%43", "%44", "%45", "%46");
  HETSP_WIDTH_RS(96, 5, "%48", "%49", "%50", "%51", "%52", "%53", "%54");
  HETSP_WIDTH_RS(128, 7, "%64", "%65", "%66", "%67", "%68", "%69", "%70");
  HETSP_WIDTH_RS(160, 9, "%80", "%81", "%82", "%83", "%84", "%85", "%86");
  HETSP_WIDTH_RS(176, 10, "%88", "%89", "%90", "%91", "%92", "%93", "%94");
  HETSP_WIDTH_RS(192, 11, "%96", "%97", "%98", "%99", "%100", "%101", "%102");
  HETSP_WIDTH_RS(256, 15, "%128", "%129", "%130", "%131", "%132", "%133", "%134");
}

#undef HETSP_WIDTH_RS
#undef HETSP_WIDTH_SS
#undef HETSP_RS
#undef HETSP_SS

}  // namespace hetsp::attention::cuda::hopper

#endif  // __CUDACC__
