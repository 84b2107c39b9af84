// Random attention problems biased to corners. What no kernel may read (rows that nobody sees, gaps between strided rows,
// scratch) is NaN; buffers end with their last element.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "hetsp/attention/number.h"
#include "hetsp/attention/params.h"

namespace attention_case {

using namespace hetsp::attention;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

inline std::int64_t bytes(DType dtype) { return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2; }
inline DType acc_of(DType dtype) { return dtype == DType::float64 ? DType::float64 : DType::float32; }
inline const char* name(DType dtype) {
  return dtype == DType::float64    ? "float64"
         : dtype == DType::float32  ? "float32"
         : dtype == DType::bfloat16 ? "bfloat16"
                                    : "float16";
}

inline double read(const void* data, DType dtype, std::int64_t i) {
  switch (dtype) {
    case DType::float64:
      return static_cast<const double*>(data)[i];
    case DType::float32:
      return static_cast<double>(static_cast<const float*>(data)[i]);
    case DType::bfloat16:
      return static_cast<double>(to_float(static_cast<const BFloat16*>(data)[i]));
    case DType::float16:
      return static_cast<double>(to_float(static_cast<const Float16*>(data)[i]));
  }
  return kNaN;
}
inline void write(void* data, DType dtype, std::int64_t i, double value) {
  switch (dtype) {
    case DType::float64:
      static_cast<double*>(data)[i] = value;
      break;
    case DType::float32:
      static_cast<float*>(data)[i] = static_cast<float>(value);
      break;
    case DType::bfloat16:
      static_cast<BFloat16*>(data)[i] = to_bfloat16(static_cast<float>(value));
      break;
    case DType::float16:
      static_cast<Float16*>(data)[i] = to_float16(static_cast<float>(value));
      break;
  }
}

// [tokens, heads, dim] with strides, or a plain [count] array; exactly as many bytes as its last element needs.
class Array {
 public:
  Array() = default;
  Array(DType dtype, std::int64_t tokens, std::int64_t heads, std::int64_t dim, std::int64_t token_stride,
        std::int64_t head_stride)
      : dtype_(dtype), tokens_(tokens), heads_(heads), dim_(dim), token_stride_(token_stride), head_stride_(head_stride) {
    const bool empty = tokens == 0 || heads == 0 || dim == 0;
    const std::int64_t first =
        std::min<std::int64_t>(0, (tokens - 1) * token_stride) + std::min<std::int64_t>(0, (heads - 1) * head_stride);
    const std::int64_t last =
        std::max<std::int64_t>(0, (tokens - 1) * token_stride) + std::max<std::int64_t>(0, (heads - 1) * head_stride);
    origin_ = empty ? 0 : -first;
    count_ = empty ? 0 : last - first + dim;
    memory_.reset(new unsigned char[static_cast<std::size_t>(count_ * bytes(dtype))]);
    for (std::int64_t i = 0; i < count_; ++i) write(memory_.get(), dtype_, i, kNaN);
  }
  Array(DType dtype, std::int64_t count) : Array(dtype, 1, 1, count, 0, 0) {}

  [[nodiscard]] DType dtype() const { return dtype_; }
  [[nodiscard]] std::int64_t size() const { return tokens_ * heads_ * dim_; }
  [[nodiscard]] double at(std::int64_t token, std::int64_t head, std::int64_t i) const {
    return read(memory_.get(), dtype_, place(token, head, i));
  }
  void set(std::int64_t token, std::int64_t head, std::int64_t i, double value) {
    write(memory_.get(), dtype_, place(token, head, i), value);
  }
  [[nodiscard]] double at(std::int64_t i) const { return at(0, 0, i); }
  void set(std::int64_t i, double value) { set(0, 0, i, value); }

  [[nodiscard]] void* data() const { return memory_ ? memory_.get() + origin_ * bytes(dtype_) : nullptr; }
  [[nodiscard]] ConstView view() const { return {data(), token_stride_, head_stride_}; }
  [[nodiscard]] View mutable_view() { return {data(), token_stride_, head_stride_}; }
  // All of it, for a copy on a device: `memory` holds `size_bytes`, the first element lies origin_bytes behind its begin.
  [[nodiscard]] unsigned char* memory() const { return memory_.get(); }
  [[nodiscard]] std::int64_t size_bytes() const { return count_ * bytes(dtype_); }
  [[nodiscard]] std::int64_t origin_bytes() const { return origin_ * bytes(dtype_); }
  // Numbers between the rows that are no longer the NaN of the beginning: a kernel wrote where it must not.
  [[nodiscard]] std::int64_t strays() const {
    std::vector<bool> own(static_cast<std::size_t>(count_));
    for (std::int64_t t = 0; t < tokens_; ++t)
      for (std::int64_t h = 0; h < heads_; ++h)
        for (std::int64_t i = 0; i < dim_; ++i) own[static_cast<std::size_t>(place(t, h, i))] = true;
    std::int64_t found = 0;
    for (std::int64_t i = 0; i < count_; ++i)
      found += !own[static_cast<std::size_t>(i)] && !std::isnan(read(memory_.get(), dtype_, i));
    return found;
  }
  [[nodiscard]] std::vector<double> values() const {
    std::vector<double> all;
    for (std::int64_t t = 0; t < tokens_; ++t)
      for (std::int64_t h = 0; h < heads_; ++h)
        for (std::int64_t i = 0; i < dim_; ++i) all.push_back(at(t, h, i));
    return all;
  }

 private:
  [[nodiscard]] std::int64_t place(std::int64_t token, std::int64_t head, std::int64_t i) const {
    return origin_ + token * token_stride_ + head * head_stride_ + i;
  }
  DType dtype_ = DType::float32;
  std::int64_t tokens_ = 0, heads_ = 0, dim_ = 0, token_stride_ = 0, head_stride_ = 0, origin_ = 0, count_ = 0;
  std::unique_ptr<unsigned char[]> memory_;
};

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(engine_);
  }
  bool chance(int percent) { return between(0, 99) < percent; }
  double normal() { return std::normal_distribution<double>()(engine_); }
  template <class T>
  T one_of(const std::vector<T>& choices) {
    return choices[static_cast<std::size_t>(between(0, static_cast<std::int64_t>(choices.size()) - 1))];
  }

 private:
  std::mt19937 engine_;
};

struct Case {
  std::string label;
  Shape shape{};
  Score score{};
  std::vector<Segment> segments;
  Array q, k, v, sink, seed_out, seed_lse;  // the last three empty where absent
  Array dout, dlse;
  bool has_sink = false, has_seed = false, has_dlse = false, out_is_acc = false, grads_are_acc = false;

  [[nodiscard]] DType acc() const { return acc_of(shape.dtype); }
  [[nodiscard]] DType out_dtype() const { return out_is_acc ? acc() : shape.dtype; }
  [[nodiscard]] DType grad_dtype() const { return grads_are_acc ? acc() : shape.dtype; }
};

inline bool visible(const Segment& s, std::int64_t row, std::int64_t key) {
  if (row < s.q_begin || row >= s.q_end || key < s.k_begin || key >= s.k_end) return false;
  const std::int64_t distance = (s.k_pos0 + key - s.k_begin) - (s.q_pos0 + row - s.q_begin);
  return (s.left < 0 || distance >= -s.left) && (s.right < 0 || distance <= s.right);
}

// One of the layouts that callers hand in: packed, head-major, a slice of a wider tensor, rows in reverse, one head for all.
inline Array random_array(Random& random, DType dtype, std::int64_t tokens, std::int64_t heads, std::int64_t dim,
                          bool may_share = true) {
  switch (random.between(0, may_share ? 4 : 3)) {
    case 0:
      return {dtype, tokens, heads, dim, dim, tokens * dim};
    case 1:
      return {dtype, tokens, heads, dim, 3 * heads * dim + 5, dim + 1};
    case 2:
      return {dtype, tokens, heads, dim, -heads * dim, dim};
    case 4:
      return {dtype, tokens, heads, dim, dim, 0};
    default:
      return {dtype, tokens, heads, dim, heads * dim, dim};
  }
}

inline void fill(Random& random, Array& array, std::int64_t tokens, std::int64_t heads, std::int64_t dim, double size) {
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t i = 0; i < dim; ++i) array.set(t, h, i, size * random.normal());
}

// Documents one after another, perhaps with an unused tail; or rectangles anywhere, sharing rows and keys.
inline void random_segments(Random& random, Case& c, std::int64_t most_tokens) {
  static const std::vector<std::int64_t> lengths{0, 1, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129};
  const bool causal = random.chance(60), window = random.chance(30);
  std::int64_t q = 0, k = 0;
  for (std::int64_t count = random.between(0, 6); count > 0; --count) {
    std::int64_t m = random.one_of(lengths), n = random.chance(70) ? m : random.one_of(lengths);
    if (q + m > most_tokens || k + n > most_tokens) m = n = random.between(0, 2);
    Segment s{q, q + m, k, k + n, n - m, 0, -1, causal ? 0 : -1};
    if (window) s.left = random.between(0, 40), s.right = causal ? 0 : random.between(-1, 20);
    c.segments.push_back(s);
    q += m, k += n;
  }
  c.shape.total_q = q + (random.chance(30) ? random.between(1, 20) : 0);
  c.shape.total_k = k + (random.chance(30) ? random.between(1, 20) : 0);
  if (c.shape.total_q == 0 || c.shape.total_k == 0 || !random.chance(35)) return;
  for (std::int64_t count = random.between(1, 4); count > 0; --count) {
    Segment s{};
    s.q_begin = random.between(0, c.shape.total_q), s.q_end = random.between(s.q_begin, c.shape.total_q);
    s.k_begin = random.between(0, c.shape.total_k), s.k_end = random.between(s.k_begin, c.shape.total_k);
    s.q_pos0 = random.between(-5, 60), s.k_pos0 = random.between(0, 60);
    s.left = random.chance(30) ? random.between(0, 50) : -1, s.right = random.chance(50) ? random.between(0, 9) : -1;
    c.segments.insert(c.segments.begin() + random.between(0, static_cast<std::int64_t>(c.segments.size())), s);
  }
}

struct Dims {
  std::int64_t head_dim, head_dim_v;
};

inline void poison_unseen(Case& c) {
  for (std::int64_t key = 0; key < c.shape.total_k; ++key) {
    bool seen = false;
    for (const Segment& s : c.segments)
      for (std::int64_t row = s.q_begin; row < s.q_end; ++row) seen |= visible(s, row, key);
    for (std::int64_t h = 0; h < c.shape.heads_kv && !seen; ++h) {
      for (std::int64_t i = 0; i < c.shape.head_dim; ++i) c.k.set(key, h, i, kNaN);
      for (std::int64_t i = 0; i < c.shape.head_dim_v; ++i) c.v.set(key, h, i, kNaN);
    }
  }
  for (std::int64_t row = 0; row < c.shape.total_q; ++row) {
    bool seeing = false;
    for (const Segment& s : c.segments)
      for (std::int64_t key = s.k_begin; key < s.k_end; ++key) seeing |= visible(s, row, key);
    for (std::int64_t h = 0; h < c.shape.heads && !seeing; ++h) {
      for (std::int64_t i = 0; i < c.shape.head_dim; ++i) c.q.set(row, h, i, kNaN);
      if (c.has_sink || c.has_seed) continue;  // such a row has an output, and so a gradient to read
      for (std::int64_t i = 0; i < c.shape.head_dim_v; ++i) c.dout.set(row, h, i, kNaN);
    }
  }
}

inline Case random_case(unsigned seed, DType dtype, Dims dims, std::int64_t most_tokens) {
  Random random(seed);
  Case c;
  c.shape.dtype = dtype;
  c.shape.head_dim = dims.head_dim, c.shape.head_dim_v = dims.head_dim_v;
  c.shape.heads_kv = random.one_of<std::int64_t>({1, 1, 2});
  c.shape.heads = c.shape.heads_kv * random.one_of<std::int64_t>({1, 1, 3});
  c.score = {1 / std::sqrt(static_cast<double>(dims.head_dim)), random.chance(25) ? 2.0 : 0.0};
  random_segments(random, c, most_tokens);
  const Shape& s = c.shape;
  c.has_sink = random.chance(30), c.has_seed = random.chance(30), c.has_dlse = random.chance(60);
  c.out_is_acc = c.has_seed || random.chance(30), c.grads_are_acc = random.chance(40);
  c.q = random_array(random, dtype, s.total_q, s.heads, s.head_dim);
  c.k = random_array(random, dtype, s.total_k, s.heads_kv, s.head_dim);
  c.v = random_array(random, dtype, s.total_k, s.heads_kv, s.head_dim_v);
  c.dout = random_array(random, c.out_dtype(), s.total_q, s.heads, s.head_dim_v);
  fill(random, c.q, s.total_q, s.heads, s.head_dim, random.chance(15) ? 8 : 1);  // 8: one key takes nearly all the weight
  fill(random, c.k, s.total_k, s.heads_kv, s.head_dim, 1);
  fill(random, c.v, s.total_k, s.heads_kv, s.head_dim_v, 1);
  fill(random, c.dout, s.total_q, s.heads, s.head_dim_v, 1);
  poison_unseen(c);
  if (c.has_sink) {
    c.sink = Array(c.acc(), s.heads);
    for (std::int64_t h = 0; h < s.heads; ++h) c.sink.set(h, random.chance(10) ? -kInfinity : random.normal());
  }
  if (c.has_seed) {
    c.seed_out = random_array(random, c.acc(), s.total_q, s.heads, s.head_dim_v, false);
    c.seed_lse = Array(c.acc(), s.heads * s.total_q);
    for (std::int64_t i = 0; i < c.seed_lse.size(); ++i)
      c.seed_lse.set(i, random.chance(20) ? -kInfinity : 3 * random.normal());
    fill(random, c.seed_out, s.total_q, s.heads, s.head_dim_v, 1);
    for (std::int64_t h = 0; h < s.heads; ++h)  // the output of a seed without weight is not read
      for (std::int64_t row = 0; row < s.total_q; ++row)
        for (std::int64_t i = 0; i < s.head_dim_v && c.seed_lse.at(h * s.total_q + row) == -kInfinity; ++i)
          c.seed_out.set(row, h, i, kNaN);
  }
  if (c.has_dlse) {
    c.dlse = Array(c.acc(), s.heads * s.total_q);
    for (std::int64_t i = 0; i < c.dlse.size(); ++i) c.dlse.set(i, random.normal());
  }
  c.label = "seed " + std::to_string(seed) + " " + name(dtype) + " dims " + std::to_string(dims.head_dim) + "," +
            std::to_string(dims.head_dim_v) + " q " + std::to_string(s.total_q) + "x" + std::to_string(s.heads) + " k " +
            std::to_string(s.total_k) + "x" + std::to_string(s.heads_kv) + " segments " + std::to_string(c.segments.size()) +
            (c.has_sink ? " sink" : "") + (c.has_seed ? " seed" : "") + (c.score.softcap > 0 ? " softcap" : "");
  return c;
}

// Packed arrays of normal numbers and none of the extras.
inline Case plain_case(const Shape& shape, std::vector<Segment> segments, unsigned seed) {
  Random random(seed);
  Case c;
  c.label = "seed " + std::to_string(seed);
  c.shape = shape, c.segments = std::move(segments);
  c.score = {1 / std::sqrt(static_cast<double>(shape.head_dim)), 0};
  const auto packed = [&](std::int64_t tokens, std::int64_t heads, std::int64_t dim) {
    Array array(shape.dtype, tokens, heads, dim, heads * dim, dim);
    fill(random, array, tokens, heads, dim, 1);
    return array;
  };
  c.q = packed(shape.total_q, shape.heads, shape.head_dim), c.k = packed(shape.total_k, shape.heads_kv, shape.head_dim);
  c.v = packed(shape.total_k, shape.heads_kv, shape.head_dim_v), c.dout = packed(shape.total_q, shape.heads, shape.head_dim_v);
  return c;
}

}  // namespace attention_case
