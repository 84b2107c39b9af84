// The packed forms of bfloat16 pairs, element by element, from bfloat16 and from float32, with the zeros that the products of a
// level count on.
#include <cstdio>

#include "attention/tile_case.h"
#include "support/check.h"

using namespace tile_case;

namespace {

std::uint16_t bits_of(BFloat16 x) { return x.bits; }
std::uint16_t bits_of(float x) { return hetsp::attention::to_bfloat16(x).bits; }

std::int64_t up(std::int64_t count, std::int64_t unit) { return (count + unit - 1) / unit * unit; }

// Numbers that a product sums at once.
std::int64_t grain(const TileMath<BFloat16>& math) {
  return static_cast<std::int64_t>(math.lanes_bytes(1) / sizeof(std::uint16_t)) / kTile;
}

// body(move, tensor) for random tensors of T.
template <class T, class Body>
void for_random_tensors(const Move<T>& move, const char* type, const Body& body) {
  const std::int64_t dims[] = {1, 2, 7, 15, 16, 17, 31, 32, 33, 40, 64, 72, 96, 128};
  for (unsigned seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    const std::int64_t rows = 1 + static_cast<std::int64_t>(random() % kTile), dim = dims[random() % 14];
    check::context() =
        std::string(type) + " seed " + std::to_string(seed) + " rows " + std::to_string(rows) + " dim " + std::to_string(dim);
    const Tensor<T> tensor(rows, dim, random);
    body(move, tensor);
  }
}

template <class T>
std::uint16_t bits_at(const Tensor<T>& t, std::int64_t row, std::int64_t i) {
  if (row >= t.rows || i >= t.dim) return 0;
  return bits_of(t.data[static_cast<std::size_t>(row * t.stride + i)]);
}

template <class T>
void check_forms(const TileMath<BFloat16>& math, const Move<T>& move, const char* type) {
  const std::int64_t unit = grain(math);
  for_random_tensors<T>(move, type, [&](const Move<T>& m, const Tensor<T>& t) {
    const std::int64_t lanes = up(t.rows, kLanes), dim_pad = up(t.dim, kLanes), row_step = up(t.dim, std::max(unit, kLanes));
    const Block in_lanes(math.lanes_bytes(t.dim)), in_rows(math.rows_bytes(t.dim)), in_pairs(math.rows_bytes(t.dim)),
        in_columns(math.rows_bytes(t.dim));
    m.pack_lanes(t.data.data(), t.stride, t.rows, lanes, t.dim, 0.3, in_lanes.get());  // the factor is left to the tile
    m.pack_rows(t.data.data(), t.stride, t.rows, t.dim, in_rows.get());
    m.pack_pairs(t.data.data(), t.stride, t.rows, t.dim, in_pairs.get());
    m.pack_columns(t.data.data(), t.stride, t.rows, t.dim, in_columns.get());
    for (std::int64_t i = 0; i < up(t.dim, unit); ++i)
      for (std::int64_t lane = 0; lane < lanes; ++lane)
        CHECK_EQ(in_lanes.as<std::uint16_t>()[(i / 2 * kTile + lane) * 2 + i % 2], bits_at(t, lane, i));
    for (std::int64_t row = 0; row < t.rows; ++row)
      for (std::int64_t i = 0; i < row_step; ++i) CHECK_EQ(in_rows.as<std::uint16_t>()[row * row_step + i], bits_at(t, row, i));
    for (std::int64_t row = 0; row < up(t.rows, unit); ++row) {
      for (std::int64_t i = 0; i < dim_pad; ++i)
        CHECK_EQ(in_pairs.as<std::uint16_t>()[(row / 2 * dim_pad + i) * 2 + row % 2], bits_at(t, row, i));
      for (std::int64_t i = 0; i < t.dim; ++i) {
        const std::int64_t at = unit == 2 ? (row / 2 * dim_pad + i) * 2 + row % 2 : i * kTile + row;
        CHECK_EQ(in_columns.as<std::uint16_t>()[at], bits_at(t, row, i));
      }
    }
  });
}

}  // namespace

TEST(packs_hold_every_element_in_pairs_and_zeros_around) {
  bool tested = false;
  for (const auto& [name, math] : levels::tables<BFloat16>()) {
    if (math.pairs_are_rows) continue;
    check_forms<BFloat16>(math, math.element, (name + " bfloat16").c_str());
    check_forms<float>(math, math.acc, (name + " float32").c_str());
    tested = true;
  }
  if (!tested) std::printf("skipped: no instruction set of this machine, or of this build, multiplies pairs of bfloat16\n");
}

// Of a float32 gradient the tile holds bfloat16 numbers, and delta must be of these: dp - delta cancels.
TEST(delta_is_of_what_is_packed) {
  for (const auto& [name, math] : levels::tables<BFloat16>()) {
    if (math.pairs_are_rows) continue;
    for_random_tensors<float>(math.acc, name.c_str(), [](const Move<float>& move, const Tensor<float>& dout) {
      std::mt19937 random(7);
      const Tensor<float> out(dout.rows, dout.dim, random);
      float delta[kTile];
      move.delta(out.data.data(), out.stride, dout.data.data(), dout.stride, dout.rows, dout.dim, delta);
      for (std::int64_t row = 0; row < dout.rows; ++row) {
        double sum = 0, size = 0;
        for (std::int64_t i = 0; i < dout.dim; ++i) {
          const double term = out.at(row, i) * widened(BFloat16{bits_at(dout, row, i)});
          sum += term, size += std::abs(term);
        }
        CHECK_NEAR(delta[row], sum, size * 0x1p-24);
      }
    });
  }
}

TEST_MAIN()
