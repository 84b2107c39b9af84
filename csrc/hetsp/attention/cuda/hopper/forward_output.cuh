// The end of a query tile's forward: from the softmax state (top, sum, O) of the keys to out and lse, joined with the seed
// and the sink, and the rows that a hidden NaN has reached.
#pragma once

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

// Writes columns of one row: `o` holds pairs of columns 8 j + 2 (lane mod 4), at o[4 j + 2 half], times `factor`. All lanes
// call.
template <class Element, int DimV>
HETSP_INLINE void write_row(const ForwardParams& params, std::int64_t row, int head, bool inside, const float (&o)[DimV / 2],
                            int half, float factor) {
  const View& out = params.out;
  const int lane = lane_index() % 4, blocks = static_cast<int>(params.shape.head_dim_v) / 8;
  const std::int64_t offset = row * out.token_stride + head * out.head_stride;
  const int bytes = params.out_is_acc ? 4 : 2;
  const auto aligned = [&](int to) {
    return ((reinterpret_cast<std::uint64_t>(out.data) |
             static_cast<std::uint64_t>((out.token_stride | out.head_stride) * bytes)) &
            static_cast<std::uint64_t>(to - 1)) == 0;
  };
  if (params.out_is_acc) {
    float* const to = static_cast<float*>(out.data) + offset + 2 * lane;
    const bool pairs = aligned(8);
#pragma unroll
    for (int j = 0; j < DimV / 8; ++j) {
      const float low = o[4 * j + 2 * half] * factor, high = o[4 * j + 2 * half + 1] * factor;
      if (!inside || j >= blocks) continue;
      if (pairs) {
        *reinterpret_cast<Floats2*>(to + 8 * j) = {{low, high}};
      } else {
        to[8 * j] = low, to[8 * j + 1] = high;
      }
    }
    return;
  }
  Element* const to = static_cast<Element*>(out.data) + offset;
  const bool wide = aligned(16);
#pragma unroll
  for (int j = 0; j < DimV / 8; j += 4) {
    std::uint32_t word[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      word[i] = pack<Element>(o[4 * (j + i) + 2 * half] * factor, o[4 * (j + i) + 2 * half + 1] * factor);
    if (wide) {
      transpose_quad(word);
      if (inside && j + lane < blocks) *reinterpret_cast<Words4*>(to + 8 * (j + lane)) = {{word[0], word[1], word[2], word[3]}};
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (inside && j + i < blocks) {
          to[8 * (j + i) + 2 * lane] = {static_cast<std::uint16_t>(word[i])};
          to[8 * (j + i) + 2 * lane + 1] = {static_cast<std::uint16_t>(word[i] >> 16)};
        }
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

// Ends the 16 rows of a warp: row l / 4 + 8 half of lane l, `row0` + it in the tensor, `rows` of them exist.
template <class Element, int DimV>
HETSP_INLINE void finish_rows(const ForwardParams& params, const QueryItem& item, std::int64_t row0, int rows,
                              const float (&top)[2], const float (&sum)[2], float (&o)[DimV / 2]) {
  const Shape& shape = params.shape;
  const int lane = lane_index();
  const float sink = params.sink == nullptr ? -INFINITY : static_cast<const float*>(params.sink)[item.head];
  float lse[2];
  int mend[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int place = lane / 4 + 8 * half;
    const bool inside = place < rows;
    const std::int64_t row = row0 + place, statistic = item.head * shape.total_q + row;
    float total = sum[half];
    total += shuffle_xor(total, 1);
    total += shuffle_xor(total, 2);
    const float seed = inside && params.seed_lse != nullptr ? static_cast<const float*>(params.seed_lse)[statistic] : -INFINITY;
    RowFinish finish = finish_row(top[half], total, seed, sink);
    lse[half] = finish.lse;
    if (inside && lane % 4 == 0) static_cast<float*>(params.lse)[statistic] = finish.lse;
    float reached = 0.0f;  // 0 unless some element is a NaN or an infinity
#pragma unroll
    for (int j = 0; j < DimV / 8; ++j) reached += 0.0f * o[4 * j + 2 * half] + 0.0f * o[4 * j + 2 * half + 1];
    if (__any_sync(0xffffffffu, !(reached == 0.0f))) {
      reached += shuffle_xor(reached, 1);
      reached += shuffle_xor(reached, 2);
      if (finish.keys == 0.0f)  // what has no weight has no NaN
#pragma unroll
        for (int j = 0; j < DimV / 8; ++j) o[4 * j + 2 * half] = o[4 * j + 2 * half + 1] = 0.0f;
    }
    mend[half] = inside && !(reached == 0.0f) && std::isfinite(finish.lse) ? 1 : 0;
    if (params.seed_lse != nullptr) {
      const bool read = inside && seed != -INFINITY;
      const float* const from = static_cast<const float*>(params.seed_out.data) + row * params.seed_out.token_stride +
                                item.head * params.seed_out.head_stride + 2 * (lane % 4);
#pragma unroll
      for (int j = 0; j < DimV / 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& value = o[4 * j + 2 * half + e];
          value *= finish.keys;
          if (read && 8 * j < shape.head_dim_v) value += finish.seed * from[8 * j + e];
        }
      finish.keys = 1.0f;
    }
    write_row<Element, DimV>(params, row, item.head, inside && mend[half] == 0, o, half, finish.keys);
  }
  if (!__any_sync(0xffffffffu, mend[0] != 0 || mend[1] != 0)) return;
#pragma unroll 1
  for (int place = 0; place < 16; ++place) {
    const int from = place % 8 * 4;
    const int wanted = shuffle(place < 8 ? mend[0] : mend[1], from);
    const float known = shuffle(place < 8 ? lse[0] : lse[1], from);
    if (wanted != 0) mend_row<Element, DimV>(params, item, row0 + place, known);
  }
}

}  // namespace hetsp::attention::cuda::hopper
