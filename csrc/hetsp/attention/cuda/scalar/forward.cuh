// One block computes one tile of query rows of one head with the online softmax (Milakov and Gimelshein, arXiv 1805.02867;
// FlashAttention, arXiv 2205.14135). Per key tile, from the state (mu, l, O) = (-inf, 0, 0) or the seed (lse, 1, out):
//
//   mu' = max(mu, max_j s);  a = e^(mu - mu');  l = a l + sum_j e^(s - mu');  O = a O + e^(s - mu') V;  mu = mu'
//
// and at the end lse = mu + ln l, out = O / l. Before any finite score mu' is -inf; then 0 stands in for it in the
// exponents, never in the state. A visible NaN reaches l and O and comes out as NaN.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/segment_index.cuh"
#include "hetsp/attention/cuda/tile.cuh"

namespace hetsp::attention::cuda {

// Rows and keys of a tile; Dim is the bucket that holds both head dimensions. Chosen so that O fits the registers of a
// thread (R Dim / 8 numbers) and the tiles fit 99 KB, the least that a GPU from Ampere on offers a block. Unmeasured.
template <class Acc, int Dim>
struct ForwardTile {
  static constexpr bool wide = sizeof(Acc) == sizeof(double);
  static constexpr int rows = wide ? (Dim <= 128 ? 32 : 16) : (Dim <= 128 ? 64 : 32);
  static constexpr int keys = wide ? (Dim <= 128 ? 32 : 16) : (Dim <= 64 ? 64 : 32);
};

template <class Acc, int Dim>
struct ForwardShared {
  using Tile = ForwardTile<Acc, Dim>;
  Acc q[Tile::rows][Dim + 1];
  Acc kv[Tile::keys][Dim + 1];  // K for the scores, then V for the output
  Acc p[Tile::rows][Tile::keys + 1];
  Acc partial[Tile::rows][lanes];  // one number per row and lane: maxima, at the end sums
};

template <class Acc, int Dim>
struct ForwardBlock {
  using Tile = ForwardTile<Acc, Dim>;
  static constexpr int R = Tile::rows / groups, C = Tile::keys / lanes, W = Dim / lanes;

  const ForwardParams& params;
  ForwardShared<Acc, Dim>& shared;
  std::int64_t head, row0;
  int rows;  // of this tile, the last may be short
  Acc mu[R] = {}, l[R] = {}, o[R][W] = {};  // l holds the lane's own part of the sum

  __device__ std::int64_t row(int i) const { return row0 + group() * R + i; }
  __device__ bool inside(int i) const { return group() * R + i < rows; }
  __device__ std::int64_t statistic(int i) const { return head * params.shape.total_q + row(i); }

  __device__ void seed() {
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const bool seeded = params.seed_lse != nullptr && inside(i);
      mu[i] = seeded ? static_cast<const Acc*>(params.seed_lse)[statistic(i)] : -Acc(INFINITY);
      const bool filled = mu[i] != -Acc(INFINITY);
      l[i] = filled && lane() == 0 ? Acc(1) : Acc(0);
      const std::int64_t offset = row(i) * params.seed_out.token_stride + head * params.seed_out.head_stride;
#pragma unroll
      for (int w = 0; w < W; ++w) {
        const int column = lane() + lanes * w;
        o[i][w] = filled && column < params.shape.head_dim_v ? static_cast<const Acc*>(params.seed_out.data)[offset + column]
                                                             : Acc(0);
      }
    }
  }

  __device__ void attend(const Segment& segment) {
    const std::int64_t first = larger(row0, segment.q_begin), last = smaller(row0 + rows, segment.q_end) - 1;
    if (first > last) return;
    const RowRange keys{visible_keys(segment, first).begin, visible_keys(segment, last).end};
    // Key tiles are counted from the segment's first key: a row's sums are grouped alike whatever shares its tile.
    for (std::int64_t key = keys.begin - (keys.begin - segment.k_begin) % Tile::keys; key < keys.end; key += Tile::keys)
      step(segment, key, static_cast<int>(smaller<std::int64_t>(keys.end - key, Tile::keys)));
  }

  __device__ void step(const Segment& segment, std::int64_t key, int count) {
    const Shape& shape = params.shape;
    const std::int64_t head_kv = head / (shape.heads / shape.heads_kv);
    Run run[R];
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const bool member = inside(i) && segment.q_begin <= row(i) && row(i) < segment.q_end;
      run[i] = member ? run_in_tile(visible_keys(segment, row(i)), key, count) : Run{0, 0};
    }
    __syncthreads();  // the last step still reads V
    stage(shared.kv, params.k, shape.dtype, head_kv, key, count, shape.head_dim);
    __syncthreads();
    Acc s[R][C];
    if (!all_empty(run)) multiply(shared.q, shared.kv, shape.head_dim, s);
    scores(run, s);
    __syncthreads();  // maxima are complete, K is free
    stage(shared.kv, params.v, shape.dtype, head_kv, key, count, shape.head_dim_v);
    weights(run, s);
    __syncthreads();
    accumulate(shared.p, shared.kv, run, o);
  }

  // Scores in place, hidden ones -inf, and the lane's maximum of each row to shared memory.
  __device__ void scores(const Run (&run)[R], Acc (&s)[R][C]) {
    const auto scale = static_cast<Acc>(params.score.softmax_scale), softcap = static_cast<Acc>(params.score.softcap);
#pragma unroll
    for (int i = 0; i < R; ++i) {
      Acc maximum = -Acc(INFINITY);
#pragma unroll
      for (int j = 0; j < C; ++j) {
        s[i][j] = run[i].holds(lane() + lanes * j) ? score(s[i][j], scale, softcap) : -Acc(INFINITY);
        maximum = s[i][j] > maximum ? s[i][j] : maximum;
      }
      shared.partial[group() * R + i][lane()] = maximum;
    }
  }

  // The step of the recurrence above, with e^(s - mu') left in shared.p.
  __device__ void weights(const Run (&run)[R], const Acc (&s)[R][C]) {
#pragma unroll
    for (int i = 0; i < R; ++i) {
      Acc next = mu[i];
#pragma unroll
      for (int x = 0; x < lanes; ++x) {
        const Acc other = shared.partial[group() * R + i][x];
        next = other > next ? other : next;
      }
      const Acc base = next == -Acc(INFINITY) ? Acc(0) : next;
      const Acc shrink = std::exp(mu[i] - base);
      mu[i] = next;
      if (run[i].empty()) continue;  // shrink is 1 then; the test saves work, not accuracy
      l[i] *= shrink;
#pragma unroll
      for (int j = 0; j < C; ++j) {
        const bool visible = run[i].holds(lane() + lanes * j);
        const Acc p = visible ? std::exp(s[i][j] - base) : Acc(0);
        l[i] += p;
        shared.p[group() * R + i][lane() + lanes * j] = p;
      }
#pragma unroll
      for (int w = 0; w < W; ++w) o[i][w] *= shrink;
    }
  }

  // Joins (0, sink) and leaves the normalised tile in shared.q; writes lse where it is wanted.
  __device__ void normalise(bool with_lse) {
#pragma unroll
    for (int i = 0; i < R; ++i) shared.partial[group() * R + i][lane()] = l[i];
    __syncthreads();
    const Acc sink = params.sink != nullptr ? static_cast<const Acc*>(params.sink)[head] : -Acc(INFINITY);
    Acc factor[R];
#pragma unroll
    for (int i = 0; i < R; ++i) {
      Acc total = 0;
#pragma unroll
      for (int x = 0; x < lanes; ++x) total += shared.partial[group() * R + i][x];
      const Acc top = sink > mu[i] ? sink : mu[i], base = top == -Acc(INFINITY) ? Acc(0) : top;
      const Acc shrink = std::exp(mu[i] - base);
      total = total * shrink + std::exp(sink - base);
      const bool empty = total == 0;  // no key, no seed, no sink; then O is 0 too
      factor[i] = empty ? Acc(1) : shrink / total;
      if (with_lse && inside(i) && lane() == 0)
        static_cast<Acc*>(params.lse)[statistic(i)] = empty ? -Acc(INFINITY) : top + std::log(total);
    }
    spread(o, factor, shared.q);
    __syncthreads();
  }

  __device__ void finish() {
    normalise(true);
    unstage(shared.q, params.out, params.out_is_acc ? acc_dtype<Acc> : params.shape.dtype, head, row0, rows,
            params.shape.head_dim_v);
  }
};

// All tiles of all heads, from the last rows to the first: causal rows grow longer towards the end, and the long ones
// should start early. Heads that share keys are neighbours, for the L2 cache.
template <class Acc, int Dim>
__device__ void forward_tiles(const ForwardParams& params, SegmentIndex index, ForwardShared<Acc, Dim>& shared) {
  using Block = ForwardBlock<Acc, Dim>;
  const Shape& shape = params.shape;
  const std::int64_t tiles = (shape.total_q + Block::Tile::rows - 1) / Block::Tile::rows;
  for (std::int64_t item = blockIdx.x; item < tiles * shape.heads; item += gridDim.x) {
    const std::int64_t row0 = (tiles - 1 - item / shape.heads) * Block::Tile::rows;
    Block block{params, shared, item % shape.heads, row0,
                static_cast<int>(smaller<std::int64_t>(shape.total_q - row0, Block::Tile::rows))};
    __syncthreads();  // the last item still reads shared memory
    stage(shared.q, params.q, shape.dtype, block.head, row0, block.rows, shape.head_dim);
    block.seed();
    const SegmentRange range = index.queries[row0 / index_rows];
    for (std::int64_t i = range.first; i <= range.last; ++i) block.attend(clamped(params.segments[i], shape));
    block.finish();
  }
}

}  // namespace hetsp::attention::cuda
