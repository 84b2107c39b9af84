#include "hetsp/planner/strategies/flexsp.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "hetsp/planner/workload.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

// Sorted, at times all equal.
std::vector<std::int64_t> random_lengths(std::uint64_t seed, int most_count, std::int64_t most_tokens) {
  std::mt19937_64 random(seed);
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  std::vector<std::int64_t> lengths(pick(1, most_count));
  const bool equal = pick(0, 3) == 0;
  for (auto& length : lengths) length = equal ? 7 : pick(0, pick(0, 1) == 0 ? 9 : most_tokens);
  std::sort(lengths.begin(), lengths.end());
  return lengths;
}

// The least waste of exactly `count` buckets of rising lengths.
std::int64_t least_waste(const std::vector<std::int64_t>& lengths, std::size_t count) {
  const std::size_t n = lengths.size();
  std::vector<std::int64_t> least(n + 1, std::int64_t{1} << 60);
  least[0] = 0;
  for (std::size_t c = 0; c < count; ++c) {
    std::vector<std::int64_t> next(n + 1, std::int64_t{1} << 60);
    for (std::size_t i = 1; i <= n; ++i) {
      std::int64_t waste = 0;
      for (std::size_t j = i; j-- > 0;) {
        waste += lengths[i - 1] - lengths[j];
        next[i] = std::min(next[i], least[j] + waste);
      }
    }
    least = next;
  }
  return least[n];
}

}  // namespace

TEST(buckets_waste_as_little_as_the_plain_dynamic_programme) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const auto lengths = random_lengths(seed, 60, 400);
    const auto ends = bucket_ends(lengths, 1'000'000);
    CHECK_EQ(ends.back(), lengths.size());
    CHECK_EQ(ends.size(), std::min<std::size_t>(16, lengths.size()));
    std::int64_t waste = 0;
    std::size_t begin = 0;
    for (const std::size_t end : ends)
      for (; begin < end; ++begin) waste += lengths[end - 1] - lengths[begin];
    CHECK_EQ(waste, least_waste(lengths, ends.size()));
  }
}

TEST(more_buckets_where_rounding_overfills_memory) {
  std::vector<std::int64_t> lengths;
  for (int i = 1; i <= 40; ++i) lengths.push_back(100 * i);
  std::int64_t sum = 0;
  for (const auto length : lengths) sum += length;
  CHECK(bucket_ends(lengths, sum + 40).size() > bucket_ends(lengths, 2 * sum).size());
}

// A model with heads knows what every kind costs; rings would win here, were they tried.
TEST(groups_are_ulysses_on_powers_of_two_ranks_and_hold_their_rounded_lengths) {
  const ModelShape shape{.layers = 4,
                         .hidden = 256,
                         .intermediate = 512,
                         .heads = 8,
                         .kv_heads = 1,
                         .head_dim = 32,
                         .vocabulary = 1000,
                         .bytes = 2};
  const Network network{{1e9, 0.0}, {1e9, 0.0}, 0};
  const CostModel cost = cost_model_on_network(shape, {1e12, 1e12}, network, 8, false);
  int groups_seen = 0, rings = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const auto sequences = make_workload(random_lengths(seed, 40, 3000));
    const Cluster cluster{16, 8, 250};
    const PlanOptions options{.executable = {"whole", "ring", "ulysses", "gather"}, .seed = seed, .exclusive = true};
    const Modes modes(cost, cluster, options);
    for (const auto& groups : draft_flexsp({sequences, cluster, cost, options, modes}).micro_batches)
      for (const auto& group : groups) {
        CHECK(group.degree >= 2);
        CHECK_EQ(group.degree & (group.degree - 1), 0);
        CHECK(group.kind == (group.degree <= 8 ? Kind::ulysses : Kind::ring));  // 8 heads
        std::int64_t tokens = 0;
        for (const int s : group.sequences) tokens += sequences[s].tokens;
        CHECK(tokens <= modes.room(group.degree));
        ++groups_seen, rings += group.kind == Kind::ring;
      }
  }
  CHECK(groups_seen > 100);
  CHECK(rings > 5);
}

TEST_MAIN()
