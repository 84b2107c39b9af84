// A warpgroup of the kernel of dk and dv where both fit its registers; see split_keys.cuh.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/split_keys_consumer.cuh"

namespace hetsp::attention::cuda::hopper {

// All four products of 64 keys. The two warpgroups meet only where rows have to be zeroed.
template <class Config>
struct SplitJointConsumer : SplitKeysConsumer<Config> {
  using Base = SplitKeysConsumer<Config>;
  using Element = typename Base::Element;
  using Shared = typename Base::Shared;
  using Base::scores, Base::k_steps, Base::stages, Base::params, Base::shared, Base::turn;

  int first;  // of the item's keys

  template <bool Masked, bool Softcap>
  __device__ void weigh(const float (&s)[scores], const float (&dp)[scores], std::uint32_t (&p)[k_steps][4],
                        std::uint32_t (&ds)[k_steps][4], float factor, float cap) const {
    const unsigned stage = turn % stages;
    const Step& step = shared.steps[stage];
    const int t = Base::quad(), key = first + Base::row();
    const Seen seen[2] = {rows_seen(step, key, 2 * t), rows_seen(step, key + 8, 2 * t)};
#pragma unroll
    for (int a = 0; a < k_steps; ++a) {
      const Four lse = *reinterpret_cast<const Four*>(shared.lse[stage] + 16 * a + 4 * t);
      const Four delta = *reinterpret_cast<const Four*>(shared.delta[stage] + 16 * a + 4 * t);
#pragma unroll
      for (int u = 0; u < 2; ++u)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float weight[2], difference[2];
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int i = 8 * a + 4 * u + 2 * h + e;
            const bool visible = !Masked || seen[h].holds(16 * a + 8 * u + e);
            const Weight of = weight_of<Softcap>(s[i] * factor, cap, lse.at[2 * u + e]);
            weight[e] = of.p;
            difference[e] = of.p * (dp[i] - delta.at[2 * u + e]);
            if constexpr (Softcap) difference[e] *= of.slope;
            if (!visible) weight[e] = 0, difference[e] = 0;  // selected: either may be NaN
          }
          p[a][2 * u + h] = pack<Element>(weight[0], weight[1]);
          ds[a][2 * u + h] = pack<Element>(difference[0], difference[1]);
        }
    }
  }

  __device__ void run() {
    const WeightFactors factors = weight_factors(params.score);
    float dk[Config::dim / 2] = {}, dv[Config::dim_v / 2] = {};
    for (;; ++turn) {
      const int flags = this->await_step();
      if (flags & step_stops) return;
      const unsigned stage = turn % stages;
      if (flags & step_finishes) {
        this->release_item();
        this->template finish<Config::dim>(dk, params.dk, params.shape.head_dim, static_cast<float>(params.score.softmax_scale),
                                           first);
        this->template finish<Config::dim_v>(dv, params.dv, params.shape.head_dim_v, 1, first);
        this->release(shared.empty[stage]);
        continue;
      }
      float s[scores], dp[scores];
      std::uint32_t p[k_steps][4], ds[k_steps][4];
      mma_fence();
      Base::template multiply<typename Shared::K, typename Shared::Q, Config::dim>(s, shared.k, shared.q[stage], first);
      Base::template multiply<typename Shared::V, typename Shared::Dout, Config::dim_v>(dp, shared.v, shared.dout[stage],
                                                                                        first);
      mma_commit();
      mma_wait<0>();
      hold(s), hold(dp);
      if (factors.capped) {
        weigh<true, true>(s, dp, p, ds, factors.inner, factors.cap);
      } else if (flags & step_masked) {
        weigh<true, false>(s, dp, p, ds, factors.inner, factors.cap);
      } else {
        weigh<false, false>(s, dp, p, ds, factors.inner, factors.cap);
      }
      mma_fence();
      Base::template accumulate<typename Shared::Dout, Config::dim_v>(dv, p, shared.dout[stage]);
      Base::template accumulate<typename Shared::Q, Config::dim>(dk, ds, shared.q[stage]);
      mma_commit();
      mma_wait<0>();
      hold(dv), hold(dk);
#pragma unroll
      for (int k = 0; k < k_steps; ++k) hold(p[k]), hold(ds[k]);
      this->release(shared.empty[stage]);
    }
  }
};

}  // namespace hetsp::attention::cuda::hopper
