#include "hetsp/planner/offload.h"

#include <algorithm>
#include <random>
#include <string>

#include "hetsp/base/error.h"
#include "hetsp/planner/presets.h"
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

TEST(a_sequence_on_host_memory_is_byte_scales_measurement) {
  const Preset& setting = preset("bytescale-7b");
  const auto sequences = setting.workload(std::vector<std::int64_t>{65536, 1 << 20, 4096, 0});
  CHECK_NEAR(hidden_ratio(sequences[0], setting.cost, setting.host), 0.5, 1e-9);  // published: half of 64K is free
  CHECK_NEAR(hidden_ratio(sequences[1], setting.cost, setting.host), 1.0, 0.0);
  CHECK(hidden_ratio(sequences[2], setting.cost, setting.host) < 0.25);
  CHECK_NEAR(hidden_ratio(sequences[3], setting.cost, setting.host), 0.0, 0.0);
  CHECK_NEAR(hidden_ratio(sequences[0], setting.cost, {}), 0.0, 0.0);
  CHECK_NEAR(hidden_ratio(sequences[0], setting.cost, {.layers = 2, .tokens_per_second = 1e9}), 0.0, 0.0);
  const LayerActivations layer = layer_of(sequences[0], setting.cost, setting.host, 8192);
  CHECK_NEAR(choose_offload(layer).ratio, 0.4, 0.1);  // at most 0.5, and what fills the last rank
}

TEST(the_ratio_to_fit_is_the_least_that_does) {
  std::mt19937_64 random(3);
  const HostMemory host{.layers = 8, .tokens_per_second = 1.0};
  for (int trial = 0; trial < 1000; ++trial) {
    check::context() = "trial " + std::to_string(trial);
    const auto tokens = static_cast<std::int64_t>(random() % 3000), room = static_cast<std::int64_t>(random() % 3000);
    const double hidden = static_cast<double>(random() % 5) / 4.0;
    const auto kept = [&](double ratio) { return static_cast<double>(tokens) * (1.0 - ratio * host.offloadable()); };
    const auto ratio = ratio_to_fit(tokens, room, host, hidden);
    CHECK_EQ(ratio.has_value(), kept(hidden) <= static_cast<double>(room) * (1 + 1e-12));
    if (!ratio) continue;
    CHECK(0.0 <= *ratio && *ratio <= hidden);
    CHECK(kept(*ratio) <= static_cast<double>(room) + 1e-9);
    if (*ratio > 0.0) CHECK(kept(*ratio * (1 - 1e-6)) > static_cast<double>(room));
  }
  CHECK(!ratio_to_fit(10, 5, {}, 1.0).has_value());
}

TEST_MAIN()
