// The end of a query tile's forward: from the softmax state (top, sum, O) of the keys to out and lse, joined with the seed
// and the sink, and the rows that a hidden NaN has reached.
#pragma once

#include <cstddef>
#include <cstdint>

#include "hetsp/attention/cuda/hopper/forward_steps.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"
#include "hetsp/attention/cuda/tile.cuh"
#include "hetsp/attention/softmax_state.h"

namespace hetsp::attention::cuda::hopper {

// What the producer hands to the consumers with a tile's queries. rows < 0 ends the kernel.
struct QueryItem {
  std::int64_t row0;
  std::int32_t rows, head;
  std::int32_t first, last;  // segments
};

HETSP_INLINE float reciprocal(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));  // 1 ulp; a division would be a function call on its slow side
  return y;
#else
  return 1 / x;
#endif
}

// A row's weights in base 2: of the keys' O, of the seed; and whether it has any weight at all.
struct RowFinish {
  float keys, seed, lse;
};

// Joins (top, sum) of the keys, already in base 2, with (seed, 1) and (sink, 1). All -inf: out 0, lse -inf.
HETSP_INLINE RowFinish finish_row(float top, float sum, float seed_lse, float sink) {
  const float seed2 = seed_lse * static_cast<float>(kLog2E), sink2 = sink * static_cast<float>(kLog2E);
  const float highest = fmaxf(top, fmaxf(seed2, sink2)), origin = highest == -INFINITY ? 0.0f : highest;
  const float keys = exp2_fast(top - origin), seed = exp2_fast(seed2 - origin);
  const float total = sum * keys + seed + exp2_fast(sink2 - origin);
  if (total == 0.0f) return {0.0f, 0.0f, -INFINITY};
  const float share = reciprocal(total);
  return {keys * share, seed * share, (origin + log2_fast(total)) * static_cast<float>(kLn2)};
}

// Four lanes of a row hold pairs of columns 8 (j + i) + 2 lane of four neighbouring blocks i of 8; afterwards lane i holds
// block i: a 4 x 4 transposition among them, so that 16 bytes leave at once.
HETSP_INLINE void transpose_quad(std::uint32_t (&x)[4]) {
  const int lane = lane_index();
#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2) {
    const bool upper = (lane & bit) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & bit) != 0) continue;
      const std::uint32_t sent = upper ? x[i] : x[i + bit];
      const std::uint32_t received = shuffle_xor(sent, bit);
      (upper ? x[i] : x[i + bit]) = received;
    }
  }
}

struct alignas(16) Words4 {
  std::uint32_t word[4];
};
struct alignas(8) Floats2 {
  float value[2];
};

// Whether rows of such a tensor, of numbers of so many bytes, begin at multiples of `to` bytes, a power of two.
HETSP_INLINE bool is_aligned(const void* data, std::int64_t token_stride, std::int64_t head_stride, int bytes, int to) {
  return ((reinterpret_cast<std::uint64_t>(data) | static_cast<std::uint64_t>((token_stride | head_stride) * bytes)) &
          static_cast<std::uint64_t>(to - 1)) == 0;
}

// Writes a lane's two rows, row0 + lane / 4 + 8 half: `o` holds pairs of columns 8 j + 2 (lane mod 4), at o[4 j + 2 half],
// times factor[half]. All lanes call. How rows lie in memory is asked once: the kernel's usual way is short and has no jumps,
// since what a tile executes once comes from far in the instruction cache.
// InPlace: out is float32.
template <class Element, int DimV, bool InPlace = false>
HETSP_INLINE void write_rows(const ForwardParams& params, std::int64_t row0, int head, const bool (&inside)[2],
                             const float (&factor)[2], float (&o)[DimV / 2]) {
  const View& out = params.out;
  const int lane = lane_index() % 4, blocks = static_cast<int>(params.shape.head_dim_v) / 8;
  const auto aligned = [&](int to) {
    return is_aligned(out.data, out.token_stride, out.head_stride, InPlace || params.out_is_acc ? 4 : 2, to);
  };
  const auto offset = [&](int half) {
    return (row0 + lane_index() / 4 + 8 * half) * out.token_stride + head * out.head_stride;
  };
  if (!InPlace && !params.out_is_acc && aligned(16)) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Element* const to = static_cast<Element*>(out.data) + offset(half) + 8 * lane;
#pragma unroll
      for (int j = 0; j < DimV / 8; j += 4) {
        std::uint32_t word[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
          word[i] = pack<Element>(o[4 * (j + i) + 2 * half] * factor[half], o[4 * (j + i) + 2 * half + 1] * factor[half]);
        transpose_quad(word);
        if (inside[half] && j + lane < blocks) *reinterpret_cast<Words4*>(to + 8 * j) = {{word[0], word[1], word[2], word[3]}};
      }
    }
  } else if ((InPlace || params.out_is_acc) && aligned(8)) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float* const to = static_cast<float*>(out.data) + offset(half) + 2 * lane;
#pragma unroll
      for (int j = 0; j < DimV / 8; ++j)
        if (inside[half] && j < blocks)
          *reinterpret_cast<Floats2*>(to +
                                      8 * j) = {{o[4 * j + 2 * half] * factor[half], o[4 * j + 2 * half + 1] * factor[half]}};
    }
  } else {  // one by one. The blocks move up to where the code for the first is: it is seldom used, and should be small
#pragma unroll 1
    for (int j = 0; j < blocks; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (!inside[i / 2]) continue;
        const std::int64_t at = offset(i / 2) + 8 * j + 2 * lane + i % 2;
        const float value = o[i] * factor[i / 2];
        if (InPlace || params.out_is_acc) {
          static_cast<float*>(out.data)[at] = value;
        } else {
          static_cast<Element*>(out.data)[at] = {static_cast<std::uint16_t>(pack<Element>(value, 0.0f))};
        }
      }
#pragma unroll
      for (int i = 4; i < DimV / 2; ++i) o[i - 4] = o[i];
    }
  }
}

// The row again, by one warp, key by key from global memory, with its lse known: hidden keys are not touched at all. For rows
// whose lse is finite and whose out is not: a V with a NaN or an infinity met them, maybe behind a mask, where 0 * NaN is NaN.
template <class Element, int DimV>
HETSP_INLINE void mend_row(const ForwardParams& params, const QueryItem& item, std::int64_t row, float lse) {
  const Shape& shape = params.shape;
  const int lane = lane_index(), head_kv = item.head / (static_cast<int>(shape.heads) / static_cast<int>(shape.heads_kv));
  const int dim = static_cast<int>(shape.head_dim), dim_v = static_cast<int>(shape.head_dim_v);
  const auto scale = static_cast<float>(params.score.softmax_scale), softcap = static_cast<float>(params.score.softcap);
  const auto element = [](const ConstView& view, std::int64_t token, int of, int column) {
    return to_float(static_cast<const Element*>(view.data)[token * view.token_stride + of * view.head_stride + column]);
  };
  float o[DimV / 32];
  const float seed =
      params.seed_lse == nullptr ? -INFINITY : static_cast<const float*>(params.seed_lse)[item.head * shape.total_q + row];
  const float seed_weight = exp2_fast((seed - lse) * static_cast<float>(kLog2E));
#pragma unroll
  for (int i = 0; i < DimV / 32; ++i) {
    const int column = lane + 32 * i;
    o[i] =
        seed == -INFINITY || column >= dim_v
            ? 0.0f
            : seed_weight * static_cast<const float*>(params.seed_out.data)[row * params.seed_out.token_stride +
                                                                            item.head * params.seed_out.head_stride + column];
  }
#pragma unroll 1
  for (int index = item.first; index <= item.last; ++index) {
    const Segment segment = clamped(params.segments[index], shape);
    if (row < segment.q_begin || row >= segment.q_end) continue;
    const RowRange keys = visible_keys(segment, row);
#pragma unroll 1
    for (std::int64_t key = keys.begin; key < keys.end; ++key) {
      float x = 0.0f;
#pragma unroll 1
      for (int column = lane; column < dim; column += 32)
        x += element(params.q, row, item.head, column) * element(params.k, key, head_kv, column);
#pragma unroll
      for (int mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
      x *= scale;
      if (softcap > 0.0f) x = softcap * std::tanh(x * reciprocal(softcap));
      const float weight = exp2_fast((x - lse) * static_cast<float>(kLog2E));
#pragma unroll
      for (int i = 0; i < DimV / 32; ++i)
        if (lane + 32 * i < dim_v) o[i] += weight * element(params.v, key, head_kv, lane + 32 * i);
    }
  }
#pragma unroll
  for (int i = 0; i < DimV / 32; ++i)
    if (lane + 32 * i < dim_v)
      store(params.out.data, params.out_is_acc ? DType::float32 : params.shape.dtype,
            row * params.out.token_stride + item.head * params.out.head_stride + lane + 32 * i, o[i]);
}

// The seed of a row, for a lane that holds columns 8 j + 2 (lane mod 4) and + 1.
HETSP_INLINE const float* seed_of(const ForwardParams& params, std::int64_t row, int head) {
  return static_cast<const float*>(params.seed_out.data) + row * params.seed_out.token_stride +
         head * params.seed_out.head_stride + 2 * (lane_index() % 4);
}

// Has the seed of a warp's 16 rows brought nearer, for finish_rows to read: each of a row's four lanes asks for a line of it.
template <int DimV>
HETSP_INLINE void foretell_seed(const ForwardParams& params, const QueryItem& item, int first_row) {
  if (params.seed_lse == nullptr) return;
  const std::int64_t row0 = item.row0 + first_row;
  const int rows = item.rows - first_row;
  constexpr int line = 32;  // numbers
  const int lane = lane_index(), first = line * (lane % 4);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int place = lane / 4 + 8 * half;
    if (place >= rows) continue;
    const float* const from = seed_of(params, row0 + place, item.head) - 2 * (lane % 4);
#pragma unroll
    for (int column = 0; column < DimV; column += 4 * line)
      if (column + first < params.shape.head_dim_v) prefetch_line(from + column + first);
  }
}

// Blocks [Begin, Begin + Count) of 8 columns of the seed of the lane's two rows, two numbers each, at seed[4 j + 2 half].
template <int Begin, int Count, int Spare>
HETSP_INLINE void read_seed(const ForwardParams& params, const QueryItem& item, std::int64_t row0, int rows,
                            float (&seed)[Spare]) {
  static_assert(4 * Count <= Spare);
  const ConstView& view = params.seed_out;
  const float* from[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int place = lane_index() / 4 + 8 * half;
    from[half] = seed_of(params, row0 + (place < rows ? place : 0), item.head) + 8 * Begin;
  }
  const bool pairs = is_aligned(view.data, view.token_stride, view.head_stride, 4, 8);
  if (pairs) {
#pragma unroll
    for (int i = 0; i < 2 * Count; ++i) {
      if (8 * (Begin + i / 2) >= params.shape.head_dim_v) continue;
      const Floats2 both = *reinterpret_cast<const Floats2*>(from[i % 2] + 8 * (i / 2));
      seed[2 * i] = both.value[0], seed[2 * i + 1] = both.value[1];
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4 * Count; ++i)
      if (8 * (Begin + i / 4) < params.shape.head_dim_v) seed[i] = from[i / 2 % 2][8 * (i / 4) + i % 2];
  }
}

// o = keys o + weight seed, from block Begin of 8 columns on; as many blocks as `seed` takes have been read for it. A row of
// the seed without weight is not looked at: it may hold anything.
template <int DimV, int Begin, int Spare>
HETSP_INLINE void join_seed(const ForwardParams& params, const QueryItem& item, std::int64_t row0, int rows,
                            const float (&keys)[2], const float (&weight)[2], float (&o)[DimV / 2], float (&seed)[Spare]) {
  constexpr int count = smaller(Spare / 4, DimV / 8 - Begin);
  if constexpr (Begin > 0) read_seed<Begin, count>(params, item, row0, rows, seed);
#pragma unroll
  for (int i = 0; i < 4 * count; ++i) {
    const int half = i / 2 % 2;
    float& value = o[4 * Begin + i];
    value *= keys[half];
    if (weight[half] != 0.0f && 8 * (Begin + i / 4) < params.shape.head_dim_v) value += weight[half] * seed[i];
  }
  if constexpr (Begin + count < DimV / 8) join_seed<DimV, Begin + count>(params, item, row0, rows, keys, weight, o, seed);
}

// Ends the 16 rows of a warp that begin with row first_row of the tile: row l / 4 + 8 half of them is lane l's. `spare` is
// overwritten: the seed is on its way to it while the sums are finished. InPlace: there is a seed, which lies where the
// result goes in float32, and no sink; link() are the params of the keys.
template <class Element, int DimV, bool InPlace = false, int Spare, class Link = std::nullptr_t>
HETSP_INLINE void finish_rows(const ForwardParams& params, QueryItem item, int first_row, const float (&top)[2],
                              const float (&sum)[2], float (&o)[DimV / 2], float (&spare)[Spare], const Link& link = nullptr) {
  const std::int64_t row0 = item.row0 + first_row;
  const int rows = item.rows - first_row;  // those that exist
  const Shape& shape = params.shape;
  const int lane = lane_index();
  const bool seeded = (InPlace || params.seed_lse != nullptr) && rows > 0;
  if (seeded) read_seed<0, smaller(Spare / 4, DimV / 8)>(params, item, row0, rows, spare);
  const float sink = InPlace || params.sink == nullptr ? -INFINITY : static_cast<const float*>(params.sink)[item.head];
  // The two rows beside each other, without a branch: most of this waits for its own results.
  bool inside[2];
  std::int64_t statistic[2];  // place of the row's lse
  float seed[2], lse[2], keys[2], weight[2];
  float reached[2];  // 0 unless some element is a NaN or an infinity
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int place = lane / 4 + 8 * half;
    inside[half] = place < rows;
    statistic[half] = item.head * shape.total_q + row0 + place;
    seed[half] = seeded && inside[half] ? static_cast<const float*>(params.seed_lse)[statistic[half]] : -INFINITY;
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float chain[2] = {};
#pragma unroll
    for (int i = 0; i < DimV / 4; ++i) chain[i % 2] += 0.0f * o[4 * (i / 2) + 2 * half + i % 2];
    reached[half] = chain[0] + chain[1];
    float total = sum[half];
    total += shuffle_xor(total, 1);
    total += shuffle_xor(total, 2);
    const RowFinish finish = finish_row(top[half], total, seed[half], sink);
    lse[half] = finish.lse, keys[half] = finish.keys, weight[half] = finish.seed;
  }
  if constexpr (InPlace) {  // a row that may have to be mended still wants its seed's
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      reached[half] += shuffle_xor(reached[half], 1);
      reached[half] += shuffle_xor(reached[half], 2);
      if (inside[half] && lane % 4 == 0 && reached[half] == 0.0f) static_cast<float*>(params.lse)[statistic[half]] = lse[half];
    }
  } else {
#pragma unroll
    for (int half = 0; half < 2; ++half)
      if (inside[half] && lane % 4 == 0) static_cast<float*>(params.lse)[statistic[half]] = lse[half];
  }
  int mend[2] = {};
  if (__any_sync(0xffffffffu, !(reached[0] == 0.0f) || !(reached[1] == 0.0f))) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if constexpr (!InPlace) {
        reached[half] += shuffle_xor(reached[half], 1);
        reached[half] += shuffle_xor(reached[half], 2);
      }
      if (keys[half] == 0.0f)  // what has no weight has no NaN
#pragma unroll
        for (int i = 0; i < DimV / 4; ++i) o[4 * (i / 2) + 2 * half + i % 2] = 0.0f;
      mend[half] = inside[half] && !(reached[half] == 0.0f) && std::isfinite(lse[half]) ? 1 : 0;
      if constexpr (InPlace)
        if (inside[half] && lane % 4 == 0 && !(reached[half] == 0.0f) && mend[half] == 0)
          static_cast<float*>(params.lse)[statistic[half]] = lse[half];
    }
  }
  if (seeded) {
    join_seed<DimV, 0>(params, item, row0, rows, keys, weight, o, spare);
    if constexpr (InPlace) __syncwarp();  // lanes of rows that do not exist read another's: not while it is written
    keys[0] = keys[1] = 1.0f;
  }
  const bool written[2] = {inside[0] && mend[0] == 0, inside[1] && mend[1] == 0};
  write_rows<Element, DimV, InPlace>(params, row0, item.head, written, keys, o);
  if (!__any_sync(0xffffffffu, mend[0] != 0 || mend[1] != 0)) return;
#pragma unroll 1
  for (int place = 0; place < 16; ++place) {
    const int from = place % 8 * 4;
    const int wanted = shuffle(place < 8 ? mend[0] : mend[1], from);
    const float known = shuffle(place < 8 ? lse[0] : lse[1], from);
    if constexpr (InPlace) {
      if (wanted == 0) continue;
      mend_row<Element, DimV>(link(), item, row0 + place, known);
      __syncwarp();  // all lanes have read the seed's
      if (lane == 0) static_cast<float*>(params.lse)[item.head * shape.total_q + row0 + place] = known;
    } else {
      if (wanted != 0) mend_row<Element, DimV>(params, item, row0 + place, known);
    }
  }
}

}  // namespace hetsp::attention::cuda::hopper
