// The exponential and the tanh inside the tile arithmetic, seen through one-key tiles: with one key, the forward's `sum` is
// 2^(score - max) and the backward's `p` is 2^(score - lse) with the score given by q alone.
#include "hetsp/attention/cpu/tile_math.h"

#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "hetsp/attention/cpu/isa.h"
#include "support/check.h"

using namespace hetsp::attention::cpu;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

template <class Acc>
struct OneKey {
  alignas(64) Acc q[kTile], dout[kTile], lse_high[kTile], lse_low[kTile], delta[kTile];
  alignas(64) Acc p[kTile * kTile], ds[kTile * kTile], dq[kTile];
  TileMask mask;
  Acc one = 1;

  // p[lane] = 2^(cap tanh(x) or x, minus lse), ds[lane] = p * slope.
  void run(Isa isa, Acc cap) {
    for (std::int64_t lane = 0; lane < kTile; ++lane) dout[lane] = 1, lse_low[lane] = delta[lane] = dq[lane] = 0;
    mask.cut = false, mask.widest = kTile;  // the products, not the path of few pairs
    BackwardTile<Acc> tile{};
    tile.lanes = tile.rows = kTile, tile.keys = tile.dim = tile.dim_v = 1;
    tile.q_t = q, tile.dout_t = dout, tile.k = tile.v = &one, tile.cap = cap, tile.mask = &mask;
    tile.lse_high = lse_high, tile.lse_low = lse_low, tile.delta = delta, tile.p = p, tile.ds = ds, tile.dq_t = dq;
    tile_math<Acc>(isa).backward(tile);
  }
};

}  // namespace

TEST(exp2_is_accurate_to_rounding) {
  std::mt19937 random(1);
  for (const Isa isa : supported_isas()) {
    check::context() = name(isa);
    double worst = 0;
    static OneKey<float> tile;
    for (int round = 0; round < 500; ++round) {
      for (std::int64_t lane = 0; lane < kTile; ++lane)
        tile.q[lane] = std::uniform_real_distribution<float>(-126, 127)(random), tile.lse_high[lane] = 0;
      tile.run(isa, 0);
      for (std::int64_t lane = 0; lane < kTile; ++lane)
        worst = std::max(worst, std::abs(tile.p[lane] / std::exp2(static_cast<double>(tile.q[lane])) - 1));
    }
    CHECK_NEAR(worst, 0, 1.5e-7);
  }
}

TEST(exp2_at_the_edges) {
  for (const Isa isa : supported_isas()) {
    check::context() = name(isa);
    static OneKey<float> tile;
    for (std::int64_t lane = 0; lane < kTile; ++lane) tile.q[lane] = 0, tile.lse_high[lane] = 0;
    const double cases[][2] = {{-kInf, 0},  {-1e30, 0},     {-127, 0},   {-126, 0x1p-126}, {0, 1},      {1, 2},
                               {-3, 0.125}, {127, 0x1p127}, {128, kInf}, {1e30, kInf},     {kInf, kInf}};
    for (int i = 0; i < 11; ++i) tile.q[i] = static_cast<float>(cases[i][0]);
    tile.q[11] = std::numeric_limits<float>::quiet_NaN();
    tile.run(isa, 0);
    for (int i = 0; i < 11; ++i) CHECK_EQ(static_cast<double>(tile.p[i]), cases[i][1]);
    CHECK(std::isnan(tile.p[11]));
  }
}

TEST(tanh_is_accurate_to_rounding) {
  std::mt19937 random(2);
  for (const Isa isa : supported_isas()) {
    check::context() = name(isa);
    static OneKey<float> tile;
    double worst = 0;
    for (int round = 0; round < 500; ++round) {
      for (std::int64_t lane = 0; lane < kTile; ++lane) {
        const float scale = lane % 2 ? 0.6F : 8.0F;
        tile.q[lane] = std::uniform_real_distribution<float>(-scale, scale)(random);
        tile.lse_high[lane] = static_cast<float>(std::tanh(static_cast<double>(tile.q[lane])));
      }
      tile.run(isa, 1);
      // p = 2^(tanh(x) - tanh(x) rounded): its logarithm is the error.
      for (std::int64_t lane = 0; lane < kTile; ++lane)
        worst = std::max(worst, std::abs(std::log2(static_cast<double>(tile.p[lane])) / tile.lse_high[lane]));
    }
    CHECK_NEAR(worst, 0, 4e-7);
  }
}

TEST(float64_keeps_its_digits) {
  for (const Isa isa : supported_isas()) {
    check::context() = name(isa);
    static OneKey<double> tile;
    for (std::int64_t lane = 0; lane < kTile; ++lane) tile.q[lane] = -0.37 * static_cast<double>(lane), tile.lse_high[lane] = 0;
    tile.run(isa, 0);
    for (std::int64_t lane = 0; lane < kTile; ++lane) CHECK_NEAR(tile.p[lane] / std::exp2(tile.q[lane]), 1, 1e-15);
  }
}

TEST_MAIN()
