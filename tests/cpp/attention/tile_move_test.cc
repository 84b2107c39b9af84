// Moves between tensors and the wide forms, against loops over single elements and the conversions of number.h. Tensors have
// exactly the bytes that a move may touch, so that a sanitizer sees one that goes beyond.
#include "hetsp/attention/cpu/tile_math.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "hetsp/attention/cpu/isa.h"
#include "hetsp/attention/cpu/scratch.h"
#include "hetsp/attention/number.h"
#include "support/check.h"

using namespace hetsp::attention::cpu;
using hetsp::attention::BFloat16;
using hetsp::attention::Float16;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

float widened(float x) { return x; }
double widened(double x) { return x; }
float widened(BFloat16 x) { return to_float(x); }
float widened(Float16 x) { return to_float(x); }
void rounded(float x, float& to) { to = x; }
void rounded(double x, double& to) { to = x; }
void rounded(float x, BFloat16& to) { to = hetsp::attention::to_bfloat16(x); }
void rounded(float x, Float16& to) { to = hetsp::attention::to_float16(x); }

template <class T>
bool same_bits(T a, T b) {
  using Bytes = std::array<std::byte, sizeof(T)>;
  return std::bit_cast<Bytes>(a) == std::bit_cast<Bytes>(b);
}

template <class T>
struct Aligned {
  Scratch scratch;
  T* data;
  Aligned(std::int64_t count, T fill) : scratch(carved(count * sizeof(T))), data(scratch.take<T>(count)) {
    std::fill(data, data + count, fill);
  }
};

// Rows of `dim` elements, `stride` apart, the last one without what follows it.
template <class T>
struct Tensor {
  std::int64_t rows, dim, stride;
  std::vector<T> data;
  Tensor(std::int64_t row_count, std::int64_t row_dim, std::int64_t row_stride, std::mt19937& random)
      : rows(row_count),
        dim(row_dim),
        stride(row_stride),
        data(static_cast<std::size_t>((row_count - 1) * row_stride + row_dim)) {
    const double specials[] = {0, -0.0, kInf, -kInf, std::nan(""), 1e-6, -3e-8, 65519.9, 65520, 6e-5, 1e-40};
    for (T& x : data) {
      const bool special = random() % 16 == 0;
      rounded(static_cast<typename AccOf<T>::type>(special ? specials[random() % 11] : std::normal_distribution<>()(random)),
              x);
    }
  }
  const T& at(std::int64_t row, std::int64_t i) const { return data[static_cast<std::size_t>(row * stride + i)]; }
};

template <class Body>
void for_random_tensors(const Body& body) {
  for (const Isa isa : supported_isas())
    for (unsigned seed = 0; seed < 60; ++seed) {
      check::context() = std::string(name(isa)) + " seed " + std::to_string(seed);
      std::mt19937 random(seed);
      const std::int64_t dims[] = {1, 7, 15, 16, 17, 31, 33, 40, 64, 72, 100, 128};
      const std::int64_t rows = 1 + static_cast<std::int64_t>(random() % kTile), dim = dims[random() % 12];
      const std::int64_t stride = dim + static_cast<std::int64_t>(random() % 3 * 5);
      switch (seed % 4) {
        case 0:
          body(isa, Tensor<float>(rows, dim, stride, random), random);
          break;
        case 1:
          body(isa, Tensor<double>(rows, dim, stride, random), random);
          break;
        case 2:
          body(isa, Tensor<BFloat16>(rows, dim, stride, random), random);
          break;
        default:
          body(isa, Tensor<Float16>(rows, dim, stride, random), random);
      }
    }
}

}  // namespace

TEST(packs_hold_every_element_and_zeros_around) {
  for_random_tensors([]<class T>(Isa isa, const Tensor<T>& t, std::mt19937&) {
    using Acc = typename AccOf<T>::type;
    const TileMath<T> math = tile_math<T>(isa);
    if (!math.pairs_are_rows) return;  // pairs of bfloat16: tile_bf16_move_test.cc
    const std::int64_t lanes = (t.rows + kLanes - 1) / kLanes * kLanes, dim_pad = (t.dim + kLanes - 1) / kLanes * kLanes;
    Aligned<Acc> in_rows(kTile * dim_pad, Acc(7)), in_lanes(t.dim * kTile, Acc(7));
    math.element.pack_rows(t.data.data(), t.stride, t.rows, t.dim, in_rows.data);
    math.element.pack_lanes(t.data.data(), t.stride, t.rows, lanes, t.dim, 0.3, in_lanes.data);
    for (std::int64_t row = 0; row < lanes; ++row)
      for (std::int64_t i = 0; i < dim_pad; ++i) {
        const bool there = row < t.rows && i < t.dim;
        const Acc x = there ? widened(t.at(row, i)) : Acc(0);
        if (row < t.rows)
          CHECK(std::isnan(x) ? std::isnan(in_rows.data[row * dim_pad + i]) : same_bits(in_rows.data[row * dim_pad + i], x));
        if (i < t.dim) {
          const Acc packed = in_lanes.data[i * kTile + row], scaled = static_cast<Acc>(x * 0.3);
          CHECK(std::isnan(x) ? std::isnan(packed) : same_bits(packed, scaled));
        }
      }
    CHECK(math.lanes_bytes(t.dim) >= static_cast<std::size_t>(t.dim * kTile) * sizeof(Acc));
    CHECK(math.rows_bytes(t.dim) >= static_cast<std::size_t>(dim_pad * kTile) * sizeof(Acc));
  });
}

TEST(nonfinite_is_found_wherever_it_is) {
  for_random_tensors([]<class T>(Isa isa, Tensor<T> t, std::mt19937& random) {
    using Acc = typename AccOf<T>::type;
    const TileMath<T> math = tile_math<T>(isa);
    for (T& x : t.data)
      if (!std::isfinite(widened(x))) rounded(Acc(-2), x);
    CHECK(!math.element.nonfinite(t.data.data(), t.stride, t.rows, t.dim));
    const std::int64_t row = static_cast<std::int64_t>(random()) % t.rows, i = static_cast<std::int64_t>(random()) % t.dim;
    rounded(static_cast<Acc>(random() % 2 ? kInf : std::nan("")), t.data[static_cast<std::size_t>(row * t.stride + i)]);
    CHECK(math.element.nonfinite(t.data.data(), t.stride, t.rows, t.dim));
  });
}

TEST(stores_round_and_write_nothing_else) {
  for_random_tensors([]<class T>(Isa isa, Tensor<T> t, std::mt19937& random) {
    using Acc = typename AccOf<T>::type;
    const TileMath<T> math = tile_math<T>(isa);
    const std::int64_t dim_pad = (t.dim + kLanes - 1) / kLanes * kLanes;
    const Tensor<Acc> values(kTile, t.dim, t.dim, random);
    Aligned<Acc> in_rows(kTile * dim_pad, Acc(0)), in_lanes(t.dim * kTile, Acc(0)), factors(kTile, Acc(0)),
        divisors(kTile, Acc(0));
    for (std::int64_t row = 0; row < kTile; ++row) {
      factors.data[row] = row % 5 == 0 ? Acc(0) : static_cast<Acc>(0.1 * static_cast<double>(row));
      divisors.data[row] = row % 5 == 0 ? Acc(0) : static_cast<Acc>(1 + std::abs(std::normal_distribution<>(0, 10)(random)));
      for (std::int64_t i = 0; i < t.dim; ++i)
        in_rows.data[row * dim_pad + i] = in_lanes.data[i * kTile + row] = values.at(row, i);
    }
    const auto check_store = [&](const auto& store, const auto& expected) {
      const auto size = static_cast<std::int64_t>(t.data.size());
      Aligned<T> to(size, T{});  // or no line would be streamed
      std::copy(t.data.begin(), t.data.end(), to.data);
      store(to.data, random() % 2 ? Store::streamed : Store::cached);
      for (std::int64_t at = 0; at < size; ++at) {
        const std::int64_t row = at / t.stride, i = at % t.stride;
        T wanted = t.data[static_cast<std::size_t>(at)];
        if (i < t.dim) rounded(expected(row, values.at(row, i)), wanted);
        const T got = to.data[at];
        const Acc a = widened(got), b = widened(wanted);
        // A subnormal's division has no exact remainder: a unit of the last place.
        CHECK(a == b || (std::isnan(a) && std::isnan(b)) || std::abs(a - b) <= std::numeric_limits<Acc>::denorm_min());
      }
    };
    check_store(
        [&](T* to, Store how) {
          math.element.store_lanes(in_lanes.data, t.rows, t.dim, factors.data, nullptr, to, t.stride, how);
        },
        [&](std::int64_t row, Acc x) { return factors.data[row] == 0 ? Acc(0) : x * factors.data[row]; });
    check_store(
        [&](T* to, Store how) {
          math.element.store_lanes(in_lanes.data, t.rows, t.dim, factors.data, divisors.data, to, t.stride, how);
        },
        [&](std::int64_t row, Acc x) { return factors.data[row] == 0 ? Acc(0) : x * factors.data[row] / divisors.data[row]; });
    check_store([&](T* to, Store how) { math.element.store_rows(in_rows.data, t.rows, t.dim, Acc(0.7), to, t.stride, how); },
                [&](std::int64_t, Acc x) { return x * Acc(0.7); });
  });
}

TEST(conversions_are_those_of_number_h) {
  for (const Isa isa : supported_isas()) {
    check::context() = name(isa);
    const auto half = tile_math<Float16>(isa);
    std::vector<Float16> all(1 << 16), back(1 << 16);
    for (std::uint32_t bits = 0; bits < all.size(); ++bits) all[bits] = {static_cast<std::uint16_t>(bits)};
    Aligned<float> wide(kTile * 64, 0.0F);
    for (std::size_t begin = 0; begin < all.size(); begin += kTile * 64) {
      half.element.pack_rows(all.data() + begin, 64, kTile, 64, wide.data);
      for (std::size_t i = 0; i < kTile * 64; ++i) {
        const float expected = to_float(all[begin + i]);
        CHECK(same_bits(wide.data[i], expected) || (std::isnan(wide.data[i]) && std::isnan(expected)));
      }
    }
    std::mt19937 random(1);
    const auto brain = tile_math<BFloat16>(isa);
    std::vector<BFloat16> brains(kTile * 64);
    for (int round = 0; round < 100; ++round) {
      for (std::size_t i = 0; i < kTile * 64; ++i) {
        // Random bits; exponents of halves and their subnormals; and exactly between two halves.
        std::uint32_t bits = static_cast<std::uint32_t>(random());
        if (i % 4 != 0) bits = (bits & 0x80ffffffU) | (100U + bits % 48U) << 23;
        if (i % 4 == 2) bits &= 0xfffff000U;
        std::memcpy(&wide.data[i], &bits, 4);
      }
      half.element.store_rows(wide.data, kTile, 64, 1, back.data(), 64, Store::cached);
      brain.element.store_rows(wide.data, kTile, 64, 1, brains.data(), 64, Store::cached);
      for (std::size_t i = 0; i < kTile * 64; ++i) {
        if (std::isnan(wide.data[i])) continue;  // a product keeps a NaN, not its bits
        CHECK_EQ(back[i].bits, hetsp::attention::to_float16(wide.data[i]).bits);
        CHECK_EQ(brains[i].bits, hetsp::attention::to_bfloat16(wide.data[i]).bits);
      }
    }
  }
}

TEST(delta_is_summed_in_double_and_selects) {
  for_random_tensors([]<class T>(Isa isa, Tensor<T> out, std::mt19937& random) {
    using Acc = typename AccOf<T>::type;
    for (T& x : out.data)
      if (!std::isfinite(widened(x))) rounded(Acc(0), x);
    Tensor<T> dout(out.rows, out.dim, out.stride, random);
    for (std::size_t at = 0; at < dout.data.size(); ++at)  // NaN and infinities stay where out is 0
      if (!std::isfinite(widened(dout.data[at])) && widened(out.data[at]) != 0) rounded(Acc(-2), dout.data[at]);
    std::vector<Acc> delta(static_cast<std::size_t>(out.rows));
    tile_math<T>(isa).element.delta(out.data.data(), out.stride, dout.data.data(), dout.stride, out.rows, out.dim,
                                    delta.data());
    for (std::int64_t row = 0; row < out.rows; ++row) {
      double sum = 0, size = 0;
      for (std::int64_t i = 0; i < out.dim; ++i) {
        const double a = widened(out.at(row, i)), b = widened(dout.at(row, i));
        if (a != 0) sum += a * b, size += std::abs(a * b);
      }
      // Rounded once, and two orders of as many terms in double.
      const double order = static_cast<double>(out.dim) * std::numeric_limits<double>::epsilon();
      CHECK_NEAR(delta[static_cast<std::size_t>(row)], sum, size * (std::numeric_limits<Acc>::epsilon() / 2 + order));
    }
  });
}

TEST_MAIN()
