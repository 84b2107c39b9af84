// Random attention problems, biased to corners, and their solution by the definition in float64: what every device's
// kernels are compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "hetsp/attention/number.h"
#include "hetsp/attention/params.h"

namespace attention_test {

using namespace hetsp::attention;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

inline std::size_t bytes_of(DType type) { return type == DType::float64 ? 8 : type == DType::float32 ? 4 : 2; }
inline DType acc_of(DType type) { return type == DType::float64 ? DType::float64 : DType::float32; }

// Numbers of any dtype in a heap block of exactly their size, so that AddressSanitizer sees the first byte beyond.
class Buffer {
 public:
  Buffer(DType type, std::size_t count)
      : type_(type), count_(count), data_(static_cast<char*>(std::malloc(count * bytes_of(type)))) {}
  [[nodiscard]] void* data() const { return data_.get(); }
  [[nodiscard]] std::size_t count() const { return count_; }
  [[nodiscard]] bool same_bits(const Buffer& other) const {
    return count_ == other.count_ && (count_ == 0 || std::memcmp(data(), other.data(), count_ * bytes_of(type_)) == 0);
  }
  [[nodiscard]] double get(std::size_t i) const {
    if (type_ == DType::float64) return static_cast<double*>(data())[i];
    if (type_ == DType::float32) return static_cast<float*>(data())[i];
    if (type_ == DType::bfloat16) return to_float(static_cast<BFloat16*>(data())[i]);
    return to_float(static_cast<Float16*>(data())[i]);
  }
  void set(std::size_t i, double x) {
    const auto f = static_cast<float>(x);
    if (type_ == DType::float64) static_cast<double*>(data())[i] = x;
    if (type_ == DType::float32) static_cast<float*>(data())[i] = f;
    if (type_ == DType::bfloat16) static_cast<BFloat16*>(data())[i] = to_bfloat16(f);
    if (type_ == DType::float16) static_cast<Float16*>(data())[i] = to_float16(f);
  }

 private:
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  DType type_;
  std::size_t count_;
  std::unique_ptr<char, Free> data_;
};

// [tokens, heads, dim] in token-major or head-major order.
class Rows {
 public:
  Rows(DType type, std::int64_t tokens, std::int64_t heads, std::int64_t dim, bool head_major = false)
      : tokens_(tokens),
        heads_(heads),
        dim_(dim),
        token_stride_(head_major ? dim : heads * dim),
        head_stride_(head_major ? tokens * dim : dim),
        buffer_(type, static_cast<std::size_t>(tokens * heads * dim)) {}
  [[nodiscard]] std::int64_t tokens() const { return tokens_; }
  [[nodiscard]] std::int64_t heads() const { return heads_; }
  [[nodiscard]] std::int64_t dim() const { return dim_; }
  [[nodiscard]] double get(std::int64_t token, std::int64_t head, std::int64_t i) const {
    return buffer_.get(at(token, head, i));
  }
  void set(std::int64_t token, std::int64_t head, std::int64_t i, double x) { buffer_.set(at(token, head, i), x); }
  [[nodiscard]] View view() const { return {buffer_.data(), token_stride_, head_stride_}; }
  [[nodiscard]] ConstView const_view() const { return {buffer_.data(), token_stride_, head_stride_}; }
  [[nodiscard]] const Buffer& buffer() const { return buffer_; }
  template <class Next>
  void fill(const Next& next) {
    for (std::size_t i = 0; i < buffer_.count(); ++i) buffer_.set(i, next());
  }

 private:
  [[nodiscard]] std::size_t at(std::int64_t token, std::int64_t head, std::int64_t i) const {
    return static_cast<std::size_t>(token * token_stride_ + head * head_stride_ + i);
  }
  std::int64_t tokens_, heads_, dim_, token_stride_, head_stride_;
  Buffer buffer_;
};

// Everything that goes into a forward and a backward call.
struct Problem {
  Shape shape;
  Score score;
  std::vector<Segment> segments;
  bool head_major, with_sink, with_seed, with_dlse, partial;
  Rows q, k, v, dout, seed_out;
  Buffer sink, seed_lse, dlse;
};

// What comes out.
struct Result {
  Rows out;
  Buffer lse;
  Rows dq, dk, dv;
  Buffer dsink, delta;
};

inline Problem make_problem(const Shape& shape, const Score& score, std::vector<Segment> segments, std::mt19937& random) {
  const auto flip = [&] { return random() % 2 == 0; };
  const bool head_major = flip();
  const DType acc = acc_of(shape.dtype);
  const auto queries = static_cast<std::size_t>(shape.heads * shape.total_q);
  const bool partial = flip();
  Problem p{shape,
            score,
            std::move(segments),
            head_major,
            flip(),
            random() % 4 == 0,
            flip(),
            partial,
            Rows(shape.dtype, shape.total_q, shape.heads, shape.head_dim, head_major),
            Rows(shape.dtype, shape.total_k, shape.heads_kv, shape.head_dim, head_major),
            Rows(shape.dtype, shape.total_k, shape.heads_kv, shape.head_dim_v, head_major),
            Rows(partial ? acc : shape.dtype, shape.total_q, shape.heads, shape.head_dim_v, head_major),
            Rows(acc, shape.total_q, shape.heads, shape.head_dim_v, head_major),
            Buffer(acc, static_cast<std::size_t>(shape.heads)),
            Buffer(acc, queries),
            Buffer(acc, queries)};
  std::normal_distribution<double> normal;
  const auto next = [&] { return normal(random); };
  for (Rows* rows : {&p.q, &p.k, &p.v, &p.dout, &p.seed_out}) rows->fill(next);
  for (std::size_t i = 0; i < p.sink.count(); ++i) p.sink.set(i, next());
  for (std::size_t i = 0; i < queries; ++i) p.dlse.set(i, next()), p.seed_lse.set(i, random() % 3 ? next() : -kInf);
  return p;
}

// Lengths around the tile sizes, segments with gaps, shared queries, shared keys, windows and any alignment.
inline Problem random_problem(unsigned seed, DType dtype) {
  std::mt19937 random(seed);
  const auto pick = [&](const std::vector<std::int64_t>& from) { return from[random() % from.size()]; };
  const std::vector<std::int64_t> lengths{0, 1, 2, 3, 7, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 129, 150};
  Shape shape{};
  shape.dtype = dtype;
  shape.heads_kv = pick({1, 1, 2});
  shape.heads = shape.heads_kv * pick({1, 1, 3});
  shape.head_dim = pick({1, 5, 16, 17, 24, 40});
  shape.head_dim_v = pick({1, 8, 16, 24, 33});
  std::vector<Segment> segments;
  const std::int64_t sequences = pick({0, 1, 2, 4});
  for (std::int64_t i = 0; i < sequences; ++i) {
    const std::int64_t rows = pick(lengths), keys = pick(lengths);
    Segment s{shape.total_q, shape.total_q + rows, shape.total_k, shape.total_k + keys, keys - rows, 0, -1, -1};
    s.left = pick({-1, -1, 0, 1, 64}), s.right = pick({-1, 0, 0, 3});
    if (random() % 4 == 0) s.q_pos0 += pick({-200, -3, 5, 70});
    segments.push_back(s);
    shape.total_q += rows + (random() % 4 == 0), shape.total_k += keys + (random() % 4 == 0);  // gaps: rows in no segment
  }
  const std::size_t count = segments.size();
  for (std::size_t i = 0; i < count && random() % 2 == 0; ++i) {  // the queries of one, cut, against the keys of another
    Segment s = segments[random() % count];
    const Segment& other = segments[random() % count];
    s.k_begin = other.k_begin, s.k_end = other.k_end, s.k_pos0 = pick({0, 10});
    s.q_begin += (s.q_end - s.q_begin) / 3, s.left = -1;
    segments.push_back(s);
  }
  const Score score{pick({0, 1}) ? 0.3 : 1.0 / std::sqrt(static_cast<double>(shape.head_dim)), pick({0, 0, 1}) ? 2.5 : 0.0};
  return make_problem(shape, score, std::move(segments), random);
}

inline Result make_result(const Problem& p, DType out, DType grads, DType acc) {
  const Shape& s = p.shape;
  const auto queries = static_cast<std::size_t>(s.heads * s.total_q);
  return {Rows(out, s.total_q, s.heads, s.head_dim_v, p.head_major),
          Buffer(acc, queries),
          Rows(grads, s.total_q, s.heads, s.head_dim, p.head_major),
          Rows(grads, s.total_k, s.heads_kv, s.head_dim, p.head_major),
          Rows(grads, s.total_k, s.heads_kv, s.head_dim_v, p.head_major),
          Buffer(acc, p.with_sink ? static_cast<std::size_t>(s.heads) : 0),
          Buffer(acc, queries)};
}

inline ForwardParams forward_params(const Problem& p, const Result& r) {
  return {p.shape,
          p.score,
          p.segments.data(),
          static_cast<std::int64_t>(p.segments.size()),
          p.q.const_view(),
          p.k.const_view(),
          p.v.const_view(),
          p.with_sink ? p.sink.data() : nullptr,
          p.with_seed ? p.seed_out.const_view() : ConstView{nullptr, 0, 0},
          p.with_seed ? p.seed_lse.data() : nullptr,
          r.out.view(),
          p.partial,
          r.lse.data()};
}

// `r` holds out and lse of the forward.
inline BackwardParams backward_params(const Problem& p, const Result& r) {
  return {p.shape,
          p.score,
          p.segments.data(),
          static_cast<std::int64_t>(p.segments.size()),
          p.q.const_view(),
          p.k.const_view(),
          p.v.const_view(),
          r.out.const_view(),
          p.dout.const_view(),
          p.partial,
          r.lse.data(),
          p.with_dlse ? p.dlse.data() : nullptr,
          p.with_sink ? p.sink.data() : nullptr,
          r.delta.data(),
          r.delta.data(),
          r.dq.view(),
          r.dk.view(),
          r.dv.view(),
          p.partial,
          p.with_sink ? r.dsink.data() : nullptr};
}

}  // namespace attention_test
