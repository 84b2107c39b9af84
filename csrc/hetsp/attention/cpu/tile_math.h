// The arithmetic of one (key tile, query tile) pair, on scratch of the accumulate type, compiled once per instruction set.
// Everything that differs by dtype, stride or segment happens before and after it, in portable code.
//
// Queries lie along the SIMD lanes: scores are kept transposed, [key][query], so that row maxima and sums need no
// horizontal step and every product is "one broadcast number times a run of lanes". All leading dimensions of query-lane
// arrays are kTile. Each lane's arithmetic is the same whatever the other lanes hold, which is what makes a sequence in a
// batch bitwise equal to the sequence alone.
#pragma once

#include <cstdint>

namespace hetsp::attention::cpu {

// Rows and keys of a tile. 64 x 64 float scores are 16 KB, half of a small L1.
constexpr std::int64_t kTile = 64;
constexpr std::int64_t kLanes = 16;  // padded extents are multiples of it: one 64-byte vector of floats, two of doubles

// Query lane q of the tile sees keys [low[q], high[q]) of the tile. Padding lanes see all: their scores are 0.
struct TileMask {
  alignas(64) std::int32_t low[kTile];
  alignas(64) std::int32_t high[kTile];
  std::int32_t widest;  // most keys that a lane without padding sees
  bool cut;             // some lane sees less than the whole tile; else low and high are not read
};

template <class Acc>
struct ForwardTile {
  std::int64_t lanes, keys;      // lanes: padded to kLanes
  std::int64_t dim, dim_v;
  const Acc* q_t;                // [dim][kTile], scaled so that q . k is the score in base 2, or score / softcap
  const Acc *k, *v;              // [keys][dim], [keys][dim_v]
  Acc cap;                       // softcap * log2(e), or 0: off
  const TileMask* mask;
  bool careful;                  // v may hold NaN or inf that hidden pairs must not pass on: slow path
  Acc* scores;                   // [kTile][kTile] scratch
  Acc *max, *sum;                // [kTile] in, out: SoftmaxState per lane
  Acc* out_t;                    // [dim_v][kTile] in, out: sum of 2^(score - max) v
};

template <class Acc>
struct BackwardTile {
  std::int64_t lanes, keys, rows;       // rows: lanes without the padding
  std::int64_t dim, dim_v;
  std::int64_t dim_pad, dim_v_pad;      // multiples of kLanes
  const Acc *q_t, *dout_t;              // [dim][kTile] scaled as above, [dim_v][kTile]
  const Acc *k, *v;                     // [keys][dim], [keys][dim_v]
  Acc cap;
  const TileMask* mask;
  bool careful;                         // k, q or dout may hold NaN or inf
  const Acc *lse_high, *lse_low;        // [kTile] base 2, in two parts; +inf for rows without keys
  const Acc* delta;                     // [kTile]
  Acc *p, *ds;                          // [kTile][kTile] scratch; ds without the factor softmax_scale
  Acc* dq_t;                            // [dim][kTile] in, out: += sum_j ds_ij k_j; null: not wanted
  const Acc *q, *dout;                  // [rows][dim_pad], [rows][dim_v_pad], unscaled; read only for dk, dv
  Acc *dk, *dv;                         // [keys][dim_pad], [keys][dim_v_pad] in, out; both null: not wanted
};

template <class Acc>
struct TileMath {
  void (*forward)(const ForwardTile<Acc>& tile);
  void (*backward)(const BackwardTile<Acc>& tile);
  // delta[row] = out[row] . dout[row], [rows][dim_v] each, summed in double.
  void (*delta)(std::int64_t rows, std::int64_t dim_v, const Acc* out, const Acc* dout, Acc* delta);
};

}  // namespace hetsp::attention::cpu
