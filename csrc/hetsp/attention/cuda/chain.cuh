// What the kernels of all families say to a chain (chain.h), and the two small kernels before and behind it.
//
// Items (link, tile, head) are handed out in rising order, links outermost. An item waits for its piece, which comes from
// outside, and for lower items. So the lowest that is not over waits for nobody in the launch, and blocks that are not on the
// device hold no item: no circle.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/arrival.cuh"
#include "hetsp/attention/cuda/chain.h"
#include "hetsp/attention/cuda/tile.cuh"

namespace hetsp::attention::cuda {

__device__ inline bool may_pass_over(const Chain& chain, int link) { return (chain.may_pass_over >> link & 1u) != 0; }

// By one thread, before a link reads its piece: until it is here, or somebody's patience is over. Then all goes on with
// whatever is there, and poison() sees to it that nobody takes the result for one.
__device__ inline void await_piece(const Chain& chain, int link) {
  const std::uint32_t* const flag = chain.ready[link];
  if (flag == nullptr || has_arrived(load_flag(flag), chain.epoch[link])) return;
  const std::uint64_t begin = nanoseconds();
  for (;;) {
    pause();
    if (has_arrived(load_flag(flag), chain.epoch[link]) || look_at(chain.late) != 0) return;
    if (nanoseconds() - begin > chain.patience_ns) {
      atomicMax(chain.late, link + 1);
      return;
    }
  }
}

// A word of a tile and head has four bits for each link: how many of the `parts` that write its rows are through with it. One
// count of all would not do: a link that is passed over is over before those ahead of it.
//
// Whether the thread may read what the links before have left.
__device__ inline bool is_turn(const Chain& chain, std::int32_t item, int link, std::uint64_t parts) {
  const std::uint64_t before = (std::uint64_t{1} << 4 * link) - 1;
  return (load_word(chain.done + item) & before) == (parts * 0x1111111111111111u & before);
}
__device__ inline void await_turn(const Chain& chain, std::int32_t item, int link, std::uint64_t parts) {
  while (!is_turn(chain, item, link, parts)) pause();
}
// By all lanes of a warp. Where one alone waits for its warp, ptxas takes all code that may run behind the wait for a warp that
// has parted, and has no uniform registers there: Hopper's loops took 8 to 27 % more instructions, and too many registers.
__device__ inline void await_turn_together(const Chain& chain, std::int32_t item, int link, std::uint64_t parts) {
  while (__any_sync(0xffffffffu, !is_turn(chain, item, link, parts)) != 0) pause();
}
// By one thread, when all that `parts` of them write is written: a barrier or a converged warp is between.
__device__ inline void end_turn(const Chain& chain, std::int32_t item, int link, std::uint64_t parts) {
  add_to_word(chain.done + item, parts << 4 * link);
}

// Grid-stride: the segments, cut to each piece.
__device__ inline void cut_segments(const Segment* segments, std::int64_t count, const PieceRows& pieces, Segment* cut) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * block_threads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x; i < count * pieces.count;
       i += stride) {
    const auto piece = static_cast<int>(i / count);
    cut[i] = cut_to_piece(segments[i - piece * count], pieces.begin[piece], pieces.rows[piece]);
  }
}

// Grid-stride, behind the chain: if a piece was late, all results are NaN. A block writes a row and head at a time.
template <class Acc>
__device__ void poison(const ForwardParams& params, const std::int32_t* late) {
  if (*late == 0) return;
  const Shape& shape = params.shape;
  const DType dtype = params.out_is_acc ? acc_dtype<Acc> : shape.dtype;
  for (std::int64_t i = blockIdx.x; i < shape.total_q * shape.heads; i += gridDim.x) {
    const std::int64_t token = i / shape.heads, head = i % shape.heads;
    const std::int64_t offset = token * params.out.token_stride + head * params.out.head_stride;
    for (std::int64_t x = threadIdx.x; x < shape.head_dim_v; x += block_threads)
      store(params.out.data, dtype, offset + x, Acc(NAN));
    if (threadIdx.x == 0) static_cast<Acc*>(params.lse)[head * shape.total_q + token] = Acc(NAN);
  }
}

// An even chain's begin, grid-stride: `kept` and lse are the seed, or nothing seen. Where that is so `kept` is not looked at.
// Sums are float here: kernels of even chains have no other.
__device__ inline void begin_even_chain(const ForwardParams& call, const View& kept) {
  const Shape& shape = call.shape;
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * block_threads;
  const auto* seed = static_cast<const float*>(call.seed_lse);
  for (std::int64_t i = thread; i < shape.total_q * shape.heads; i += stride)
    static_cast<float*>(call.lse)[i] = seed == nullptr ? -INFINITY : seed[i];
  if (seed == nullptr) return;
  for (std::int64_t i = thread; i < shape.total_q * shape.heads * shape.head_dim_v; i += stride) {
    const std::int64_t row = i / shape.head_dim_v, x = i % shape.head_dim_v;
    const std::int64_t token = row / shape.heads, head = row % shape.heads;
    static_cast<float*>(kept.data)[token * kept.token_stride + head * kept.head_stride + x] = static_cast<const float*>(
        call.seed_out.data)[token * call.seed_out.token_stride + head * call.seed_out.head_stride + x];
  }
}

// Its end, grid-stride, a warp a row and head: joins (0, sink) and rounds; NaN if a piece was late.
__device__ inline void end_even_chain(const ForwardParams& call, const View& kept, const std::int32_t* late) {
  const Shape& shape = call.shape;
  const DType dtype = call.out_is_acc ? DType::float32 : shape.dtype;
  const int lane = static_cast<int>(threadIdx.x) % warp_threads;
  constexpr int warps = block_threads / warp_threads;
  const bool is_late = *late != 0;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * warps + threadIdx.x / warp_threads;
       i < shape.total_q * shape.heads; i += static_cast<std::int64_t>(gridDim.x) * warps) {
    const std::int64_t token = i / shape.heads, head = i % shape.heads;
    float* const lse = static_cast<float*>(call.lse) + head * shape.total_q + token;
    const float keys = *lse, sink = call.sink == nullptr ? -INFINITY : static_cast<const float*>(call.sink)[head];
    if (call.out_is_acc && keys != -INFINITY && sink == -INFINITY && !is_late) continue;  // it is what it lies as
    const float top = sink > keys ? sink : keys, origin = top == -INFINITY ? 0.0f : top;
    const float total = std::exp(keys - origin) + std::exp(sink - origin);
    const float weight = keys == -INFINITY ? 0.0f : sink == -INFINITY ? 1.0f : std::exp(keys - origin) / total;
    for (std::int64_t x = lane; x < shape.head_dim_v; x += warp_threads) {
      const float value = static_cast<const float*>(kept.data)[token * kept.token_stride + head * kept.head_stride + x];
      store(call.out.data, dtype, token * call.out.token_stride + head * call.out.head_stride + x,
            is_late          ? NAN
            : weight == 0.0f ? 0.0f
                             : weight * value);
    }
    __syncwarp();  // all lanes have read lse
    if (lane != 0) continue;
    if (is_late) {
      *lse = NAN;
    } else if (sink != -INFINITY) {
      *lse = top + std::log(total);
    }
  }
}

}  // namespace hetsp::attention::cuda
