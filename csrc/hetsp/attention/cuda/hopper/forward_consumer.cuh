// A warpgroup of the forward that computes 64 query rows.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/forward_state.cuh"
#include "hetsp/attention/cuda/hopper/wgmma.cuh"

namespace hetsp::attention::cuda::hopper {

template <class Config>
class ForwardConsumer {
 public:
  using Element = typename Config::Element;
  using Shared = ForwardShared<Config>;
  using QTile = typename Config::QTile;
  using KTile = typename Config::KTile;
  using VTile = typename Config::VTile;
  static constexpr int keys = Config::keys, dim = Config::dim, dim_v = Config::dim_v;

  HETSP_INLINE ForwardConsumer(const ForwardArguments& arguments, Shared& shared, int group)
      : in_(arguments), shared_(shared), group_(group), row_(group * group_rows + warp_index() % 4 * 16 + lane_index() / 4) {
    const auto scale = static_cast<float>(in_.params.score.softmax_scale),
               softcap = static_cast<float>(in_.params.score.softcap);
    squashed_ = softcap > 0.0f || !(scale > 0.0f);  // a factor of the maximum has to be positive
    inner_ = softcap > 0.0f ? scale * reciprocal(softcap) * static_cast<float>(2 * kLog2E) : scale;
    softcap_ = softcap;
    factor_ = (squashed_ ? 1.0f : scale) * static_cast<float>(kLog2E);
    q_base_ = QTile::k_major(shared_.q, group * group_rows, 0);
    k_base_ = KTile::k_major(shared_.k[0], 0, 0);
    v_base_ = VTile::mn_major(shared_.v[0], 0, 0);
  }

  HETSP_INLINE void run() {
    if constexpr (Config::ping_pong)
      if (group_ == 1) pass_turn();  // the first turn is group 0's
    Turn<1> q;
    for (;;) {
      wait(shared_.q_full, q.parity);
      q.next();
      const QueryItem item = shared_.item;
      if (item.rows < 0) break;
      begin();
      if (item.has_steps != 0) walk();
      if (item.has_steps == 0) release(shared_.q_empty);
      const int first = group_ * group_rows + warp_index() % 4 * 16;
      finish_rows<Element, dim_v>(in_.params, item, item.row0 + first, item.rows - first, top_, sum_, o_);
    }
    if constexpr (Config::ping_pong)
      if (group_ == 0) take_turn();  // nobody leaves with a turn pending
  }

 private:
  HETSP_INLINE void begin() {
#pragma unroll
    for (int i = 0; i < dim_v / 2; ++i) o_[i] = 0.0f;
    top_[0] = top_[1] = -INFINITY;
    sum_[0] = sum_[1] = 0.0f;
  }

  // All steps of the tile. `pending`: the weights of the step before are in p_, their values still to come.
  HETSP_INLINE void walk() {
    bool pending = false;
    for (bool last = false; !last;) {
      wait(shared_.k_full[k_.stage], k_.parity);
      const KeyStep step = shared_.step[k_.stage];
      const std::int32_t visible = step.visible_to(group_);
      last = step.is_last != 0;
      if (visible == see_none) {
        if (pending) finish_values();
        pending = false;
        take_turn();
        pass_turn();
        release(shared_.k_empty[k_.stage]);
        if (last) release(shared_.q_empty);
      } else if (!pending) {
        take_turn();
        mma_fence();
        issue_scores();
        pass_turn();
        mma_wait<0>();
        hold(s_);
        release(shared_.k_empty[k_.stage]);
        if (last) release(shared_.q_empty);
        float shrink[2];
        soften(step, visible, shrink);
        round();
        rescale(shrink);
        pending = true;
      } else {
        take_turn();
        mma_fence();
        issue_scores();
        wait(shared_.v_full[v_.stage], v_.parity);
        mma_fence();
        issue_values();
        pass_turn();
        mma_wait<1>();
        hold(s_);
        release(shared_.k_empty[k_.stage]);
        if (last) release(shared_.q_empty);
        float shrink[2];
        soften(step, visible, shrink);
        mma_wait<0>();
        hold(o_);
        release(shared_.v_empty[v_.stage]);
        v_.next();
        round();
        rescale(shrink);
      }
      k_.next();
      if (step.clear_from < keys) clear_values(step.clear_from);
      if (visible == see_none) {
        wait(shared_.v_full[v_.stage], v_.parity);
        release(shared_.v_empty[v_.stage]);
        v_.next();
      } else if (!Config::overlap) {
        finish_values();
        pending = false;
      }
    }
    if (pending) finish_values();
  }

  HETSP_INLINE void finish_values() {
    wait(shared_.v_full[v_.stage], v_.parity);
    mma_fence();
    issue_values();
    mma_wait<0>();
    hold(o_);
    release(shared_.v_empty[v_.stage]);
    v_.next();
  }

  // S = Q K^T of the stage: 16 columns of Q and K at a time.
  HETSP_INLINE void issue_scores() {
    const std::uint64_t k = k_base_ + static_cast<std::uint64_t>(k_.stage * (KTile::bytes >> 4));
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
      mma_ss<Element, keys>(s_, q_base_ + ((i / 4 * QTile::panel_bytes + i % 4 * 32) >> 4),
                            k + ((i / 4 * KTile::panel_bytes + i % 4 * 32) >> 4), i != 0);
    mma_commit();
  }

  // O += P V of the stage: 16 keys at a time.
  HETSP_INLINE void issue_values() {
    const std::uint64_t v = v_base_ + static_cast<std::uint64_t>(v_.stage * (VTile::bytes >> 4));
#pragma unroll
    for (int i = 0; i < keys / 16; ++i) mma_rs<Element, dim_v, true>(o_, p_[i], v + (i * 2048 >> 4), true);
    mma_commit();
  }

  // Scores to weights, in place; the state moves on, and O has to be multiplied by `shrink`.
  HETSP_INLINE void soften(const KeyStep& step, std::int32_t visible, float (&shrink)[2]) {
    if (squashed_) squash();
    if (visible != see_all) mask(step);
    float highest[2] = {s_[0], s_[2]};
#pragma unroll
    for (int j = 0; j < keys / 8; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        highest[0] = fmaxf(highest[0], s_[4 * j + e]);
        highest[1] = fmaxf(highest[1], s_[4 * j + 2 + e]);
      }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float high = highest[half];
      high = fmaxf(high, shuffle_xor(high, 1));
      high = fmaxf(high, shuffle_xor(high, 2));
      const float top = fmaxf(top_[half], high * factor_), origin = top == -INFINITY ? 0.0f : top;
      shrink[half] = exp2_fast(top_[half] - origin);
      top_[half] = top;
      float total[2] = {0.0f, 0.0f};
#pragma unroll
      for (int j = 0; j < keys / 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = s_[4 * j + 2 * half + e];
          x = exp2_fast(x * factor_ - origin);
          total[e] += x;
        }
      sum_[half] = sum_[half] * shrink[half] + (total[0] + total[1]);
    }
  }

  // softcap tanh(x / softcap), by tanh y = 1 - 2 / (e^2y + 1): one exponential and a reciprocal, to 2^-22 of the softcap. The
  // GPU's own tanh is right to 2^-12, which at softcap 30 would be 0.7 % of a weight.
  HETSP_INLINE void squash() {
    if (softcap_ > 0.0f) {
#pragma unroll
      for (int i = 0; i < keys / 2; ++i) s_[i] = softcap_ - 2.0f * softcap_ * reciprocal(exp2_fast(s_[i] * inner_) + 1.0f);
    } else {
#pragma unroll
      for (int i = 0; i < keys / 2; ++i) s_[i] *= inner_;
    }
  }

  // A thread's columns of a row are a run of bits: number 2 j + e is column 8 j + 2 (lane mod 4) + e.
  HETSP_INLINE void mask(const KeyStep& step) {
    const int column = 2 * (lane_index() % 4);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = row_ + 8 * half;
      const bool member = step.member_begin <= row && row < step.member_end;
      const int begin = columns_before(row + step.left - column);
      const int end = member ? columns_before(smaller(step.end, row + step.right) - column) : 0;
#pragma unroll
      for (int word = 0; word < keys / 4; word += 32) {
        const std::uint32_t bits = low_bits(end - word) & ~low_bits(begin - word);
#pragma unroll
        for (int i = word; i < word + 32 && i < keys / 4; ++i) {
          float& x = s_[4 * (i / 2) + 2 * half + i % 2];
          x = (bits >> (i - word) & 1u) != 0 ? x : -INFINITY;
        }
      }
    }
  }
  // Of columns 0, 1, 8, 9, 16, 17, ...: how many are before `bound`.
  HETSP_INLINE static int columns_before(int bound) { return (bound >> 3) * 2 + smaller(bound & 7, 2); }
  HETSP_INLINE static std::uint32_t low_bits(int count) {
    return count <= 0 ? 0u : count >= 32 ? 0xffffffffu : (1u << count) - 1u;
  }

  HETSP_INLINE void round() {
#pragma unroll
    for (int i = 0; i < keys / 16; ++i)
#pragma unroll
      for (int x = 0; x < 4; ++x) p_[i][x] = pack<Element>(s_[8 * i + 2 * x], s_[8 * i + 2 * x + 1]);
  }

  HETSP_INLINE void rescale(const float (&shrink)[2]) {
#pragma unroll
    for (int i = 0; i < dim_v / 2; ++i) o_[i] *= shrink[i / 2 % 2];
  }

  // Zeroes the rows of V from `from` on, half of them here and half in the other warpgroup.
  HETSP_INLINE void clear_values(int from) {
    wait(shared_.v_full[v_.stage], v_.parity);  // v_ stands at the step's values: those before have been used
    unsigned char* const tile = shared_.v[v_.stage];
    const int thread = group_ * 128 + warp_index() % 4 * 32 + lane_index();
    for (int i = thread; i < (keys - from) * 8 * VTile::panels; i += consumer_groups * 128) {
      const int panel = i % VTile::panels, chunk = i / VTile::panels;
      *reinterpret_cast<Words4*>(tile + panel * VTile::panel_bytes + from * 128 + chunk * 16) = {{0, 0, 0, 0}};
    }
    fence_async_proxy();
    named_sync(barrier_tail, consumer_groups * 128);
  }

  // When all lanes of the warp are through with what the barrier guards.
  HETSP_INLINE void release(Barrier& barrier) {
    __syncwarp();
    if (lane_index() == 0) arrive(barrier);
  }

  // The warpgroups issue products in turns.
  HETSP_INLINE void take_turn() {
    if constexpr (Config::ping_pong) named_sync(barrier_turn + group_, consumer_groups * 128);
  }
  HETSP_INLINE void pass_turn() {
    if constexpr (Config::ping_pong) named_arrive(barrier_turn + (1 - group_), consumer_groups * 128);
  }

  const ForwardArguments& in_;
  Shared& shared_;
  int group_, row_;  // row_: the thread's first row in the tile; its second is 8 below
  bool squashed_;
  float inner_, softcap_, factor_;
  std::uint64_t q_base_, k_base_, v_base_;
  Turn<Config::stages> k_, v_;
  float s_[keys / 2];
  std::uint32_t p_[keys / 16][4];
  float o_[dim_v / 2];
  float top_[2], sum_[2];  // sum_: of the thread's own columns
};

}  // namespace hetsp::attention::cuda::hopper
