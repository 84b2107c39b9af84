// The warpgroup of the forward that brings Q, K and V.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/forward_state.cuh"
#include "hetsp/attention/cuda/hopper/item_order.h"

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
    const std::int32_t tiles = *in_.queries.count;
    std::int32_t number = atomicAdd(in_.next_item, 1);
#pragma unroll 1
    for (bool is_end = false; !is_end;) {
      is_end = number >= tiles * heads;
      Tile tile{0, -1, 0, -1, 0};
      Item item{0, 0};
      std::int32_t following = 0;
      if (!is_end) {
        following = atomicAdd(in_.next_item, 1);  // its way to memory passes beside the copies
        item = item_at(number, tiles, heads, in_.together);
        tile = in_.queries.tiles[item.tile];
      }
      const std::int32_t head_kv = item.head / (heads / static_cast<std::int32_t>(shape.heads_kv));
      KeyWalk<Config::keys> walk(in_.params, tile);
      bool more = walk.advance();
      if (more) {
        load_queries(tile, item.head);
      } else {
        tell_empty({tile.row0, tile.rows, item.head, 0, -1});
      }
#pragma unroll 1
      while (more) {
        const std::int32_t token = walk.token();
        more = load_keys(walk, head_kv);
        load_values();  // one step behind the keys, as the consumers want them
        waiting_ = true, head_ = head_kv, token_ = token;
      }
      number = following;
    }
    load_values();
  }

 private:
  // Brings the step's keys, and looks for the step after it: the consumers are told which is the last.
  HETSP_INLINE bool load_keys(KeyWalk<Config::keys>& walk, std::int32_t head) {
    wait(shared_.k_empty[k_.stage], k_.parity ^ 1u);
#pragma unroll
    for (int panel = 0; panel < Config::KTile::panels; ++panel)
      load_box(shared_.k[k_.stage] + panel * Config::KTile::panel_bytes, in_.maps.k, shared_.k_full[k_.stage], panel * 64, head,
               walk.token());
    walk.describe(shared_.step[k_.stage]);  // while the keys are on their way: the phase waits for the arrival below
    const bool more = walk.advance();
    shared_.step[k_.stage].is_last = more ? 0 : 1;
    arrive_and_expect(shared_.k_full[k_.stage], Config::KTile::bytes);
    k_.next();
    return more;
  }

  HETSP_INLINE void load_values() {
    if (!waiting_) return;
    waiting_ = false;
    wait(shared_.v_empty[v_.stage], v_.parity ^ 1u);
    if (token_ == nothing) {
      arrive(shared_.v_full[v_.stage]);
    } else {
      arrive_and_expect(shared_.v_full[v_.stage], Config::VTile::bytes);
#pragma unroll
      for (int panel = 0; panel < Config::VTile::panels; ++panel)
        load_box(shared_.v[v_.stage] + panel * Config::VTile::panel_bytes, in_.maps.v, shared_.v_full[v_.stage], panel * 64,
                 head_, token_);
    }
    v_.next();
  }

  HETSP_INLINE void load_queries(const Tile& tile, std::int32_t head) {
    wait(shared_.q_empty[q_.stage], q_.parity ^ 1u);
    tell({tile.row0, tile.rows, head, tile.first, tile.last});
    arrive_and_expect(shared_.q_full[q_.stage], Config::QTile::bytes);
#pragma unroll
    for (int panel = 0; panel < Config::QTile::panels; ++panel)
      load_box(shared_.q[q_.stage] + panel * Config::QTile::panel_bytes, in_.maps.q, shared_.q_full[q_.stage], panel * 64, head,
               static_cast<int>(tile.row0));
    q_.next();
  }

  // An item whose rows see nothing, or none at all: one step that nobody sees, and no copies.
  HETSP_INLINE void tell_empty(const QueryItem& item) {
    wait(shared_.k_empty[k_.stage], k_.parity ^ 1u);
    shared_.step[k_.stage] = {0, 0, 0, 0, 0, Config::keys, see_none, 1};
    arrive(shared_.k_full[k_.stage]);
    k_.next();
    load_values();
    waiting_ = true, token_ = nothing;
    wait(shared_.q_empty[q_.stage], q_.parity ^ 1u);
    tell(item);
    arrive(shared_.q_full[q_.stage]);
    q_.next();
  }

  HETSP_INLINE void tell(const QueryItem& item) {
    shared_.item[told_] = item;
    told_ = (told_ + 1) % Shared::items;
  }

  static constexpr std::int32_t nothing = -1;

  const ForwardArguments& in_;
  Shared& shared_;
  Turn<Config::q_stages> q_;
  Turn<Config::stages> k_, v_;
  bool waiting_ = false;  // values at token_ of head_ are still to be brought
  std::int32_t head_ = 0, token_ = 0, told_ = 0;
};

}  // namespace hetsp::attention::cuda::hopper
