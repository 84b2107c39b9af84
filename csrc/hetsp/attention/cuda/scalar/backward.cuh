// Gradients by recomputation (FlashAttention-2, arXiv 2307.08691), formulas in params.h, in four kernels one after another:
//
//   delta   D_i of every row and head
//   dsink   one block per head
//   dq      one block per tile of query rows and query head; walks the keys
//   dkdv    one block per tile of key rows and key head; walks the query rows of all heads that share it
//
// Every sum belongs to one thread and runs in one order: segments as listed, then heads, then rows. No atomics, so results
// are bitwise repeatable; the price is that the scores are computed twice.
//
// A row without keys has lse = -inf: its p and ds are set to 0, never multiplied by it.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/segment_index.cuh"
#include "hetsp/attention/cuda/tile.cuh"

namespace hetsp::attention::cuda {

// Side of the square tiles: four of them, Dim wide, and two of scores fit 99 KB, except for float64 beyond 128 elements
// (136 KB: the data-centre GPUs only). Unmeasured.
template <class Acc, int Dim>
constexpr int backward_side = (sizeof(Acc) == sizeof(double) ? Dim <= 64 : Dim <= 128) ? 32 : 16;

// "Own" rows stay for the whole block, "other" rows stream by.
template <class Acc, int Dim>
struct BackwardShared {
  static constexpr int side = backward_side<Acc, Dim>;
  Acc own_qk[side][Dim + 1], own_vo[side][Dim + 1];      // dq: Q, dO     dkdv: K, V
  Acc other_qk[side][Dim + 1], other_vo[side][Dim + 1];  // dq: K, V      dkdv: Q, dO
  Acc p[side][side + 1], ds[side][side + 1];             // [own][other]; dq leaves p unused
  Acc lse[side], delta[side];                            // of the other rows; dkdv only
};

// p and ds of one visible pair. `product` is q . k, `dp` is dout . v.
template <class Acc>
__device__ inline void gradient(const Score& parameters, Acc product, Acc dp, Acc lse, Acc delta, Acc& p, Acc& ds) {
  const auto scale = static_cast<Acc>(parameters.softmax_scale), softcap = static_cast<Acc>(parameters.softcap);
  const Acc s = score(product, scale, softcap);
  const bool seen = lse != -Acc(INFINITY);
  const Acc ratio = softcap > 0 ? s / softcap : Acc(0);
  p = seen ? std::exp(s - lse) : Acc(0);
  ds = seen ? p * (dp - delta) * (1 - ratio * ratio) : Acc(0);
}

// In rows that see so few keys dout . v - D cancels, and the rounding of the two sums would be all that is left; with one key
// the difference is exactly -dlse. So there dout . v is summed in float64 and rounded once, as D is.
constexpr std::int64_t few_keys = 8;

__device__ inline bool sees_few(const Segment& segment, std::int64_t row) {
  const RowRange keys = visible_keys(segment, row);
  return keys.end - keys.begin <= few_keys;
}

template <class Acc, int Pitch>
__device__ inline Acc exact_dot(const Acc (&a)[Pitch], const Acc (&b)[Pitch], std::int64_t dim) {
  double sum = 0;
#pragma unroll 1
  for (int i = 0; i < static_cast<int>(dim); ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return static_cast<Acc>(sum);
}

// Writes a tile of gradients, times `factor`, by way of `tile`, which nobody needs any more.
template <class Acc, int R, int W, int Rows, int Pitch>
__device__ void write(const Acc (&sum)[R][W], Acc factor, Acc (&tile)[Rows][Pitch], const View& view, DType dtype,
                      std::int64_t head, std::int64_t first, int count, std::int64_t dim) {
  Acc factors[R];
#pragma unroll
  for (int i = 0; i < R; ++i) factors[i] = factor;
  __syncthreads();
  spread(sum, factors, tile);
  __syncthreads();
  unstage(tile, view, dtype, head, first, count, dim);
}

// Eight numbers of a 16-bit type, read as one.
template <class Element>
struct alignas(16) Eight {
  Element at[8];
};

// Whether rows of 16-bit numbers can be read eight at a time.
__device__ inline bool in_eights(const ConstView& view, std::int64_t dim) {
  return dim % 8 == 0 && view.token_stride % 8 == 0 && view.head_stride % 8 == 0 &&
         reinterpret_cast<std::uintptr_t>(view.data) % 16 == 0;
}

// The lane's part of the dot product of two rows of `dim` numbers.
template <class Element>
__device__ inline float dot_in_eights(const void* a, std::int64_t offset_a, const void* b, std::int64_t offset_b, int dim) {
  const auto* left = reinterpret_cast<const Eight<Element>*>(static_cast<const Element*>(a) + offset_a);
  const auto* right = reinterpret_cast<const Eight<Element>*>(static_cast<const Element*>(b) + offset_b);
  float sum = 0;
#pragma unroll 2
  for (int i = lane(); i < dim / 8; i += lanes) {
    const Eight<Element> x = left[i], y = right[i];
#pragma unroll
    for (int j = 0; j < 8; ++j) sum += widen(x.at[j]) * widen(y.at[j]);
  }
  return sum;
}

// Summed in float64, so that D is rounded once: see few_keys.
template <class Acc>
__device__ double dot_of_rows(const DeltaParams& params, std::int64_t row, std::int64_t head) {
  const std::int64_t at = row * params.dout.token_stride + head * params.dout.head_stride;
  const std::int64_t out_at = row * params.out.token_stride + head * params.out.head_stride;
  const bool is_bfloat16 = params.dtype == DType::bfloat16, is_16_bit = is_bfloat16 || params.dtype == DType::float16;
  if (is_16_bit && in_eights(params.dout, params.head_dim_v) && in_eights(params.out, params.head_dim_v)) {
    const int dim = static_cast<int>(params.head_dim_v);
    return is_bfloat16 ? dot_in_eights<BFloat16>(params.dout.data, at, params.out.data, out_at, dim)
                       : dot_in_eights<Float16>(params.dout.data, at, params.out.data, out_at, dim);
  }
  double sum = 0;
  for (std::int64_t column = lane(); column < params.head_dim_v; column += lanes)
    sum += static_cast<double>(load<Acc>(params.dout.data, params.dtype, at + column)) *
           static_cast<double>(load<Acc>(params.out.data, params.dtype, out_at + column));
  return sum;
}

// D of 16 pairs (row, head) a turn, 8 threads each.
template <class Acc>
__device__ void backward_delta(const DeltaParams& params, double (&partial)[groups][lanes]) {
  const std::int64_t pairs = params.total_q * params.heads;
  for (std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * groups; first < pairs;
       first += static_cast<std::int64_t>(gridDim.x) * groups) {
    const std::int64_t pair = first + group(), row = pair / params.heads, head = pair % params.heads;
    const std::int64_t statistic = head * params.total_q + row;
    const double sum = pair < pairs ? dot_of_rows<Acc>(params, row, head) : 0.0;
    __syncthreads();
    partial[group()][lane()] = sum;
    __syncthreads();
    if (lane() != 0 || pair >= pairs) continue;
    double total = params.dlse != nullptr ? -static_cast<double>(static_cast<const Acc*>(params.dlse)[statistic]) : 0.0;
    for (int x = 0; x < lanes; ++x) total += partial[group()][x];
    const bool seen = static_cast<const Acc*>(params.lse)[statistic] != -Acc(INFINITY);
    static_cast<Acc*>(params.delta)[statistic] = seen ? static_cast<Acc>(total) : Acc(0);
  }
}

// Summed in float64: a head may have millions of rows, and there is one number per head.
template <class Acc>
__device__ void backward_dsink(const BackwardParams& params, double (&partial)[block_threads]) {
  const Shape& shape = params.shape;
  for (std::int64_t head = blockIdx.x; head < shape.heads; head += gridDim.x) {
    const auto* lse = static_cast<const Acc*>(params.lse) + head * shape.total_q;
    const auto* delta = static_cast<const Acc*>(params.delta) + head * shape.total_q;
    const Acc sink = static_cast<const Acc*>(params.sink)[head];
    double sum = 0;
    for (std::int64_t row = threadIdx.x; row < shape.total_q; row += block_threads)
      if (lse[row] != -Acc(INFINITY)) sum -= static_cast<double>(std::exp(sink - lse[row])) * static_cast<double>(delta[row]);
    __syncthreads();
    partial[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x != 0) continue;
    double total = 0;
    for (int thread = 0; thread < block_threads; ++thread) total += partial[thread];
    static_cast<Acc*>(params.dsink)[head] = static_cast<Acc>(total);
  }
}

template <class Acc, int Dim>
struct DqBlock {
  static constexpr int side = backward_side<Acc, Dim>, R = side / groups, C = side / lanes, W = Dim / lanes;

  const BackwardParams& params;
  BackwardShared<Acc, Dim>& shared;
  std::int64_t head, row0;
  int rows;
  Acc lse[R] = {}, delta[R] = {}, dq[R][W] = {};

  __device__ std::int64_t row(int i) const { return row0 + group() * R + i; }
  __device__ bool inside(int i) const { return group() * R + i < rows; }

  __device__ void begin() {
    const Shape& shape = params.shape;
    stage(shared.own_qk, params.q, shape.dtype, head, row0, rows, shape.head_dim);
    stage(shared.own_vo, params.dout, params.out_is_acc ? acc_dtype<Acc> : shape.dtype, head, row0, rows, shape.head_dim_v);
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const std::int64_t statistic = head * shape.total_q + row(i);
      lse[i] = inside(i) ? static_cast<const Acc*>(params.lse)[statistic] : -Acc(INFINITY);
      delta[i] = inside(i) ? static_cast<const Acc*>(params.delta)[statistic] : Acc(0);
    }
  }

  __device__ void attend(const Segment& segment) {
    const std::int64_t first = larger(row0, segment.q_begin), last = smaller(row0 + rows, segment.q_end) - 1;
    if (first > last) return;
    const RowRange keys{visible_keys(segment, first).begin, visible_keys(segment, last).end};
    for (std::int64_t key = keys.begin; key < keys.end; key += side)
      step(segment, key, static_cast<int>(smaller<std::int64_t>(keys.end - key, side)));
  }

  __device__ void step(const Segment& segment, std::int64_t key, int count) {
    const Shape& shape = params.shape;
    const std::int64_t head_kv = head / (shape.heads / shape.heads_kv);
    Run run[R];
    bool few[R];
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const bool member = inside(i) && segment.q_begin <= row(i) && row(i) < segment.q_end;
      run[i] = member ? run_in_tile(visible_keys(segment, row(i)), key, count) : Run{0, 0};
      few[i] = member && sees_few(segment, row(i));
    }
    __syncthreads();  // the last step still reads K
    stage(shared.other_qk, params.k, shape.dtype, head_kv, key, count, shape.head_dim);
    stage(shared.other_vo, params.v, shape.dtype, head_kv, key, count, shape.head_dim_v);
    __syncthreads();
    if (!all_empty(run)) {
      Acc product[R][C], dp[R][C];
      multiply(shared.own_qk, shared.other_qk, shape.head_dim, product);
      multiply(shared.own_vo, shared.other_vo, shape.head_dim_v, dp);
#pragma unroll
      for (int i = 0; i < R; ++i)
#pragma unroll
        for (int j = 0; j < C; ++j) {
          const int own = group() * R + i, column = lane() + lanes * j;
          if (few[i] && run[i].holds(column))
            dp[i][j] = exact_dot(shared.own_vo[own], shared.other_vo[column], shape.head_dim_v);
          Acc p, ds;
          gradient(params.score, product[i][j], dp[i][j], lse[i], delta[i], p, ds);
          shared.ds[own][column] = ds;  // hidden ones are written too, and never read
        }
    }
    __syncthreads();
    accumulate(shared.ds, shared.other_qk, run, dq);
  }
};

template <class Acc, int Dim>
__device__ void backward_dq(const BackwardParams& params, SegmentIndex index, BackwardShared<Acc, Dim>& shared) {
  using Block = DqBlock<Acc, Dim>;
  const Shape& shape = params.shape;
  const std::int64_t tiles = (shape.total_q + Block::side - 1) / Block::side;
  const DType dtype = params.grads_are_acc ? acc_dtype<Acc> : shape.dtype;
  for (std::int64_t item = blockIdx.x; item < tiles * shape.heads; item += gridDim.x) {
    const std::int64_t row0 = (tiles - 1 - item / shape.heads) * Block::side;
    Block block{params, shared, item % shape.heads, row0,
                static_cast<int>(smaller<std::int64_t>(shape.total_q - row0, Block::side))};
    __syncthreads();  // the last item still reads shared memory
    block.begin();
    const SegmentRange range = index.queries[row0 / index_rows];
    for (std::int64_t i = range.first; i <= range.last; ++i) block.attend(clamped(params.segments[i], shape));
    write(block.dq, static_cast<Acc>(params.score.softmax_scale), shared.own_qk, params.dq, dtype, block.head, row0, block.rows,
          shape.head_dim);
  }
}

template <class Acc, int Dim>
struct DkdvBlock {
  static constexpr int side = backward_side<Acc, Dim>, R = side / groups, C = side / lanes, W = Dim / lanes;

  const BackwardParams& params;
  BackwardShared<Acc, Dim>& shared;
  std::int64_t head_kv, key0;
  int keys;
  Acc dk[R][W] = {}, dv[R][W] = {};

  __device__ std::int64_t key(int i) const { return key0 + group() * R + i; }

  __device__ void begin() {
    const Shape& shape = params.shape;
    stage(shared.own_qk, params.k, shape.dtype, head_kv, key0, keys, shape.head_dim);
    stage(shared.own_vo, params.v, shape.dtype, head_kv, key0, keys, shape.head_dim_v);
  }

  __device__ void attend(const Segment& segment) {
    const std::int64_t first = larger(key0, segment.k_begin), last = smaller(key0 + keys, segment.k_end) - 1;
    if (first > last) return;
    const RowRange rows{visible_queries(segment, first).begin, visible_queries(segment, last).end};
    const std::int64_t share = params.shape.heads / params.shape.heads_kv;
    for (std::int64_t head = head_kv * share; head < (head_kv + 1) * share; ++head)
      for (std::int64_t row = rows.begin; row < rows.end; row += side)
        step(segment, head, row, static_cast<int>(smaller<std::int64_t>(rows.end - row, side)));
  }

  __device__ void step(const Segment& segment, std::int64_t head, std::int64_t row, int count) {
    const Shape& shape = params.shape;
    Run run[R];
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const bool member = segment.k_begin <= key(i) && key(i) < smaller(key0 + keys, segment.k_end);
      run[i] = member ? run_in_tile(visible_queries(segment, key(i)), row, count) : Run{0, 0};
    }
    __syncthreads();  // the last step still reads Q and dO
    stage(shared.other_qk, params.q, shape.dtype, head, row, count, shape.head_dim);
    stage(shared.other_vo, params.dout, params.out_is_acc ? acc_dtype<Acc> : shape.dtype, head, row, count, shape.head_dim_v);
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < count) {
      shared.lse[thread] = static_cast<const Acc*>(params.lse)[head * shape.total_q + row + thread];
      shared.delta[thread] = static_cast<const Acc*>(params.delta)[head * shape.total_q + row + thread];
    }
    __syncthreads();
    if (!all_empty(run)) {
      Acc product[R][C], dp[R][C];
      multiply(shared.own_qk, shared.other_qk, shape.head_dim, product);
      multiply(shared.own_vo, shared.other_vo, shape.head_dim_v, dp);
#pragma unroll
      for (int i = 0; i < R; ++i)
#pragma unroll
        for (int j = 0; j < C; ++j) {
          const int own = group() * R + i, column = lane() + lanes * j;
          if (run[i].holds(column) && sees_few(segment, row + column))
            dp[i][j] = exact_dot(shared.own_vo[own], shared.other_vo[column], shape.head_dim_v);
          Acc p, ds;
          gradient(params.score, product[i][j], dp[i][j], shared.lse[column], shared.delta[column], p, ds);
          shared.p[own][column] = p;  // hidden ones are written too, and never read
          shared.ds[own][column] = ds;
        }
    }
    __syncthreads();
    accumulate(shared.p, shared.other_vo, run, dv);
    accumulate(shared.ds, shared.other_qk, run, dk);
  }
};

template <class Acc, int Dim>
__device__ void backward_dkdv(const BackwardParams& params, SegmentIndex index, BackwardShared<Acc, Dim>& shared) {
  using Block = DkdvBlock<Acc, Dim>;
  const Shape& shape = params.shape;
  const std::int64_t tiles = (shape.total_k + Block::side - 1) / Block::side;
  const DType dtype = params.grads_are_acc ? acc_dtype<Acc> : shape.dtype;
  for (std::int64_t item = blockIdx.x; item < tiles * shape.heads_kv; item += gridDim.x) {
    const std::int64_t key0 = item / shape.heads_kv * Block::side;  // causal keys at the front have the most rows
    Block block{params, shared, item % shape.heads_kv, key0,
                static_cast<int>(smaller<std::int64_t>(shape.total_k - key0, Block::side))};
    __syncthreads();  // the last item still reads shared memory
    block.begin();
    const SegmentRange range = index.keys[key0 / index_rows];
    for (std::int64_t i = range.first; i <= range.last; ++i) block.attend(clamped(params.segments[i], shape));
    write(block.dk, static_cast<Acc>(params.score.softmax_scale), shared.own_qk, params.dk, dtype, block.head_kv, key0,
          block.keys, shape.head_dim);
    write(block.dv, Acc(1), shared.own_vo, params.dv, dtype, block.head_kv, key0, block.keys, shape.head_dim_v);
  }
}

}  // namespace hetsp::attention::cuda
