// The two warpgroups of the kernel of dk and dv that compute; see split_keys.cuh.
#pragma once

#include <cmath>
#include <cstdint>

#include "hetsp/attention/cuda/hopper/backward_consumer.cuh"
#include "hetsp/attention/cuda/hopper/backward_output.cuh"
#include "hetsp/attention/cuda/hopper/split_keys_shared.cuh"
#include "hetsp/attention/cuda/hopper/split_weight.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"
#include "hetsp/attention/cuda/hopper/wgmma.cuh"

namespace hetsp::attention::cuda::hopper {

// What both have in common: a warpgroup multiplies the rows of its own tile, K or V, with the rows of a step, Q or dO, and adds
// the weights' product with the rows of the other. In the accumulators a thread has keys row() and row() + 8, queries 8 j + 2
// quad() and the next.
template <class Config>
struct SplitKeysConsumer {
  using Element = typename Config::Element;
  using Shared = SplitKeysShared<Config>;
  static constexpr int queries = Shared::queries, stages = Shared::stages, scores = queries / 2, k_steps = queries / 16;

  const BackwardParams& params;
  Shared& shared;
  unsigned turn = 0, loads = 0, releases = 0;

  __device__ static int lane() { return static_cast<int>(threadIdx.x & 31u); }
  __device__ static int quad() { return static_cast<int>(threadIdx.x & 3u); }
  __device__ static int row() { return static_cast<int>((threadIdx.x >> 1 & 48u) | (threadIdx.x >> 2 & 7u)); }
  __device__ static int thread() { return static_cast<int>(threadIdx.x) % warpgroup_threads; }

  template <class Left, class Right, int Dim>
  __device__ static void multiply(float (&sum)[scores], const unsigned char* left, const unsigned char* right, int first = 0) {
    const std::uint64_t a = Left::k_major(left, first, 0), b = Right::k_major(right, 0, 0);
#pragma unroll
    for (int k = 0; k < Dim / 16; ++k)
      mma_ss<Element, queries>(sum, beyond(a, k / 4 * Left::panel_bytes + k % 4 * 32),
                               beyond(b, k / 4 * Right::panel_bytes + k % 4 * 32), k > 0);
  }

  // The same with the left tile in registers.
  template <class Right, int Dim>
  __device__ static void multiply(float (&sum)[scores], const std::uint32_t (&left)[Dim / 16][4], const unsigned char* right) {
    const std::uint64_t b = Right::k_major(right, 0, 0);
#pragma unroll
    for (int k = 0; k < Dim / 16; ++k)
      mma_rs<Element, queries>(sum, left[k], beyond(b, k / 4 * Right::panel_bytes + k % 4 * 32), k > 0);
  }
  template <class Left, int Dim>
  __device__ static void load_left(std::uint32_t (&left)[Dim / 16][4], const unsigned char* tile) {
#pragma unroll
    for (int k = 0; k < Dim / 16; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        left[k][i] =
            *reinterpret_cast<const std::uint32_t*>(tile + Left::offset(row() + i % 2 * 8, 16 * k + i / 2 * 8 + 2 * quad()));
  }

  template <class Rows, int Dim>
  __device__ static void accumulate(float (&sum)[Dim / 2], const std::uint32_t (&weights)[k_steps][4],
                                    const unsigned char* rows) {
    const std::uint64_t b = Rows::mn_major(rows, 0, 0);
#pragma unroll
    for (int k = 0; k < k_steps; ++k) mma_rs<Element, Dim, true>(sum, weights[k], beyond(b, k * 16 * 128), true);
  }

  __device__ void release(Barrier& barrier) const {
    __syncwarp();
    if (lane() == 0) arrive(barrier);
  }

  // Flags of the next step, whose Q, dO and statistics are there; rows that are no part of it are zero.
  __device__ int await_step() {
    const unsigned stage = turn % stages;
    wait(shared.full[stage], turn / stages % 2);
    const int flags = shuffle(shared.steps[stage].flags, 0);  // known to be uniform, as ptxas wants it of products' branches
    if (flags & (step_finishes | step_stops)) return flags;
    if (flags & step_loads_v) wait(shared.item_full, loads++ % 2);
    int unfit = 0;
#pragma unroll
    for (int i = 0; i < Shared::statistic_warps; ++i) unfit |= shared.unfit[stage][i];
    if ((flags & step_cut_rows) != 0 || shuffle(unfit, 0) != 0) {
      const Range rows = shared.steps[stage].rows;
      const auto keep = [&](int i) {
        return rows.begin <= i && i < rows.end && !std::isnan(shared.lse[stage][statistic_place(i)]);
      };
      zero_rows<typename Shared::Q>(shared.q[stage], keep);
      zero_rows<typename Shared::Dout>(shared.dout[stage], keep);
    }
    return flags;
  }

  // The end of an item: nobody here reads K or V any more.
  __device__ void release_item() {
    if (releases != loads) release(shared.item_empty), ++releases;  // an item without steps has no K and V
  }
  // `sum` is written to `view`, for keys from the item's `first` on.
  template <int Dim>
  __device__ void finish(float (&sum)[Dim / 2], const View& view, std::int64_t dim, float factor, int first = 0) const {
    write_rows<Element, Dim>(view, params.grads_are_acc, dim, shared.steps[turn % stages], first + row(), quad(), sum, factor);
#pragma unroll
    for (int i = 0; i < Dim / 2; ++i) sum[i] = 0;
  }
};

// S^T = K Q^T; P^T = exp(S^T - lse); dV += P^T dO.
template <class Config>
struct SplitValueConsumer : SplitKeysConsumer<Config> {
  using Base = SplitKeysConsumer<Config>;
  using Element = typename Base::Element;
  using Shared = typename Base::Shared;
  using Base::scores, Base::k_steps, Base::stages, Base::params, Base::shared, Base::turn;

  // P of a tile, packed, and what dS is made of, P or P [1 - (S / c)^2], to the other warpgroup.
  template <bool Masked, bool Softcap>
  __device__ void weigh(float (&s)[scores], std::uint32_t (&p)[k_steps][4], float factor, float cap) const {
    const unsigned stage = turn % stages;
    const Step& step = shared.steps[stage];
    const int t = Base::quad(), key = Base::row();
    const Seen seen[2] = {rows_seen(step, key, 2 * t), rows_seen(step, key + 8, 2 * t)};
    Four* const weights = shared.weights[turn % weight_buffers][0] + Base::thread();
#pragma unroll
    for (int a = 0; a < k_steps; ++a) {
      const Four lse = *reinterpret_cast<const Four*>(shared.lse[stage] + 16 * a + 4 * t);
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        Four handed;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float weight[2];
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const bool visible = !Masked || seen[h].holds(16 * a + 8 * u + e);
            const Weight of = weight_of<Softcap>(s[8 * a + 4 * u + 2 * h + e] * factor, cap, lse.at[2 * u + e]);
            weight[e] = visible ? of.p : 0;  // selected: it may be NaN
            handed.at[2 * h + e] = visible ? of.p * of.slope : 0;
          }
          p[a][2 * u + h] = pack<Element>(weight[0], weight[1]);
        }
        weights[(2 * a + u) * warpgroup_threads] = handed;
      }
    }
  }

  __device__ void run() {
    const WeightFactors factors = weight_factors(params.score);
    float dv[Config::dim_v / 2] = {};
    std::uint32_t left[Config::held ? Config::dim / 16 : 1][4] = {};
    for (;; ++turn) {
      const int flags = this->await_step();
      if (flags & step_stops) break;
      const unsigned stage = turn % stages, buffer = turn % weight_buffers;
      if (flags & step_finishes) {
        this->release_item();
        this->template finish<Config::dim_v>(dv, params.dv, params.shape.head_dim_v, 1);
        named_sync(weights_empty + static_cast<int>(buffer), 2 * warpgroup_threads);
        named_arrive(weights_full + static_cast<int>(buffer), 2 * warpgroup_threads);
        this->release(shared.empty[stage]);
        continue;
      }
      if constexpr (Config::held)
        if (flags & step_loads_v) Base::template load_left<typename Shared::K, Config::dim>(left, shared.k);
      float s[scores];
      std::uint32_t p[k_steps][4];
      mma_fence();
      if constexpr (Config::held) {
        Base::template multiply<typename Shared::Q, Config::dim>(s, left, shared.q[stage]);
      } else {
        Base::template multiply<typename Shared::K, typename Shared::Q, Config::dim>(s, shared.k, shared.q[stage]);
      }
      mma_commit();
      named_sync(weights_empty + static_cast<int>(buffer), 2 * warpgroup_threads);
      mma_wait<0>();
      hold(s);
      if (factors.capped) {
        weigh<true, true>(s, p, factors.inner, factors.cap);
      } else if (flags & step_masked) {
        weigh<true, false>(s, p, factors.inner, factors.cap);
      } else {
        weigh<false, false>(s, p, factors.inner, factors.cap);
      }
      named_arrive(weights_full + static_cast<int>(buffer), 2 * warpgroup_threads);
      mma_fence();
      Base::template accumulate<typename Shared::Dout, Config::dim_v>(dv, p, shared.dout[stage]);
      mma_commit();
      mma_wait<0>();
      hold(dv);
#pragma unroll
      for (int k = 0; k < k_steps; ++k) hold(p[k]);
      this->release(shared.empty[stage]);
    }
    for (int buffer = 0; buffer < weight_buffers; ++buffer) named_sync(weights_empty + buffer, 2 * warpgroup_threads);
  }
};

// dP^T = V dO^T; dS^T = P^T (dP^T - D) [1 - (S / c)^2]; dK += dS^T Q.
template <class Config>
struct SplitKeyConsumer : SplitKeysConsumer<Config> {
  using Base = SplitKeysConsumer<Config>;
  using Element = typename Base::Element;
  using Shared = typename Base::Shared;
  using Base::scores, Base::k_steps, Base::stages, Base::params, Base::shared, Base::turn;

  template <bool Masked>
  __device__ void weigh(const float (&dp)[scores], std::uint32_t (&ds)[k_steps][4]) const {
    const unsigned stage = turn % stages;
    const Step& step = shared.steps[stage];
    const int t = Base::quad(), key = Base::row();
    const Seen seen[2] = {rows_seen(step, key, 2 * t), rows_seen(step, key + 8, 2 * t)};
    const Four* const weights = shared.weights[turn % weight_buffers][0] + Base::thread();
#pragma unroll
    for (int a = 0; a < k_steps; ++a) {
      const Four delta = *reinterpret_cast<const Four*>(shared.delta[stage] + 16 * a + 4 * t);
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        const Four weight = weights[(2 * a + u) * warpgroup_threads];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float difference[2];
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            difference[e] = weight.at[2 * h + e] * (dp[8 * a + 4 * u + 2 * h + e] - delta.at[2 * u + e]);
            if (Masked && !seen[h].holds(16 * a + 8 * u + e)) difference[e] = 0;  // selected: dp may be NaN
          }
          ds[a][2 * u + h] = pack<Element>(difference[0], difference[1]);
        }
      }
    }
  }

  __device__ void run() {
    float dk[Config::dim / 2] = {};
    std::uint32_t left[Config::held ? Config::dim_v / 16 : 1][4] = {};
    for (int buffer = 0; buffer < weight_buffers; ++buffer) named_arrive(weights_empty + buffer, 2 * warpgroup_threads);
    for (;; ++turn) {
      const int flags = this->await_step();
      if (flags & step_stops) break;
      const unsigned stage = turn % stages, buffer = turn % weight_buffers;
      if (flags & step_finishes) {
        this->release_item();
        this->template finish<Config::dim>(dk, params.dk, params.shape.head_dim,
                                           static_cast<float>(params.score.softmax_scale));
        named_sync(weights_full + static_cast<int>(buffer), 2 * warpgroup_threads);
        named_arrive(weights_empty + static_cast<int>(buffer), 2 * warpgroup_threads);
        this->release(shared.empty[stage]);
        continue;
      }
      if constexpr (Config::held)
        if (flags & step_loads_v) Base::template load_left<typename Shared::V, Config::dim_v>(left, shared.v);
      float dp[scores];
      std::uint32_t ds[k_steps][4];
      mma_fence();
      if constexpr (Config::held) {
        Base::template multiply<typename Shared::Dout, Config::dim_v>(dp, left, shared.dout[stage]);
      } else {
        Base::template multiply<typename Shared::V, typename Shared::Dout, Config::dim_v>(dp, shared.v, shared.dout[stage]);
      }
      mma_commit();
      named_sync(weights_full + static_cast<int>(buffer), 2 * warpgroup_threads);
      mma_wait<0>();
      hold(dp);
      if (flags & step_masked) {
        weigh<true>(dp, ds);
      } else {
        weigh<false>(dp, ds);
      }
      named_arrive(weights_empty + static_cast<int>(buffer), 2 * warpgroup_threads);
      mma_fence();
      Base::template accumulate<typename Shared::Q, Config::dim>(dk, ds, shared.q[stage]);
      mma_commit();
      mma_wait<0>();
      hold(dk);
#pragma unroll
      for (int k = 0; k < k_steps; ++k) hold(ds[k]);
      this->release(shared.empty[stage]);
    }
  }
};

}  // namespace hetsp::attention::cuda::hopper
