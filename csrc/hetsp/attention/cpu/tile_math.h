// The arithmetic of one (key tile, query tile) pair, and the moves between tensors and tiles: a table of functions per element
// type, compiled once per instruction set (tile/). What differs by segment, head or schedule happens outside, in portable code,
// which knows tiles as opaque bytes of four packed forms.
//
// Queries lie along the SIMD lanes: scores are kept transposed, [key][query], so that row maxima and sums need no horizontal
// step and every product is "one broadcast number times a run of lanes". Each lane's arithmetic is the same whatever the other
// lanes hold, which is what makes a sequence in a batch bitwise equal to the sequence alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "hetsp/attention/number.h"

namespace hetsp::attention::cpu {

// Rows and keys of a tile. 64 x 64 float scores are 16 KB, half of a small L1.
constexpr std::int64_t kTile = 64;
constexpr std::int64_t kLanes = 16;  // padded extents are multiples of it: one 64-byte vector of floats, two of doubles

// float64 accumulates in itself, all others in float32.
template <class Element>
struct AccOf {
  using type = float;
};
template <>
struct AccOf<double> {
  using type = double;
};

// Query lane q of the tile sees keys [low[q], high[q]) of the tile: none where low >= high. Neither decreases along the lanes,
// so that a run of lanes sees nothing outside [low of the first, high of the last); padding lanes repeat the last row.
struct TileMask {
  alignas(64) std::int32_t low[kTile];
  alignas(64) std::int32_t high[kTile];
  std::int32_t widest;  // most keys that a lane sees
  bool cut;  // some lane sees less than the whole tile; else low and high are not read
};

// How results are written: `streamed` may send whole cache lines past the caches, so that none is fetched only to be
// overwritten. A hint; the bits are the same. Streamed lines are in memory before the worker's next atomic read-modify-write
// (for_each_item makes one after each item).
enum class Store { cached, streamed };

// Between a tensor of T and tiles. T is the element type, or the accumulate type for partial results. A tensor's part is up to
// kTile rows of `dim` contiguous elements, `stride` elements apart; nothing else of it is touched.
//
// Packed forms, dim_pad being dim rounded up to kLanes; all begin at 64-byte boundaries, all padding is 0. The wide forms hold
// the accumulate type; the form for dot products of bfloat16 pairs is in brackets. Matrix instructions, which sum 32 products
// at once, pad dims and rows that are summed over to a multiple of 32 with zeros:
//
//   lanes    rows along the SIMD lanes             Acc [dim][kTile]      (bf16 [ceil(dim / 2)][kTile][2])
//   rows     broadcast along dim                   Acc [rows][dim_pad]   (bf16 [rows][dim_pad])
//   pairs    summed over rows, dim on the lanes    the same as rows      (bf16 [ceil(rows / 2)][dim_pad][2])
//   columns  summed over rows, broadcast           the same as rows      (bf16 as pairs; matrix instructions: [dim][kTile])
template <class T>
struct Move {
  using Acc = typename AccOf<T>::type;
  // Rows from `rows` up to `lanes`, a multiple of kLanes, are 0; lanes beyond are not written. Wide: times `factor`, the
  // product rounded once; dot products leave the factor to ForwardTile::factor.
  void (*pack_lanes)(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t lanes, std::int64_t dim, double factor,
                     void* to);
  void (*pack_rows)(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t dim, void* to);
  void (*pack_pairs)(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t dim, void* to);
  void (*pack_columns)(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t dim, void* to);
  bool (*nonfinite)(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t dim);  // any NaN or infinity?
  // from: [dim][kTile] times lane_factor[kTile] / lane_divisor[kTile], each rounded once; no division where lane_divisor is
  // null. A factor of 0 gives 0, whatever the lane and its divisor hold.
  void (*store_lanes)(const Acc* from, std::int64_t rows, std::int64_t dim, const Acc* lane_factor, const Acc* lane_divisor,
                      T* to, std::int64_t stride, Store how);
  // from: [rows][dim_pad] times factor.
  void (*store_rows)(const Acc* from, std::int64_t rows, std::int64_t dim, Acc factor, T* to, std::int64_t stride, Store how);
  // delta[row] = out[row] . dout[row], summed in double; a term with out = 0 is 0, whatever dout holds.
  void (*delta)(const T* out, std::int64_t out_stride, const T* dout, std::int64_t dout_stride, std::int64_t rows,
                std::int64_t dim, Acc* delta);
};

template <class Acc>
struct ForwardTile {
  std::int64_t lanes, keys;  // lanes: padded to kLanes
  std::int64_t dim, dim_v;
  const void* q;  // lanes form of dim, packed with the factor below
  const void *k, *v;  // rows form of dim, columns form of dim_v
  Acc factor;  // times q . k is the score in base 2, or score / softcap; 1 where pack_lanes has applied it
  Acc cap;  // softcap * log2(e), or 0: off
  const TileMask* mask;
  bool careful;  // v may hold NaN or inf that hidden pairs must not pass on: slow path
  void* scratch;  // scratch_bytes()
  Acc *max, *sum;  // [kTile] in, out: SoftmaxState per lane
  Acc* out_t;  // [dim_v][kTile] in, out: sum of 2^(score - max) v
};

template <class Acc>
struct BackwardTile {
  std::int64_t lanes, keys, rows;  // rows: lanes without the padding
  std::int64_t dim, dim_v;
  const void *q, *dout;  // lanes form: q packed with the factor below, dout with 1
  const void *k, *v;  // rows form
  const void* k_columns;  // columns form; read only for dq
  const void *q_pairs, *dout_pairs;  // pairs form, unscaled; read only for dk, dv
  Acc factor, cap;  // as in ForwardTile
  const TileMask* mask;
  bool careful;  // k, q, dout or delta may hold NaN or inf
  const Acc *lse_high, *lse_low;  // [kTile] base 2, in two parts; +inf for rows without keys and for padding
  const Acc* delta;  // [kTile], 0 for padding
  void* scratch;  // scratch_bytes()
  Acc* dq_t;  // [dim][kTile] in, out: += sum_j ds_ij k_j, without softmax_scale; null: not wanted
  Acc *dk, *dv;  // [keys][dim_pad], [keys][dim_v_pad] in, out, dk without softmax_scale; both or none
};

template <class Element>
struct TileMath {
  using Acc = typename AccOf<Element>::type;
  Move<Element> element;
  Move<Acc> acc;  // into the same forms
  bool pairs_are_rows;  // the rows form serves as pairs and columns forms too: no need to pack them all
  // Bytes of kTile rows in a form (pairs and columns need at most as many as rows), and of a tile's scratch.
  std::size_t (*lanes_bytes)(std::int64_t dim);
  std::size_t (*rows_bytes)(std::int64_t dim);
  std::size_t (*scratch_bytes)();
  void (*forward)(const ForwardTile<Acc>& tile);
  void (*backward)(const BackwardTile<Acc>& tile);
  // Around any number of forward and backward calls of one thread, or null: registers that those calls need (TileRegion).
  void (*enter)() = nullptr;
  void (*leave)() = nullptr;
};

// While it lives its thread may call forward and backward.
class TileRegion {
 public:
  template <class Element>
  explicit TileRegion(const TileMath<Element>& math) : leave_(math.leave) {
    if (math.enter != nullptr) math.enter();
  }
  ~TileRegion() {
    if (leave_ != nullptr) leave_();
  }
  TileRegion(const TileRegion&) = delete;
  TileRegion& operator=(const TileRegion&) = delete;

 private:
  void (*leave_)();
};

}  // namespace hetsp::attention::cpu
