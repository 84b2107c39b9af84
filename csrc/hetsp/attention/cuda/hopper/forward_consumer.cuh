// A warpgroup of the forward that computes 64 query rows. Long because its state is one, and in registers.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/forward_state.cuh"
#include "hetsp/attention/cuda/hopper/forward_usual_rows.cuh"
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

  // The first values of an item are stored and not added; elsewhere O is cleared, since registers are few.
  static constexpr bool anew = Config::carry && !Config::chained;

  using Arguments = typename Config::Arguments;

  HETSP_INLINE ForwardConsumer(const Arguments& arguments, Shared& shared, int group)
      : in_(arguments), shared_(shared), group_(group), row_(group * group_rows + warp_index() % 4 * 16 + lane_index() / 4) {
    q_base_ = QTile::k_major(shared_.q[0], group * group_rows, 0);
    k_base_ = KTile::k_major(shared_.k[0], 0, 0);
    v_base_ = VTile::mn_major(shared_.v[0], 0, 0);
  }

  HETSP_INLINE void run() {
    if (group_ == 1) pass_turn();  // the first turn is group 0's
    clear_output();
    begin();
    take_items();
    if (group_ == 0) take_turn();  // nobody leaves with a turn pending
  }

 private:
  HETSP_INLINE void take_items() {
    for (bool is_end = false; !is_end;) {
      wait(shared_.q_full[q_.stage], q_.parity);
      is_end = shared_.item[item_].rows < 0;
      if constexpr (!Config::chained) foretell_seed<dim_v>(in_.params, shared_.item[item_], warp_row());
      if constexpr (Config::carry) {
        past() = {{top_[0], top_[1]}, {sum_[0], sum_[1]}};
        begin();
        walk();
        owed_ = true;
      } else if (!is_end) {
        walk();
        if (pending_) finish_values();
        pending_ = false;
        settle(item_, top_, sum_);
        begin();
      }
      item_ = (item_ + 1) % Shared::items;
      q_.next();
    }
  }

  // The state of the item before, out of the way.
  HETSP_INLINE SoftmaxPair& past() { return reinterpret_cast<SoftmaxPair*>(own_rows())[lane_index()]; }
  HETSP_INLINE unsigned char* own_rows() { return shared_.rows[row_ / 16]; }

  HETSP_INLINE void begin() {
    top_[0] = top_[1] = -INFINITY;
    sum_[0] = sum_[1] = 0.0f;
  }

  // All steps of the tile, as far as Q is needed. With `carry`, O is still that of the tile before when the first step begins,
  // and that tile's last values may be pending. Plain steps have a loop of their own, small enough for the instruction cache.
  HETSP_INLINE void walk() {
    for (bool last = false; !last;) {
      wait(shared_.k_full[k_.stage], k_.parity);
      last = shared_.step[k_.stage].is_last != 0;
      if (pending_ && !owed_ && is_plain()) {
        for (bool more = true; more;) {
          float shrink[2];
          const bool next_is_plain = overlapped_step<false>(last, shrink);
          rescale(shrink);
          more = !last && next_is_plain;
          if (more) last = shared_.step[k_.stage].is_last != 0;
        }
      } else {
        any_step(last);
      }
    }
  }

  // The step at k_: all rows see all of it.
  HETSP_INLINE bool is_plain() const { return shared_.step[k_.stage].visible_to(group_) == see_all; }

  HETSP_INLINE void any_step(bool last) {
    const std::int32_t visible = shared_.step[k_.stage].visible_to(group_);
    float shrink[2] = {1.0f, 1.0f};
    if (visible == see_none) {
      if (pending_) finish_values();
      take_turn();
      pass_turn();
      release_scores(last);
    } else if (!pending_) {
      take_turn();
      mma_fence();
      issue_scores();
      pass_turn();
      const Sight seen = sight(shared_.step[k_.stage]);
      mma_wait<0>();
      hold(s_);
      release_scores(last);
      prepare_scores<true>(seen);
      begin_origin();
      Weights w;
      weigh_anew(w);
      check_weights(w, shrink);
    } else {
      overlapped_step<true>(last, shrink);
    }
    pending_ = visible != see_none;
    if (Config::carry && owed_) {
      const SoftmaxPair of = past();
      settle((item_ + Shared::items - 1) % Shared::items, of.top, of.sum);
      owed_ = false;
    } else {
      rescale(shrink);
    }
    if (visible == see_none) {
      wait(shared_.v_full[v_.stage], v_.parity);
      release_values();
    }
  }

  // The scores of this step, and beside their softening the values of the step before. Whether the next step is plain.
  template <bool Masked>
  HETSP_INLINE bool overlapped_step(bool last, float (&shrink)[2]) {
    take_turn();
    mma_fence();
    issue_scores();
    Sight seen{};
    if constexpr (Masked) seen = sight(shared_.step[k_.stage]);
    wait(shared_.v_full[v_.stage], v_.parity);
    mma_fence();
    issue_values();
    pass_turn();
    mma_wait<1>();
    hold(s_);
    release_scores(last);
    prepare_scores<Masked>(seen);
    shrink[0] = shrink[1] = 1.0f;
    if constexpr (Masked) begin_origin();  // otherwise a row without an origin fails the test of its weights: seldom
    Weights w;
    float origin[2] = {top_[0], top_[1]};
    if constexpr (Masked) origin[0] = or_zero(origin[0]), origin[1] = or_zero(origin[1]);
    weigh<0, Config::early>(w, origin, [&](int pair, std::uint32_t both) { w.early[pair] = both; });
    // There is a next step, if only that of the end. Its parity is said to depend on the weights above, whose sum is never -1.
    wait(shared_.k_full[k_.stage], k_.parity ^ (w.sum(0) + w.sum(1) == -1.0f ? 1u : 0u));
    mma_wait<0>();
    hold(o_);
    const bool next_is_plain = is_plain();
    // ptxas may move the wait above over whatever does not depend on it, and did: before all weights, when nothing ran beside
    // the product, or behind them all, when their rounding had to wait. So the second half depends on what is read behind it:
    // 0.
    const std::uint32_t nothing = static_cast<std::uint32_t>(shared_.step[k_.stage].end) & 0x40000000u;
    origin[0] += __uint_as_float(nothing), origin[1] += __uint_as_float(nothing);
    release_values();
    const auto give = [&](int pair, std::uint32_t both) { p_[pair / 4][pair % 4] = both; };
    weigh<Config::early, 8>(w, origin, give);
    if (Masked && seen.second_hidden) {
#pragma unroll
      for (int pair = 16; pair < keys / 4; ++pair) p_[pair / 4][pair % 4] = 0;
    } else {
      weigh<8, keys / 8>(w, origin, give);
    }
#pragma unroll
    for (int pair = 0; pair < 2 * Config::early; ++pair) p_[pair / 4][pair % 4] = w.early[pair] | nothing;
    check_weights(w, shrink);
    return next_is_plain;
  }

  HETSP_INLINE void release_scores(bool last) {
    release(shared_.k_empty[k_.stage]);
    k_.next();
    if (last) release(shared_.q_empty[q_.stage]);
  }
  HETSP_INLINE void release_values() {
    release(shared_.v_empty[v_.stage]);
    v_.next();
  }

  HETSP_INLINE void finish_values() {
    wait(shared_.v_full[v_.stage], v_.parity);
    mma_fence();
    issue_values();
    mma_wait<0>();
    hold(o_);
    release_values();
  }

  // Writes the rows of an item whose values are all in O, which the next values begin anew; scores are not needed any more.
  HETSP_INLINE void settle(int slot, const float (&top)[2], const float (&sum)[2]) {
    if constexpr (Config::chained) {
      settle_link(shared_.item[slot], top, sum);
    } else if (group_ * group_rows < shared_.item[slot].rows) {
      write(shared_.item[slot], top, sum);
    }
    fresh_ = true;
    if constexpr (!anew) clear_output();
  }

  // The same in all lanes; this tells ptxas, which otherwise takes every jump behind it for one that parts the warp.
  HETSP_INLINE bool is_fresh() const { return anew && __any_sync(0xffffffffu, fresh_) != 0; }

  HETSP_INLINE void clear_output() {
#pragma unroll
    for (int i = 0; i < dim_v / 2; ++i) o_[i] = 0.0f;
  }

  HETSP_INLINE void write(const QueryItem& item, const float (&top)[2], const float (&sum)[2]) {
    if constexpr (anew) {
      __syncwarp();  // the states in own_rows() have been read
      if (is_usual(in_.params) && !is_fresh() &&
          finish_usual_rows<Element, dim_v>(in_.params, item, row_ - lane_index() / 4, top, sum, o_, own_rows()))
        return;
    }
    if (is_fresh()) clear_output();  // the item had no values
    finish_rows<Element, dim_v>(in_.params, item, warp_row(), top, sum, o_, s_);
  }

  // A warp's rows of a tile are its own in every link: it joins what the links before have left.
  template <class Told>
  HETSP_INLINE void settle_link(const Told& item, const float (&top)[2], const float (&sum)[2]) {
    await_turn_together(in_.chain, item.number, item.link, consumer_warps);
    const QueryItem& rows = item;
    finish_rows<Element, dim_v, true>(in_.params, rows, warp_row(), top, sum, o_, s_,
                                      [&]() -> const ForwardParams& { return in_.chain.link[item.link]; });
    __syncwarp();
    if (lane_index() == 0) end_turn(in_.chain, item.number, item.link, 1);
  }

  // The warp's first row in the tile.
  HETSP_INLINE int warp_row() const { return group_ * group_rows + warp_index() % 4 * 16; }

  // S = Q K^T of the stage: 16 columns of Q and K at a time.
  HETSP_INLINE void issue_scores() {
    const std::uint64_t q = q_base_ + static_cast<std::uint64_t>(q_.stage * (QTile::bytes >> 4));
    const std::uint64_t k = k_base_ + static_cast<std::uint64_t>(k_.stage * (KTile::bytes >> 4));
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
      mma_ss<Element, keys>(s_, q + ((i / 4 * QTile::panel_bytes + i % 4 * 32) >> 4),
                            k + ((i / 4 * KTile::panel_bytes + i % 4 * 32) >> 4), i != 0);
    mma_commit();
  }

  // O += P V of the stage, or O = P V: 16 keys at a time.
  HETSP_INLINE void issue_values() {
    const std::uint64_t v = v_base_ + static_cast<std::uint64_t>(v_.stage * (VTile::bytes >> 4));
#pragma unroll
    for (int i = 0; i < keys / 16; ++i)
      mma_rs<Element, dim_v, true>(o_, p_[i], v + (i * 2048 >> 4), i != 0 || !(anew && fresh_));
    fresh_ = false;
    mma_commit();
  }

  // The weights of a step, 2^(score - top), in pairs rounded to 16 bits, and their exact sums by row, all of the thread's
  // columns. Scores stay as they are. p_ is an operand of the last step's values until those are waited for: `early` weights
  // come before.
  struct Weights {
    std::uint32_t early[Config::early > 0 ? 2 * Config::early : 1];
    float total[2][2] = {};
    HETSP_INLINE float sum(int half) const { return total[half][0] + total[half][1]; }
  };

  // What a warp's rows see of a key tile. A thread's columns of a row are a run of bits: number 2 j + e is column 8 j + 2 (lane
  // mod 4) + e. Each half of the tile is asked for all lanes together: on a diagonal the rows of one warpgroup see all of the
  // first half, those of the other nothing of the second.
  struct Sight {
    static constexpr int columns = keys / 4, half = smaller(16, columns);  // a thread's
    static_assert(columns <= 32, "one word");
    std::uint32_t bits[2];
    bool first_whole, second_whole, second_hidden;
  };

  template <bool Masked>
  HETSP_INLINE void prepare_scores(const Sight& seen) {
    if constexpr (Config::squashed) squash();
    if (Masked && !seen.first_whole) hide<0, Sight::half>(seen);
    if (Masked && !seen.second_whole) hide<Sight::half, Sight::columns>(seen);
  }

  // Of the columns in blocks [Begin, End) of 8: give(pair of the accumulator, its weights rounded).
  template <int Begin, int End, class Give>
  HETSP_INLINE void weigh(Weights& w, const float (&origin)[2], const Give& give) {
    const float factor = in_.factors.factor;
#pragma unroll
    for (int j = Begin; j < End; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int i = 4 * j + 2 * half;
        const float low = exp2_fast(s_[i] * factor - origin[half]), high = exp2_fast(s_[i + 1] * factor - origin[half]);
        w.total[half][0] += low, w.total[half][1] += high;
        give(i / 2, pack<Element>(low, high));
      }
  }

  // An origin for a row that has none because it has seen nothing: its weights become 0.
  HETSP_INLINE static float or_zero(float top) { return top == -INFINITY ? 0.0f : top; }

  HETSP_INLINE bool lacks_origin() const { return __any_sync(0xffffffffu, top_[0] == -INFINITY || top_[1] == -INFINITY) != 0; }

  // Gives the rows without an origin one, if they see something now: the maximum of the tile's first 32 columns, or of all,
  // where they see none of these. `shrink` has nothing to do: such a row's O and sum are 0.
  HETSP_INLINE void begin_origin() {
    if (!lacks_origin()) return;
    const float factor = in_.factors.factor;
    float high[2][4];
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float x = s_[4 * (i / 2) + 2 * half + i % 2];
        high[half][i % 4] = i < 4 ? x : fmaxf(high[half][i % 4], x);
      }
    float best[2];
#pragma unroll
    for (int half = 0; half < 2; ++half)
      best[half] = fmaxf(fmaxf(high[half][0], high[half][1]), fmaxf(high[half][2], high[half][3]));
#pragma unroll
    for (int half = 0; half < 2; ++half) best[half] = fmaxf(best[half], shuffle_xor(best[half], 1));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      best[half] = fmaxf(best[half], shuffle_xor(best[half], 2));
      if (top_[half] == -INFINITY) top_[half] = best[half] * factor;
    }
    if (!lacks_origin()) return;
    float nothing[2];
    move_origin(top_[0] == -INFINITY, top_[1] == -INFINITY, nothing);
  }

  HETSP_INLINE void weigh_anew(Weights& w) {
    float origin[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      origin[half] = or_zero(top_[half]);
      w.total[half][0] = w.total[half][1] = 0.0f;
    }
    weigh<0, keys / 8>(w, origin, [&](int pair, std::uint32_t both) { p_[pair / 4][pair % 4] = both; });
  }

  // Any origin serves that keeps weights from overflowing: floating-point numbers have the same digits everywhere. So a row's
  // origin is its maximum when it first sees something, and again only when weights have grown beyond 2^growth; no maximum is
  // sought otherwise. A row without origin (-inf) and a NaN fail the test too. What a row does depends on its own scores alone.
  HETSP_INLINE void check_weights(Weights& w, float (&shrink)[2]) {
    constexpr float limit = Config::growth;
    const bool fine = w.sum(0) < limit && w.sum(1) < limit;
    if (__any_sync(0xffffffffu, !fine)) {
      int grown[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        grown[half] = w.sum(half) < limit ? 0 : 1;
        grown[half] |= shuffle_xor(grown[half], 1);
        grown[half] |= shuffle_xor(grown[half], 2);
      }
      float moved[2];
      move_origin(grown[0] != 0, grown[1] != 0, moved);
      shrink[0] *= moved[0], shrink[1] *= moved[1];
      weigh_anew(w);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) sum_[half] = sum_[half] * shrink[half] + w.sum(half);
  }

  // To the row's maximum where that is asked for and higher. O and the sum have to be multiplied by `shrink`.
  HETSP_INLINE void move_origin(bool first, bool second, float (&shrink)[2]) {
    constexpr int chains = 4;  // a maximum takes twice as long to come as to begin
    float highest[2][chains];
#pragma unroll
    for (int i = 0; i < keys / 4; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float x = s_[4 * (i / 2) + 2 * half + i % 2];
        float& high = highest[half][i % chains];
        high = i < chains ? x : fmaxf(high, x);
      }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float high = fmaxf(fmaxf(highest[half][0], highest[half][1]), fmaxf(highest[half][2], highest[half][3]));
      high = fmaxf(high, shuffle_xor(high, 1));
      high = fmaxf(high, shuffle_xor(high, 2));
      const float seen = high * in_.factors.factor;
      const float top = (half == 0 ? first : second) && seen > top_[half] ? seen : top_[half];
      shrink[half] = top == top_[half] ? 1.0f : exp2_fast(top_[half] - top);
      top_[half] = top;
    }
  }

  // The GPU's own tanh is right to 2^-12, which at softcap 30 would be 0.7 % of a weight; this to 2^-22 of the softcap.
  HETSP_INLINE void squash() {
    const float inner = in_.factors.inner, softcap = in_.factors.softcap;
    if (softcap > 0.0f) {
#pragma unroll
      for (int i = 0; i < keys / 2; ++i) s_[i] = softcap - 2.0f * softcap * reciprocal(exp2_fast(s_[i] * inner) + 1.0f);
    } else {
#pragma unroll
      for (int i = 0; i < keys / 2; ++i) s_[i] *= inner;
    }
  }

  HETSP_INLINE Sight sight(const KeyStep& step) const {
    const int column = 2 * (lane_index() % 4);
    Sight seen;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = row_ + 8 * half;
      const bool member = step.member_begin <= row && row < step.member_end;
      const int begin = columns_before(row + step.left - column);
      const int end = columns_before((member ? smaller(step.end, row + step.right) : 0) - column);
      seen.bits[half] = low_bits(end) & ~low_bits(begin);
    }
    constexpr std::uint32_t first = 0xffffu, second = 0xffffffffu >> (32 - Sight::columns) & ~first;
    const std::uint32_t both = seen.bits[0] & seen.bits[1], either = seen.bits[0] | seen.bits[1];
    seen.first_whole = !__any_sync(0xffffffffu, (both & first) != first);
    seen.second_whole = !__any_sync(0xffffffffu, (both & second) != second);
    seen.second_hidden = !__any_sync(0xffffffffu, (either & second) != 0);
    return seen;
  }

  template <int Begin, int End>
  HETSP_INLINE void hide(const Sight& seen) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int i = Begin; i < End; ++i) {
        float& x = s_[4 * (i / 2) + 2 * half + i % 2];
        x = (seen.bits[half] >> i & 1u) != 0 ? x : -INFINITY;
      }
  }

  // Of columns 0, 1, 8, 9, 16, 17, ...: how many are before `bound`.
  HETSP_INLINE static int columns_before(int bound) { return (bound >> 3) * 2 + smaller(bound & 7, 2); }
  HETSP_INLINE static std::uint32_t low_bits(int count) {
    return count <= 0 ? 0u : count >= 32 ? 0xffffffffu : (1u << count) - 1u;
  }

  HETSP_INLINE void rescale(const float (&shrink)[2]) {
    if (!__any_sync(0xffffffffu, shrink[0] != 1.0f || shrink[1] != 1.0f)) return;
#pragma unroll
    for (int i = 0; i < dim_v / 2; ++i) o_[i] *= shrink[i / 2 % 2];
  }

  // When all lanes of the warp are through with what the barrier guards.
  HETSP_INLINE void release(Barrier& barrier) {
    __syncwarp();
    if (lane_index() == 0) arrive(barrier);
  }

  // The warpgroups issue products in turns.
  HETSP_INLINE void take_turn() { named_sync(barrier_turn + group_, consumer_groups * 128); }
  HETSP_INLINE void pass_turn() { named_arrive(barrier_turn + (1 - group_), consumer_groups * 128); }

  const Arguments& in_;
  Shared& shared_;
  int group_, row_;  // row_: the thread's first row in the tile; its second is 8 below
  std::uint64_t q_base_, k_base_, v_base_;
  Turn<Config::q_stages> q_;
  Turn<Config::stages> k_, v_;
  int item_ = 0;          // of the ring of items
  bool pending_ = false;  // p_ holds weights whose values are still to come
  bool fresh_ = true;     // O is still to be begun: its next values are not added
  bool owed_ = false;     // O belongs to the item before
  float s_[keys / 2];
  std::uint32_t p_[keys / 16][4];
  float o_[dim_v / 2];
  float top_[2], sum_[2];  // sum_: of the thread's own columns
};

}  // namespace hetsp::attention::cuda::hopper
