// The packed forms of bfloat16 pairs, element by element, from bfloat16 and from float32.
#include <cstdio>

#include "attention/tile_case.h"
#include "support/check.h"

using namespace tile_case;

namespace {

std::uint16_t bits_of(BFloat16 x) { return x.bits; }
std::uint16_t bits_of(float x) { return hetsp::attention::to_bfloat16(x).bits; }

// body(move, tensor, dim_pad) for random tensors of T.
template <class T, class Body>
void for_random_tensors(const Move<T>& move, const char* type, const Body& body) {
  const std::int64_t dims[] = {1, 2, 7, 15, 16, 17, 31, 32, 33, 40, 64, 72, 96, 128};
  for (unsigned seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    const std::int64_t rows = 1 + static_cast<std::int64_t>(random() % kTile), dim = dims[random() % 14];
    check::context() =
        std::string(type) + " seed " + std::to_string(seed) + " rows " + std::to_string(rows) + " dim " + std::to_string(dim);
    const Tensor<T> tensor(rows, dim, random);
    body(move, tensor, (dim + kLanes - 1) / kLanes * kLanes);
  }
}

template <class T>
std::uint16_t bits_at(const Tensor<T>& t, std::int64_t row, std::int64_t i) {
  if (row >= t.rows || i >= t.dim) return 0;
  return bits_of(t.data[static_cast<std::size_t>(row * t.stride + i)]);
}

template <class T>
void check_forms(const TileMath<BFloat16>& math, const Move<T>& move, const char* type) {
  for_random_tensors<T>(move, type, [&](const Move<T>& m, const Tensor<T>& t, std::int64_t dim_pad) {
    const std::int64_t lanes = (t.rows + kLanes - 1) / kLanes * kLanes;
    const Block in_lanes(math.lanes_bytes(t.dim)), in_rows(math.rows_bytes(t.dim)), in_pairs(math.rows_bytes(t.dim));
    m.pack_lanes(t.data.data(), t.stride, t.rows, lanes, t.dim, 0.3, in_lanes.get());  // the factor is left to the tile
    m.pack_rows(t.data.data(), t.stride, t.rows, t.dim, in_rows.get());
    m.pack_pairs(t.data.data(), t.stride, t.rows, t.dim, in_pairs.get());
    for (std::int64_t i = 0; i < t.dim + t.dim % 2; ++i)
      for (std::int64_t lane = 0; lane < lanes; ++lane)
        CHECK_EQ(in_lanes.as<std::uint16_t>()[(i / 2 * kTile + lane) * 2 + i % 2], bits_at(t, lane, i));
    for (std::int64_t i = 0; i < dim_pad; ++i) {
      for (std::int64_t row = 0; row < t.rows; ++row)
        CHECK_EQ(in_rows.as<std::uint16_t>()[row * dim_pad + i], bits_at(t, row, i));
      for (std::int64_t row = 0; row < t.rows + t.rows % 2; ++row)
        CHECK_EQ(in_pairs.as<std::uint16_t>()[(row / 2 * dim_pad + i) * 2 + row % 2], bits_at(t, row, i));
    }
  });
}

}  // namespace

TEST(packs_hold_every_element_in_pairs_and_zeros_around) {
  bool tested = false;
  for (const Isa isa : supported_isas()) {
    const auto math = tile_math<BFloat16>(isa);
    if (math.pairs_are_rows) continue;
    check_forms<BFloat16>(math, math.element, "bfloat16");
    check_forms<float>(math, math.acc, "float32");
    tested = true;
  }
  if (!tested) std::printf("skipped: no instruction set of this machine, or of this build, multiplies pairs of bfloat16\n");
}

// Of a float32 gradient the tile holds bfloat16 numbers, and delta must be of these: dp - delta cancels.
TEST(delta_is_of_what_is_packed) {
  for (const Isa isa : supported_isas()) {
    const auto math = tile_math<BFloat16>(isa);
    if (math.pairs_are_rows) continue;
    for_random_tensors<float>(math.acc, "float32", [](const Move<float>& move, const Tensor<float>& dout, std::int64_t) {
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
