#include "hetsp/planner/presets.h"

#include <set>

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

TEST(flexsp_is_its_published_formula) {
  const Preset& seven = preset("flexsp-7b");
  const std::vector<std::int64_t> lengths{100000};
  const Sequence sequence = seven.workload(lengths).front();
  CHECK_EQ(sequence.visible_pairs, std::int64_t{10000000000});
  // t_d = (a1 s^2 + a2 s) / d + A s / (d v_d), milliseconds.
  const double work = 5.128e-6 * 1e10 + 0.1839576 * 1e5;
  CHECK_NEAR(seven.cost.seconds(sequence, 1), work / 1e3, 1e-9);
  CHECK_NEAR(seven.cost.seconds(sequence, 8), (work / 8 + 2.0 * 1e5 / (8 * 96.5)) / 1e3, 1e-9);
  CHECK_NEAR(seven.cost.seconds(sequence, 64), (work / 64 + 2.0 * 1e5 / (64 * 4.87)) / 1e3, 1e-9);
  CHECK_NEAR(seven.cost.seconds(sequence, 12), (work / 12 + 2.0 * 1e5 / (12 * 1.3 * 10.33)) / 1e3, 1e-9);
  CHECK_NEAR(seven.cost.seconds(sequence, 24), (work / 24 + 2.0 * 1e5 / (24 * (10.33 + 5.94) / 2)) / 1e3, 1e-9);
  CHECK_NEAR(seven.cost.micro_batch_seconds, 0.6293563, 1e-12);
}

TEST(flexsp_capacities_by_hand) {
  CHECK_EQ(preset("flexsp-7b").cluster(64, 384 << 10).tokens_per_rank, 6407);
  CHECK_EQ(preset("flexsp-7b").cluster(1024, 384 << 10).tokens_per_rank, 6828);
  CHECK_EQ(preset("flexsp-7b").cluster(12288, 384 << 10).tokens_per_rank, 6854);
  // floor((30 * 1024 - 16 * 1024 * 31.5251389 / 64) / 3.417381836) MB
  CHECK_EQ(preset("flexsp-30b").cluster(64, 192 << 10).tokens_per_rank, 6627);
  CHECK_THROWS(PlanInfeasible, "state fills the memory of 8 ranks", preset("flexsp-30b").cluster(8, 4096));
}

TEST(contexts_between_the_published_ones_lie_between_them) {
  const RankMemory memory = preset("flexsp-13b").memory;
  std::int64_t last = memory.tokens(64, 4 << 10);
  for (const std::int64_t context : {100 << 10, 192 << 10, 300 << 10, 384 << 10, 500 << 10}) {
    CHECK(memory.tokens(64, context) < last);
    last = memory.tokens(64, context);
  }
}

TEST(bytescale_is_its_published_curve) {
  const Preset& curve = preset("bytescale-7b");
  const struct {
    double kilo, attention, mlp;
  } table[] = {{4, 0.8, 0.9}, {16, 4.8, 3.6}, {64, 48.2, 15.1}, {128, 175.5, 28.2}};  // ms per layer, forward
  for (const auto& [kilo, attention, mlp] : table) {
    const auto tokens = static_cast<std::int64_t>(1024 * kilo);
    // The published times, with the backward's multiples: 3.5 of the quadratic part and 3 of the rest.
    const double quadratic = 0.0096 * kilo * kilo;
    const double expected = 32 * (3.0 * (attention + mlp) + 0.5 * quadratic) / 1e3;
    const double got = curve.cost.compute_seconds({tokens, tokens * tokens, 0.0}) + curve.cost.micro_batch_seconds;
    CHECK_NEAR(got, expected, 0.04 * expected);
  }
  CHECK_EQ(curve.cluster(1024, 2 << 20).tokens_per_rank, 8192);
  // Attention of 312K tokens on 39 and on 256 ranks: 110 and 405 ms a layer, of which links are all but the work.
  for (const auto& [degree, ms] : {std::pair{39, 110.0}, std::pair{256, 405.0}}) {
    const double hop = 1.35 + 312.0 * 1024 / degree * 4096 / 21e9 * 1e3;
    CHECK_NEAR(hop * (degree - 1), ms, 0.03 * ms);
  }
}

TEST(every_preset_can_be_planned_for) {
  std::set<std::string> names;
  for (const auto& one : presets()) {
    check::context() = one.name;
    CHECK(names.insert(one.name).second);
    CHECK(!one.description.empty() && one.description.find('\n') == std::string::npos);
    planner::check(one.cost);
    const Cluster cluster = one.cluster(128, 64 << 10);
    CHECK(cluster.tokens_per_rank > 1000);
    CHECK_EQ(cluster.ranks_per_node, 8);
    const std::vector<std::int64_t> lengths{1000, 30000};
    const auto workload = one.workload(lengths);
    CHECK_EQ(workload[0].visible_pairs, one.squared_pairs ? 1000000 : 500500);
    CHECK(one.cost.seconds(workload[1], 2) < one.cost.seconds(workload[1], 1));
  }
  CHECK(names.size() >= 12);
}

TEST(systems_that_shard_parameters_wait_in_every_layer) {
  for (const auto& one : presets()) {
    check::context() = one.name;
    const bool replicated = one.name.starts_with("bytescale") || one.name.starts_with("zeppelin");
    CHECK(one.synchronisation == (replicated ? Synchronisation::step : Synchronisation::layer));
    const bool published_in_b1 = one.name.starts_with("flexsp") || one.name.starts_with("bytescale");
    CHECK((one.cost.placeholder_seconds == 0.0) == published_in_b1);
  }
  // LLaMA 7B replicated: 6 bytes of each of 6.74e9 parameters stay on a rank, 12 are shared by 128.
  const ModelShape& shape = *preset("zeppelin-a-7b").cost.shape;
  const double parameters = weights(shape) + 4096.0 * 32000.0;
  const double left = 72e9 - (6.0 + 12.0 / 128) * parameters;
  CHECK_EQ(preset("zeppelin-a-7b").cluster(128, 65536).tokens_per_rank,
           static_cast<std::int64_t>(left / activation_bytes_per_token(shape, false)));
}

TEST(bad_requests_are_named) {
  CHECK_THROWS(InvalidArgument, "preset \"gpt\" is unknown; allowed: flexsp-7b, flexsp-13b", preset("gpt"));
  CHECK_THROWS(InvalidArgument, "ranks is 0", preset("llama-7b").cluster(0, 1));
  CHECK_THROWS(InvalidArgument, "max_length is 0", preset("llama-7b").cluster(1, 0));
  const std::vector<std::int64_t> huge{std::int64_t{1} << 31};
  CHECK_THROWS(InvalidArgument, "2147483648 tokens, must be below 2^31", preset("flexsp-7b").workload(huge));
}

TEST_MAIN()
