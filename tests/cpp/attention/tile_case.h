// One random tile in tensors and in the packed forms of a table, with the masks that schedules make, for the tests of the tile
// arithmetic of every instruction set and element type.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "attention/levels.h"
#include "hetsp/attention/cpu/isa.h"
#include "hetsp/attention/number.h"

namespace tile_case {

using namespace hetsp::attention::cpu;
using hetsp::attention::BFloat16;
using hetsp::attention::Float16;

constexpr double kLog2E = 1.4426950408889634074;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

inline double widened(float x) { return x; }
inline double widened(double x) { return x; }
inline double widened(BFloat16 x) { return to_float(x); }
inline double widened(Float16 x) { return to_float(x); }
inline void rounded(double x, float& to) { to = static_cast<float>(x); }
inline void rounded(double x, double& to) { to = x; }
inline void rounded(double x, BFloat16& to) { to = hetsp::attention::to_bfloat16(static_cast<float>(x)); }
inline void rounded(double x, Float16& to) { to = hetsp::attention::to_float16(static_cast<float>(x)); }

// Bytes at a 64-byte boundary, all set: NaN in every type, so that a read of what nobody packed shows.
class Block {
 public:
  explicit Block(std::size_t bytes) : data_(::operator new(bytes, kAlignment)) { std::memset(data_.get(), 0xff, bytes); }
  [[nodiscard]] void* get() const { return data_.get(); }
  template <class T>
  [[nodiscard]] T* as() const {
    return static_cast<T*>(data_.get());
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(void* data) const { ::operator delete(data, kAlignment); }
  };
  std::unique_ptr<void, Free> data_;
};

// [rows][dim], `stride` apart, exactly as long as the last row needs.
template <class T>
struct Tensor {
  std::int64_t rows, dim, stride;
  std::vector<T> data;
  Tensor(std::int64_t row_count, std::int64_t row_dim, std::mt19937& random)
      : rows(row_count),
        dim(row_dim),
        stride(row_dim + static_cast<std::int64_t>(random() % 3)),
        data(static_cast<std::size_t>((rows - 1) * stride + dim)) {
    std::normal_distribution<> normal;
    for (T& x : data) rounded(normal(random), x);
  }
  [[nodiscard]] double at(std::int64_t row, std::int64_t i) const {
    return widened(data[static_cast<std::size_t>(row * stride + i)]);
  }
  void fill_row(std::int64_t row, double x) {
    for (std::int64_t i = 0; i < dim; ++i) rounded(x, data[static_cast<std::size_t>(row * stride + i)]);
  }
};

template <class Element>
struct TileCase {
  using Acc = typename AccOf<Element>::type;
  std::int64_t rows, keys, dim, dim_v, lanes;
  double scale, softcap;
  TileMask mask;
  Tensor<Element> q, k, v, dout;
  bool careful = false;

  TileCase(std::mt19937& random, std::int64_t row_count, std::int64_t key_count, std::int64_t head_dim, std::int64_t head_dim_v)
      : rows(row_count),
        keys(key_count),
        dim(head_dim),
        dim_v(head_dim_v),
        lanes((rows + kLanes - 1) / kLanes * kLanes),
        scale(1 / std::sqrt(static_cast<double>(dim))),
        softcap(random() % 4 == 0 ? 2 : 0),
        q(rows, dim, random),
        k(keys, dim, random),
        v(keys, dim_v, random),
        dout(rows, dim_v, random) {
    const auto between = [&](std::int64_t low, std::int64_t high) {
      return low + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(high - low + 1));
    };
    const std::int64_t kind = between(0, 3), offset = between(-70, 70), window = between(0, 40);
    mask.cut = false, mask.widest = 0;
    for (std::int64_t lane = 0; lane < kTile; ++lane) {
      const std::int64_t row = std::min(lane, rows - 1);
      const bool banded = kind >= 2;
      const std::int64_t low = banded ? row + offset : 0;
      const std::int64_t high = kind == 1 ? row + 1 + offset : banded ? row + offset + window + 1 : keys;
      mask.low[lane] = static_cast<std::int32_t>(std::clamp<std::int64_t>(low, 0, keys));
      mask.high[lane] = static_cast<std::int32_t>(std::clamp<std::int64_t>(high, 0, keys));
      if (lane >= rows) continue;
      mask.cut |= mask.low[lane] > 0 || mask.high[lane] < keys;
      mask.widest = std::max(mask.widest, mask.high[lane] - mask.low[lane]);
    }
  }

  [[nodiscard]] std::string label() const {
    return "rows " + std::to_string(rows) + " keys " + std::to_string(keys) + " dims " + std::to_string(dim) + "," +
           std::to_string(dim_v) + (mask.cut ? " cut, widest " + std::to_string(mask.widest) : "") +
           (softcap > 0 ? " softcap" : "") + (careful ? " careful" : "");
  }
  [[nodiscard]] bool visible(std::int64_t row, std::int64_t key) const { return mask.low[row] <= key && key < mask.high[row]; }
  [[nodiscard]] double factor() const { return softcap > 0 ? scale / softcap : scale * kLog2E; }
  [[nodiscard]] Acc cap() const { return static_cast<Acc>(softcap * kLog2E); }

  // NaN and infinities in what some rows do not see, as a later token of the same document may hold them. The rows that do see
  // them are no longer compared.
  void poison(std::mt19937& random) {
    if (!mask.cut) return;
    const std::int64_t key = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(keys));
    k.fill_row(key, kNaN), v.fill_row(key, random() % 2 ? kInfinity : kNaN);
    careful = true;
  }
  [[nodiscard]] bool spoilt(std::int64_t row) const {
    bool found = false;
    for (std::int64_t key = 0; key < keys; ++key) found |= visible(row, key) && !std::isfinite(v.at(key, 0));
    return found;
  }

  struct Score {
    double value, slope, mass;  // natural; the mass is the sum of the sizes of its terms
  };
  [[nodiscard]] Score score(std::int64_t row, std::int64_t key) const {
    double x = 0, mass = 0;
    for (std::int64_t i = 0; i < dim; ++i) {
      const double term = scale * q.at(row, i) * k.at(key, i);
      x += term, mass += std::abs(term);
    }
    if (softcap == 0) return {x, 1, mass};
    const double squashed = std::tanh(x / softcap);
    return {softcap * squashed, 1 - squashed * squashed, mass};
  }
};

// In units of the result: how far the weights of a table are from exact ones, by their rounding and their exponential, beside
// the sums' own error. Tables of pairs round them to bfloat16.
template <class Element>
double weight_error(const TileMath<Element>& math) {
  return math.pairs_are_rows ? 0.0 : 0x1p-8 + 1e-4;
}

// body(math, case): every level and element type, random cases.
template <class Body>
void for_random_tiles(unsigned seeds, std::string& context, const Body& body) {
  const auto run = [&]<class Element>(const levels::Table<Element>& table, unsigned seed, const char* type) {
    std::mt19937 random(seed);
    const std::int64_t dims[] = {1, 2, 7, 15, 16, 17, 31, 32, 33, 40, 64, 72, 96, 128};
    const auto size = [&] { return random() % 4 == 0 ? kTile : 1 + static_cast<std::int64_t>(random() % kTile); };
    const std::int64_t rows = size(), keys = size(), dim = dims[random() % 14], dim_v = dims[random() % 14];
    TileCase<Element> tile(random, rows, keys, dim, dim_v);
    if (random() % 3 == 0) tile.poison(random);
    context = table.name + " " + type + " seed " + std::to_string(seed) + " " + tile.label();
    body(table.math, tile, random);
  };
  for (unsigned seed = 0; seed < seeds; ++seed) {
    for (const auto& table : levels::tables<float>()) run(table, seed, "float32");
    for (const auto& table : levels::tables<BFloat16>()) run(table, seed, "bfloat16");
    if (seed % 4 != 0) continue;
    for (const auto& table : levels::tables<double>()) run(table, seed, "float64");
    for (const auto& table : levels::tables<Float16>()) run(table, seed, "float16");
  }
}

}  // namespace tile_case
