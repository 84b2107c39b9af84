#include "hetsp/planner/offload.h"

#include <algorithm>
#include <random>
#include <string>

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

TEST(no_ratio_of_a_fine_grid_does_better) {
  std::mt19937_64 random(11);
  std::uniform_real_distribution<double> unit(0.0, 1.0);
  int offloaded = 0, untouched = 0;
  for (int trial = 0; trial < 500; ++trial) {
    check::context() = "trial " + std::to_string(trial);
    LayerActivations layer{.layers = 1 + static_cast<int>(random() % 40),
                           .seconds = unit(random) * unit(random),
                           .bytes = 1.0 + 50.0 * unit(random),
                           .room = 0.0,
                           .bytes_per_second = trial % 9 ? 100.0 * unit(random) : 0.0};
    layer.room = layer.layers * (0.5 + 20.0 * unit(random));
    const Offload got = choose_offload(layer);
    CHECK(got.ratio >= 0.0 && got.ratio <= 1.0);
    CHECK(got.ratio * layer.bytes <= layer.seconds * layer.bytes_per_second * (1 + 1e-12));
    CHECK_EQ(ranks_needed(layer, got.ratio), got.ranks);
    constexpr int kGrid = 2000;
    for (int i = 0; i <= kGrid; ++i) {
      const double ratio = static_cast<double>(i) / kGrid;
      if (ratio * layer.bytes > layer.seconds * layer.bytes_per_second) break;
      const auto ranks = ranks_needed(layer, ratio);
      CHECK(ranks >= got.ranks);
      if (ranks == got.ranks) CHECK(ratio >= got.ratio - 1e-9);
    }
    (got.ratio > 0.0 ? offloaded : untouched)++;
  }
  CHECK(offloaded > 50 && untouched > 50);  // the trials reach both sides
}

TEST(a_case_by_hand) {
  // 10 layers of 4 bytes, 20 bytes of room: 2 ranks hold it all. Half hidden: 2 + 0.5 * 8 = 6 layers, 24 bytes: still 2.
  LayerActivations layer{.layers = 10, .seconds = 1.0, .bytes = 4.0, .room = 20.0, .bytes_per_second = 2.0};
  CHECK_EQ(choose_offload(layer).ranks, 2);
  CHECK_EQ(choose_offload(layer).ratio, 0.0);
  layer.bytes_per_second = 3.0;  // 0.75 hidden: 2 + 0.25 * 8 = 4 layers, 16 bytes: 1 rank, which 5 layers would fill
  CHECK_EQ(choose_offload(layer).ranks, 1);
  CHECK_NEAR(choose_offload(layer).ratio, 1.0 - 3.0 / 8.0, 1e-12);
}

TEST(bad_values_are_named) {
  CHECK_THROWS(InvalidArgument, "layers is 0", choose_offload({}));
  CHECK_THROWS(InvalidArgument, "room is 0", choose_offload({.layers = 1, .bytes = 1.0}));
  CHECK_THROWS(InvalidArgument, "seconds is -1", choose_offload({.layers = 1, .seconds = -1.0, .bytes = 1.0, .room = 1.0}));
}

TEST_MAIN()
