// Cases of wgmma.cuh and of the descriptors of shared_tile.cuh.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "attention/hopper_case.cuh"

namespace hopper_primitives {

// Register r of thread t of a warpgroup holds this element of the 64 x N product.
__host__ __device__ inline int accumulator_row(int thread, int r) {
  return thread / 32 * 16 + thread % 32 / 4 + (r / 2 % 2) * 8;
}
__host__ __device__ inline int accumulator_column(int thread, int r) { return r / 4 * 8 + thread % 4 * 2 + r % 2; }

enum class From { k_major, mn_major, registers };

// d += A B with A (M x K) from `A`, B (K x N) stored [N][K], or [K][N] where MnB; 64 rows of A for each of two warpgroups. The
// operands are written by ordinary stores, so fence_async_proxy is at work too.
template <class Element, int N, From A, bool MnB>
struct Product {
  static constexpr int warpgroups = 2, threads = 128 * warpgroups, M = 64 * warpgroups, K = 128;
  using TileA = std::conditional_t<A == From::mn_major, SharedTile<K, M>, SharedTile<M, K>>;
  using TileB = std::conditional_t<MnB, SharedTile<K, N>, SharedTile<N, K>>;
  struct Shared {
    alignas(1024) unsigned char a[TileA::bytes];
    alignas(1024) unsigned char b[TileB::bytes];
  };
  const float* a;  // [M][K]
  const float* b;  // [K][N]
  float* d;  // [M][N]

  __device__ static void put(unsigned char* tile, int offset, float value) {
    *reinterpret_cast<std::uint16_t*>(tile + offset) = round_to<Element>(value);
  }

  __device__ void operator()(Shared& shared) const {
    const int thread = static_cast<int>(threadIdx.x), local = thread % 128, first = thread / 128 * 64;
    for (int i = thread; i < TileB::bytes / 4; i += threads)
      reinterpret_cast<std::uint32_t*>(shared.b)[i] = 0x7fff7fffu;  // NaN
    __syncthreads();
    for (int i = thread; i < M * K; i += threads)
      put(shared.a, A == From::mn_major ? TileA::offset(i % K, i / K) : TileA::offset(i / K, i % K), a[i]);
    for (int i = thread; i < K * N; i += threads)
      put(shared.b, MnB ? TileB::offset(i / N, i % N) : TileB::offset(i % N, i / N), b[i]);
    fence_async_proxy();
    __syncthreads();

    float sum[N / 2];
#pragma unroll
    for (int r = 0; r < N / 2; ++r) sum[r] = d[(first + accumulator_row(local, r)) * N + accumulator_column(local, r)];
    std::uint32_t fragment[K / 16][4];
    if constexpr (A == From::registers) {
#pragma unroll
      for (int i = 0; i < K / 4; ++i) {  // as if a product had left them in registers 2 i, 2 i + 1
        const float* row = a + (first + accumulator_row(local, 2 * i)) * K + accumulator_column(local, 2 * i);
        fragment[i / 4][i % 4] = pack<Element>(row[0], row[1]);
      }
    }
    hold(sum);
    mma_fence();
#pragma unroll
    for (int k = 0; k < K; k += 16) {
      std::uint64_t right = 0;
      if constexpr (MnB) {
        right = TileB::mn_major(shared.b, k, 0);
      } else {
        right = TileB::k_major(shared.b, 0, k);
      }
      if constexpr (A == From::registers) {
        mma_rs<Element, N, MnB>(sum, fragment[k / 16], right, true);
      } else if constexpr (A == From::mn_major) {
        mma_ss<Element, N, true, MnB>(sum, TileA::mn_major(shared.a, k, first), right, true);
      } else {
        mma_ss<Element, N, false, MnB>(sum, TileA::k_major(shared.a, first, k), right, true);
      }
    }
    mma_commit();
    mma_wait<0>();
    hold(sum);
#pragma unroll
    for (int r = 0; r < N / 2; ++r) d[(first + accumulator_row(local, r)) * N + accumulator_column(local, r)] = sum[r];
  }
};

template <class Element, int N, From A, bool MnB>
std::string product() {
  using Case = Product<Element, N, A, MnB>;
  const std::vector<float> a = integers(Case::M * Case::K, 1, 8), b = integers(Case::K * N, 2, 8),
                           d = integers(Case::M * N, 3, 1000);
  std::vector<float> wanted = d;
  for (int m = 0; m < Case::M; ++m)
    for (int k = 0; k < Case::K; ++k)
      for (int n = 0; n < N; ++n) wanted[m * N + n] += a[m * Case::K + k] * b[k * N + n];
  backend::Buffer<float> da(a), db(b), dd(d);
  backend::run(1, Case{da.device(), db.device(), dd.device()});
  return compare("d", dd.fetch(), wanted);
}

// O = (Q K^T) V, the middle product packed in registers as attention does it, in two groups that overlap: waits of one group.
template <class Element, int Dim>
struct Chain {
  static constexpr int threads = 128, keys = 128;
  using TileQ = SharedTile<64, Dim>;
  using TileK = SharedTile<keys, Dim>;
  struct Shared {
    alignas(1024) unsigned char q[TileQ::bytes];
    alignas(1024) unsigned char k[TileK::bytes];
    alignas(1024) unsigned char v[TileK::bytes];
  };
  const float *q, *k, *v;  // [64][Dim], [keys][Dim], [keys][Dim]
  float* o;  // [64][Dim]

  __device__ static void fill(unsigned char* tile, const float* from, int rows) {
    for (int i = static_cast<int>(threadIdx.x); i < rows * Dim; i += threads)
      *reinterpret_cast<std::uint16_t*>(
          tile + (rows == 64 ? TileQ::offset(i / Dim, i % Dim) : TileK::offset(i / Dim, i % Dim))) = round_to<Element>(from[i]);
  }

  __device__ void operator()(Shared& shared) const {
    fill(shared.q, q, 64);
    fill(shared.k, k, keys);
    fill(shared.v, v, keys);
    fence_async_proxy();
    __syncthreads();
    float low[keys / 4], high[keys / 4], out[Dim / 2];
    mma_fence();
#pragma unroll
    for (int c = 0; c < Dim; c += 16)
      mma_ss<Element, keys / 2>(low, TileQ::k_major(shared.q, 0, c), TileK::k_major(shared.k, 0, c), c != 0);
    mma_commit();
#pragma unroll
    for (int c = 0; c < Dim; c += 16)
      mma_ss<Element, keys / 2>(high, TileQ::k_major(shared.q, 0, c), TileK::k_major(shared.k, keys / 2, c), c != 0);
    mma_commit();
    mma_wait<1>();
    hold(low);
    std::uint32_t p[keys / 16][4];
#pragma unroll
    for (int i = 0; i < keys / 8; ++i) p[i / 4][i % 4] = pack<Element>(low[2 * i], low[2 * i + 1]);
    mma_wait<0>();
    hold(high);
#pragma unroll
    for (int i = 0; i < keys / 8; ++i) p[keys / 32 + i / 4][i % 4] = pack<Element>(high[2 * i], high[2 * i + 1]);
    mma_fence();
#pragma unroll
    for (int s = 0; s < keys / 16; ++s) mma_rs<Element, Dim, true>(out, p[s], TileK::mn_major(shared.v, 16 * s, 0), s != 0);
    mma_commit();
    mma_wait<0>();
    hold(out);
#pragma unroll
    for (int r = 0; r < Dim / 2; ++r) {
      const int thread = static_cast<int>(threadIdx.x);
      o[accumulator_row(thread, r) * Dim + accumulator_column(thread, r)] = out[r];
    }
  }
};

template <class Element, int Dim>
std::string chain() {
  using Case = Chain<Element, Dim>;
  constexpr int keys = Case::keys;
  const std::vector<float> q = integers(64 * Dim, 4, 1), k = integers(keys * Dim, 5, 1), v = integers(keys * Dim, 6, 3);
  std::vector<float> wanted(64 * Dim, 0.0f);
  for (int i = 0; i < 64; ++i)
    for (int j = 0; j < keys; ++j) {
      float s = 0;
      for (int c = 0; c < Dim; ++c) s += q[i * Dim + c] * k[j * Dim + c];
      for (int c = 0; c < Dim; ++c) wanted[i * Dim + c] += s * v[j * Dim + c];
    }
  backend::Buffer<float> dq(q), dk(k), dv(v), out(std::vector<float>(64 * Dim, -1.0f));
  backend::run(1, Case{dq.device(), dk.device(), dv.device(), out.device()});
  return compare("o", out.fetch(), wanted);
}

}  // namespace hopper_primitives
