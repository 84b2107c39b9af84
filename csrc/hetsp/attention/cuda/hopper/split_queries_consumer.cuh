// A warpgroup of the kernel of dq that computes 64 query rows; see split_queries.cuh.
#pragma once

#include <cmath>
#include <cstdint>

#include "hetsp/attention/cuda/hopper/backward_consumer.cuh"
#include "hetsp/attention/cuda/hopper/backward_output.cuh"
#include "hetsp/attention/cuda/hopper/split_mend.cuh"
#include "hetsp/attention/cuda/hopper/split_queries_shared.cuh"
#include "hetsp/attention/cuda/hopper/split_weight.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"
#include "hetsp/attention/cuda/hopper/wgmma.cuh"

namespace hetsp::attention::cuda::hopper {

template <class Config>
struct SplitQueryConsumer {
  using Element = typename Config::Element;
  using Shared = SplitQueriesShared<Config>;
  using Q = typename Shared::Q;
  using K = typename Shared::K;
  static constexpr int keys = Config::tile.key_step, scores = keys / 2, k_steps = keys / 16;

  // Of the thread's rows row() and row() + 8: lse times log2(e), +inf for rows that see nothing, NaN where it or D is not
  // finite.
  struct Statistics {
    float lse[2], delta[2];
  };

  const BackwardParams& params;
  Shared& shared;
  int group;
  WeightFactors factors;
  unsigned items = 0, turn = 0;

  __device__ static int lane() { return static_cast<int>(threadIdx.x & 31u); }
  __device__ static int quad() { return static_cast<int>(threadIdx.x & 3u); }
  // Of the tile.
  __device__ int row() const {
    return group_rows * group + static_cast<int>((threadIdx.x >> 1 & 48u) | (threadIdx.x >> 2 & 7u));
  }

  template <class Left, class Right, int Dim>
  __device__ void multiply(float (&sum)[scores], const unsigned char* left, const unsigned char* right) const {
    const std::uint64_t a = Left::k_major(left, group_rows * group, 0), b = Right::k_major(right, 0, 0);
#pragma unroll
    for (int k = 0; k < Dim / 16; ++k)
      mma_ss<Element, keys>(sum, beyond(a, k / 4 * Left::panel_bytes + k % 4 * 32),
                            beyond(b, k / 4 * Right::panel_bytes + k % 4 * 32), k > 0);
  }

  __device__ void release(Barrier& barrier) const {
    __syncwarp();
    if (lane() == 0) arrive(barrier);
  }

  __device__ Statistics statistics_of(const SplitItem& item) const {
    Statistics of;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const bool inside = row() + 8 * h < item.rows;
      const std::int64_t at = item.head * params.shape.total_q + item.row0 + row() + 8 * h;
      const float lse = inside ? static_cast<const float*>(params.lse)[at] : -INFINITY;
      const float delta = inside ? static_cast<const float*>(params.delta)[at] : 0.0f;
      of.delta[h] = delta;
      of.lse[h] = lse == -INFINITY ? INFINITY : lse < INFINITY && std::abs(delta) < INFINITY ? lse * log2_e : NAN;
    }
    return of;
  }

  // dS of the step, packed: the A operand of dQ += dS K.
  template <bool Masked, bool Softcap>
  __device__ void weigh(const float (&s)[scores], const float (&dp)[scores], std::uint32_t (&ds)[k_steps][4],
                        const KeyStep& step, const Statistics& own) const {
    int begin[2], end[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int i = row() + 8 * h;
      const bool member = step.member_begin <= i && i < step.member_end;
      begin[h] = member ? i + step.left - 2 * quad() : 0;
      end[h] = member ? smaller(step.end, i + step.right) - 2 * quad() : 0;
    }
#pragma unroll
    for (int a = 0; a < k_steps; ++a)
#pragma unroll
      for (int u = 0; u < 2; ++u)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float difference[2];
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int i = 8 * a + 4 * u + 2 * h + e, column = 16 * a + 8 * u + e;
            const Weight of = weight_of<Softcap>(s[i] * factors.inner, factors.cap, own.lse[h]);
            difference[e] = of.p * (dp[i] - own.delta[h]);
            if constexpr (Softcap) difference[e] *= of.slope;
            if (Masked && !(begin[h] <= column && column < end[h])) difference[e] = 0;  // selected: it may be NaN
          }
          ds[a][2 * u + h] = pack<Element>(difference[0], difference[1]);
        }
  }

  // Whether it was the item's last. No product is left running at its end.
  __device__ bool advance(const Statistics& of, float (&dq)[Config::dim / 2]) {
    const unsigned k_stage = turn % Shared::k_stages, v_stage = turn % Shared::v_stages;
    wait(shared.k_full[k_stage], turn / Shared::k_stages % 2);
    const KeyStep& step = shared.step[k_stage];
    const unsigned v_parity = turn / Shared::v_stages % 2;
    const int visible = shuffle(step.visible_to(group), 0);  // known to be uniform, as ptxas wants it of products' branches
    const bool last = step.is_last != 0;
    ++turn;
    if (step.clear_from < keys) {
      const int clear_from = step.clear_from;
      zero_rows<K>(shared.k[k_stage], [&](int i) { return i < clear_from; });
    }
    if (visible == see_none) {
      wait(shared.v_full[v_stage], v_parity);
      release(shared.v_empty[v_stage]), release(shared.k_empty[k_stage]);
      return last;
    }
    float s[scores], dp[scores];
    std::uint32_t ds[k_steps][4];
    mma_fence();
    multiply<Q, K, Config::dim>(s, shared.q, shared.k[k_stage]);
    mma_commit();
    wait(shared.v_full[v_stage], v_parity);
    mma_fence();
    multiply<typename Shared::Dout, typename Shared::V, Config::dim_v>(dp, shared.dout, shared.v[v_stage]);
    mma_commit();
    mma_wait<0>();
    hold(s), hold(dp);
    release(shared.v_empty[v_stage]);
    if (factors.capped) {
      weigh<true, true>(s, dp, ds, step, of);
    } else if (visible == see_some) {
      weigh<true, false>(s, dp, ds, step, of);
    } else {
      weigh<false, false>(s, dp, ds, step, of);
    }
    mma_fence();
    const std::uint64_t b = K::mn_major(shared.k[k_stage], 0, 0);
#pragma unroll
    for (int k = 0; k < k_steps; ++k) mma_rs<Element, Config::dim, true>(dq, ds[k], beyond(b, k * 16 * 128), true);
    mma_commit();
    mma_wait<0>();
    hold(dq);
#pragma unroll
    for (int k = 0; k < k_steps; ++k) hold(ds[k]);
    release(shared.k_empty[k_stage]);
    return last;
  }

  __device__ void run() {
    for (;;) {
      wait(shared.q_full, items++ % 2);
      const SplitItem item = shared.item;
      if (item.rows < 0) return;
      float dq[Config::dim / 2] = {};
      const Statistics of = statistics_of(item);
      for (bool last = item.is_empty != 0; !last;) last = advance(of, dq);
      release(shared.q_empty);
      const Step rows{item.row0, item.head, 0, {0, static_cast<std::int16_t>(item.rows)}, {}, 0, 0};
      write_rows<Element, Config::dim>(params.dq, params.grads_are_acc, params.shape.head_dim, rows, row(), quad(), dq,
                                       static_cast<float>(params.score.softmax_scale));
      mend(item, of, dq);
    }
  }

  // Computes rows again that a NaN or an infinity has reached and whose own numbers are none.
  __device__ void mend(const SplitItem& item, const Statistics& of, const float (&dq)[Config::dim / 2]) const {
    int wanted[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float reached = 0;  // 0 unless some element is a NaN or an infinity
#pragma unroll
      for (int j = 0; j < Config::dim / 8; ++j) reached += 0.0f * dq[4 * j + 2 * h] + 0.0f * dq[4 * j + 2 * h + 1];
      reached += shuffle_xor(reached, 1);
      reached += shuffle_xor(reached, 2);
      wanted[h] = row() + 8 * h < item.rows && !(reached == 0.0f) && !std::isnan(of.lse[h]);
    }
    if (!__any_sync(0xffffffffu, wanted[0] | wanted[1])) return;
    __syncwarp();  // behind what the lanes have written
#pragma unroll 1
    for (int place = 0; place < 16; ++place) {
      const int from = place % 8 * 4, half = place / 8;
      const float lse = shuffle(half == 0 ? of.lse[0] : of.lse[1], from),
                  delta = shuffle(half == 0 ? of.delta[0] : of.delta[1], from);
      if (shuffle(half == 0 ? wanted[0] : wanted[1], from) != 0)
        mend_dq<Element, Config::dim>(params, item, item.row0 + shuffle(row(), 0) + place, lse, delta);
    }
  }
};

}  // namespace hetsp::attention::cuda::hopper
