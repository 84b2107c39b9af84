// The warpgroup of the forward that brings Q, K and V.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/forward_state.cuh"

namespace hetsp::attention::cuda::hopper {

template <class Config>
class ForwardProducer {
 public:
  using Shared = ForwardShared<Config>;

  HETSP_INLINE ForwardProducer(const ForwardArguments& arguments, Shared& shared) : in_(arguments), shared_(shared) {}

  // One thread.
  HETSP_INLINE void run() {
    const Shape& shape = in_.params.shape;
    const auto heads = static_cast<std::int32_t>(shape.heads);
    const std::int32_t count = *in_.queries.count * heads;
    for (std::int32_t item = take(); item < count;) {
      const std::int32_t following = take();  // its way to memory passes beside the copies
      const Tile tile = in_.queries.tiles[item / heads];
      const std::int32_t head = item % heads, head_kv = head / (heads / static_cast<std::int32_t>(shape.heads_kv));
      KeyWalk<Config::keys> walk(in_.params, tile);
      bool more = walk.advance(), is_first = true;
      do {
        const bool has_step = more;
        const std::int32_t token = walk.token();
        if (has_step) more = load_keys(walk, head_kv);
        load_values();  // one step behind the keys, as the consumers want them
        waiting_ = has_step, head_ = head_kv, token_ = token;
        if (is_first) load_queries(tile, head, has_step);
        is_first = false;
      } while (more);
      item = following;
    }
    load_values();
    wait(shared_.q_empty, q_.parity ^ 1u);
    shared_.item.rows = -1;
    arrive(shared_.q_full);
  }

 private:
  HETSP_INLINE std::int32_t take() {
    if constexpr (Config::counted) return atomicAdd(in_.next_item, 1);
    const auto block = static_cast<std::int32_t>(blockIdx.x), blocks = static_cast<std::int32_t>(gridDim.x);
    return block + blocks * taken_++;
  }

  // Brings the step's keys, and looks for the step after it: the consumers are told which is the last.
  HETSP_INLINE bool load_keys(KeyWalk<Config::keys>& walk, std::int32_t head) {
    wait(shared_.k_empty[k_.stage], k_.parity ^ 1u);
    walk.describe(shared_.step[k_.stage]);
    const std::int32_t token = walk.token();
    const bool more = walk.advance();
    shared_.step[k_.stage].is_last = more ? 0 : 1;
    arrive_and_expect(shared_.k_full[k_.stage], Config::KTile::bytes);
#pragma unroll
    for (int panel = 0; panel < Config::KTile::panels; ++panel)
      load_box(shared_.k[k_.stage] + panel * Config::KTile::panel_bytes, in_.maps.k, shared_.k_full[k_.stage], panel * 64, head,
               token);
    k_.next();
    return more;
  }

  HETSP_INLINE void load_values() {
    if (!waiting_) return;
    waiting_ = false;
    wait(shared_.v_empty[v_.stage], v_.parity ^ 1u);
    arrive_and_expect(shared_.v_full[v_.stage], Config::VTile::bytes);
#pragma unroll
    for (int panel = 0; panel < Config::VTile::panels; ++panel)
      load_box(shared_.v[v_.stage] + panel * Config::VTile::panel_bytes, in_.maps.v, shared_.v_full[v_.stage], panel * 64,
               head_, token_);
    v_.next();
  }

  HETSP_INLINE void load_queries(const Tile& tile, std::int32_t head, bool has_steps) {
    wait(shared_.q_empty, q_.parity ^ 1u);
    shared_.item = {tile.row0, tile.rows, head, tile.first, tile.last, has_steps ? 1 : 0};
    arrive_and_expect(shared_.q_full, Config::QTile::bytes);
#pragma unroll
    for (int panel = 0; panel < Config::QTile::panels; ++panel)
      load_box(shared_.q + panel * Config::QTile::panel_bytes, in_.maps.q, shared_.q_full, panel * 64, head,
               static_cast<int>(tile.row0));
    q_.next();
  }

  const ForwardArguments& in_;
  Shared& shared_;
  Turn<1> q_;
  Turn<Config::stages> k_, v_;
  bool waiting_ = false;  // values at token_ of head_ are still to be brought
  std::int32_t head_ = 0, token_ = 0, taken_ = 0;
};

}  // namespace hetsp::attention::cuda::hopper
