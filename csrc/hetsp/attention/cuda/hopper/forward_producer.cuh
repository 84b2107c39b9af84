// The warpgroup of the forward that brings Q, K and V.
#pragma once

#include <cstdint>
#include <type_traits>

#include "hetsp/attention/cuda/hopper/forward_state.cuh"
#include "hetsp/attention/cuda/hopper/item_order.h"

namespace hetsp::attention::cuda::hopper {

// Where the producer of a chain stands; and from which row on the values to be brought are to be swept, < 0 where none follow.
template <bool Chained>
struct LinkPlace {
  std::int32_t sweep_from_ = 0;
  HETSP_INLINE std::int32_t sweep_from() const { return sweep_from_; }
  HETSP_INLINE void set_sweep_from(std::int32_t row) { sweep_from_ = row; }
};
template <>
struct LinkPlace<true> {
  // Registers are few. Four bits each: the item's link, that of the values to be brought; eight each: how many pieces are here,
  // sweep_from.
  std::int32_t links_ = 0;
  std::int32_t place_ = 0;  // of the item among those of a link

  HETSP_INLINE std::int32_t link() const { return links_ & 15; }
  HETSP_INLINE std::int32_t link_of_values() const { return links_ >> 4 & 15; }
  HETSP_INLINE std::int32_t here() const { return links_ >> 8 & 255; }
  HETSP_INLINE std::int32_t sweep_from() const { return (links_ >> 16) == 255 ? -1 : links_ >> 16; }
  HETSP_INLINE void set_link(std::int32_t link) { links_ = (links_ & ~15) | link; }
  HETSP_INLINE void set_link_of_values() { links_ = (links_ & ~(15 << 4)) | link() << 4; }
  HETSP_INLINE void set_here() { links_ = (links_ & ~(255 << 8)) | (link() + 1) << 8; }
  HETSP_INLINE void set_sweep_from(std::int32_t row) { links_ = (links_ & 0xffff) | (row & 255) << 16; }
};

template <class Config>
class ForwardProducer : LinkPlace<Config::chained> {
 public:
  using Shared = ForwardShared<Config>;

  using Arguments = typename Config::Arguments;
  using Told = typename Config::Item;
  using Walk = KeyWalk<Config::keys, std::conditional_t<Config::chained, ForwardProducer, ForwardParams>>;

  HETSP_INLINE ForwardProducer(const Arguments& arguments, Shared& shared) : in_(arguments), shared_(shared) {}

  // Of the item's link in a chain.
  HETSP_INLINE const ForwardParams& link_params() const { return in_.chain.link[this->link()]; }

  // One thread.
  HETSP_INLINE void run() {
    const Shape& shape = in_.params.shape;
    const auto heads = static_cast<std::int32_t>(shape.heads);
    const std::int32_t tiles = *in_.queries.count;
    std::int32_t number = atomicAdd(in_.next_item, 1);
#pragma unroll 1
    for (bool is_end = false; !is_end;) {
      is_end = number >= tiles * heads * links();
      Tile tile{0, -1, 0, -1, 0};
      Item item{0, 0};
      std::int32_t following = 0;
      if (!is_end) {
        following = atomicAdd(in_.next_item, 1);  // its way to memory passes beside the copies
        if constexpr (Config::chained) {
          this->set_link(number / (tiles * heads));
          number -= this->link() * tiles * heads;
        }
        item = item_at(number, tiles, heads, in_.together);
        tile = in_.queries.tiles[item.tile];
      }
      const std::int32_t head_kv = item.head / (heads / static_cast<std::int32_t>(shape.heads_kv));
      Walk walk(walked(), tile);
      bool more = walk.advance();
      if constexpr (Config::chained) {
        this->place_ = item.tile * heads + item.head;
        if (!more && !is_end && may_pass_over(in_.chain, this->link())) {
          end_turn(in_.chain, this->place_, this->link(), consumer_warps);
          number = following;
          continue;
        }
        if (more) await_keys();
      }
      if (more) {
        load_queries(tile, item.head);
      } else {
        tell_empty(told_of({tile.row0, tile.rows, item.head, 0, -1}));
      }
#pragma unroll 1
      while (more) {
        const std::int32_t token = walk.token(), strangers = Config::chained ? 0 : walk.strangers();
        more = load_keys(walk, head_kv);
        load_values();  // one step behind the keys, as the consumers want them
        waiting_ = true, head_ = head_kv, token_ = token;
        if constexpr (Config::chained) {
          this->set_link_of_values();
          this->set_sweep_from(
              shared_.step[(k_.stage + Config::stages - 1) % Config::stages].end);  // strangers or zeros follow
        } else {
          this->set_sweep_from(strangers);
        }
      }
      number = following;
    }
    load_values();
    waiting_ = true, token_ = nothing, this->set_sweep_from(-1);
    load_values();
  }

 private:
  // How many links the call has, and of the item's link what a walk reads, the maps of its keys and of the values to be
  // brought, and what the consumers are told.
  HETSP_INLINE std::int32_t links() const {
    if constexpr (Config::chained) {
      return in_.chain.count;
    } else {
      return 1;
    }
  }
  HETSP_INLINE decltype(auto) walked() const {
    if constexpr (Config::chained) {
      return *this;
    } else {
      return (in_.params);  // themselves
    }
  }
  HETSP_INLINE const TensorMap& key_map() const {
    if constexpr (Config::chained) {
      return in_.k[this->link()];
    } else {
      return in_.maps.k;
    }
  }
  HETSP_INLINE const TensorMap& value_map() const {
    if constexpr (Config::chained) {
      return in_.v[this->link_of_values()];
    } else {
      return in_.maps.v;
    }
  }
  HETSP_INLINE decltype(auto) told_of(const QueryItem& item) const {
    if constexpr (Config::chained) {
      return Told{item, this->link(), this->place_};
    } else {
      return (item);  // itself
    }
  }
  // Links come in rising order: a piece that was here once is. What the consumers still want of the item before does not wait.
  HETSP_INLINE void await_keys() {
    if (this->here() > this->link()) return;
    load_values();
    await_piece(in_.chain, this->link());
    fence_global_to_async();
    this->set_here();
  }

  // Brings the step's keys, and looks for the step after it: the consumers are told which is the last.
  HETSP_INLINE bool load_keys(Walk& walk, std::int32_t head) {
    wait(shared_.k_empty[k_.stage], k_.parity ^ 1u);
#pragma unroll
    for (int panel = 0; panel < Config::KTile::panels; ++panel)
      load_box(shared_.k[k_.stage] + panel * Config::KTile::panel_bytes, key_map(), shared_.k_full[k_.stage], panel * 64, head,
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
    shared_.sweep_from[v_.stage] = this->sweep_from();
    if (token_ == nothing) {
      arrive(shared_.v_here[v_.stage]);
    } else {
      arrive_and_expect(shared_.v_here[v_.stage], Config::VTile::bytes);
#pragma unroll
      for (int panel = 0; panel < Config::VTile::panels; ++panel)
        load_box(shared_.v[v_.stage] + panel * Config::VTile::panel_bytes, value_map(), shared_.v_here[v_.stage], panel * 64,
                 head_, token_);
    }
    v_.next();
  }

  HETSP_INLINE void load_queries(const Tile& tile, std::int32_t head) {
    wait(shared_.q_empty[q_.stage], q_.parity ^ 1u);
    tell(told_of({tile.row0, tile.rows, head, tile.first, tile.last}));
    arrive_and_expect(shared_.q_full[q_.stage], Config::QTile::bytes);
#pragma unroll
    for (int panel = 0; panel < Config::QTile::panels; ++panel)
      load_box(shared_.q[q_.stage] + panel * Config::QTile::panel_bytes, in_.maps.q, shared_.q_full[q_.stage], panel * 64, head,
               static_cast<int>(tile.row0));
    q_.next();
  }

  // An item whose rows see nothing, or none at all: one step that nobody sees, and no copies.
  HETSP_INLINE void tell_empty(const Told& item) {
    wait(shared_.k_empty[k_.stage], k_.parity ^ 1u);
    shared_.step[k_.stage] = {0, 0, 0, 0, 0, see_none, 1, 0};
    arrive(shared_.k_full[k_.stage]);
    k_.next();
    load_values();
    waiting_ = true, token_ = nothing, this->set_sweep_from(Config::keys);
    wait(shared_.q_empty[q_.stage], q_.parity ^ 1u);
    tell(item);
    arrive(shared_.q_full[q_.stage]);
    q_.next();
  }

  HETSP_INLINE void tell(const Told& item) {
    shared_.item[told_] = item;
    told_ = (told_ + 1) % Shared::items;
  }

  static constexpr std::int32_t nothing = -1;

  const Arguments& in_;
  Shared& shared_;
  Turn<Config::q_stages> q_;
  Turn<Config::stages> k_, v_;
  bool waiting_ = false;  // values at token_ of head_ are still to be brought
  std::int32_t head_ = 0, token_ = 0, told_ = 0;
};

template <class Config>
HETSP_INLINE const ForwardParams& walked_params(const ForwardProducer<Config>& producer) {
  return producer.link_params();
}

}  // namespace hetsp::attention::cuda::hopper
