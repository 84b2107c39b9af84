// The exponential and the tanh inside the tile arithmetic, seen through one-key tiles in which a single row weighs anything:
// with dout = 1, the backward's dv is 2^(score - lse) of that row, and the score is given by q alone.
#include "hetsp/attention/cpu/tile_math.h"

#include <cmath>
#include <limits>
#include <random>

#include "hetsp/attention/cpu/isa.h"
#include "hetsp/attention/cpu/scratch.h"
#include "support/check.h"

using namespace hetsp::attention::cpu;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

template <class Acc>
class OneKey {
 public:
  OneKey(Isa isa, Acc cap) : math_(tile_math<Acc>(isa)), scratch_(math_.scratch_bytes()) {
    for (std::int64_t i = 0; i < kLanes; ++i) one_[i] = i == 0, lse_low_[i] = delta_[i] = 0;
    for (std::int64_t lane = 0; lane < kLanes; ++lane) dout_[lane] = 1, dout_rows_[lane * kLanes] = 1;
    mask_.cut = false, mask_.widest = kTile;  // the products, not the path of few pairs
    tile_.lanes = tile_.rows = kLanes, tile_.keys = tile_.dim = tile_.dim_v = 1;
    tile_.q = q_, tile_.dout = dout_, tile_.k = tile_.v = tile_.k_columns = one_, tile_.q_pairs = tile_.dout_pairs = dout_rows_;
    tile_.factor = 1, tile_.cap = cap, tile_.mask = &mask_;
    tile_.lse_high = lse_high_, tile_.lse_low = lse_low_, tile_.delta = delta_, tile_.dq_t = dq_t_, tile_.dk = dk_,
    tile_.dv = dv_;
    tile_.scratch = scratch_.take(math_.scratch_bytes());
  }

  // 2^(cap tanh(x) or x, minus lse), by one lane or another.
  Acc weight(std::int64_t lane, Acc x, Acc lse = 0) {
    for (std::int64_t i = 0; i < kLanes; ++i) q_[i] = 0, lse_high_[i] = std::numeric_limits<Acc>::infinity();
    q_[lane] = x, lse_high_[lane] = lse;
    dk_[0] = dv_[0] = 0;
    const TileRegion region(math_);
    math_.backward(tile_);
    return dv_[0];
  }

 private:
  const TileMath<Acc> math_;
  Scratch scratch_;
  alignas(64) Acc q_[kTile], dout_[kTile], lse_high_[kTile], lse_low_[kTile], delta_[kTile], dq_t_[kTile] = {};
  alignas(64) Acc one_[kLanes], dout_rows_[kLanes * kLanes] = {}, dk_[kLanes] = {}, dv_[kLanes] = {};
  TileMask mask_;
  BackwardTile<Acc> tile_{};
};

}  // namespace

TEST(exp2_is_accurate_to_rounding) {
  std::mt19937 random(1);
  for (const Isa isa : supported_isas()) {
    check::context() = name(isa);
    OneKey<float> key(isa, 0);
    double worst = 0;
    for (int round = 0; round < 20000; ++round) {
      const float x = std::uniform_real_distribution<float>(-126, 127)(random);
      worst = std::max(worst, std::abs(key.weight(round % kLanes, x) / std::exp2(static_cast<double>(x)) - 1));
    }
    CHECK_NEAR(worst, 0, 1.5e-7);
  }
}

TEST(exp2_at_the_edges) {
  const double cases[][2] = {{-kInf, 0},  {-1e30, 0},     {-127, 0},   {-126, 0x1p-126}, {0, 1},      {1, 2},
                             {-3, 0.125}, {127, 0x1p127}, {128, kInf}, {1e30, kInf},     {kInf, kInf}};
  for (const Isa isa : supported_isas()) {
    check::context() = name(isa);
    OneKey<float> key(isa, 0);
    for (const auto& [x, expected] : cases) CHECK_EQ(static_cast<double>(key.weight(3, static_cast<float>(x))), expected);
    CHECK(std::isnan(key.weight(5, std::numeric_limits<float>::quiet_NaN())));
  }
}

TEST(tanh_is_accurate_to_rounding) {
  std::mt19937 random(2);
  for (const Isa isa : supported_isas()) {
    check::context() = name(isa);
    OneKey<float> key(isa, 1);
    double worst = 0;
    for (int round = 0; round < 20000; ++round) {
      const float scale = round % 2 ? 0.6F : 8.0F, x = std::uniform_real_distribution<float>(-scale, scale)(random);
      const auto rounded = static_cast<float>(std::tanh(static_cast<double>(x)));
      // 2^(tanh(x) - tanh(x) rounded): its logarithm is the error.
      worst = std::max(worst, std::abs(std::log2(static_cast<double>(key.weight(round % kLanes, x, rounded))) / rounded));
    }
    CHECK_NEAR(worst, 0, 4e-7);
  }
}

TEST(float64_keeps_its_digits) {
  for (const Isa isa : supported_isas()) {
    check::context() = name(isa);
    OneKey<double> key(isa, 0);
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const double x = -0.37 * static_cast<double>(lane);
      CHECK_NEAR(key.weight(lane, x) / std::exp2(x), 1, 1e-15);
    }
  }
}

TEST_MAIN()
