#include "hetsp/planner/strategies/task.h"

#include <algorithm>
#include <random>
#include <string>

#include "hetsp/planner/strategies/flexsp.h"
#include "hetsp/planner/workload.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

std::vector<Sequence> random_sequences(std::uint64_t seed, int most) {
  std::mt19937_64 random(seed);
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  std::vector<std::int64_t> lengths(pick(1, most));
  const bool equal = pick(0, 3) == 0;
  for (auto& length : lengths) length = equal ? 7 : pick(0, pick(0, 1) == 0 ? 9 : 400);
  return make_workload(lengths);
}

std::int64_t tokens_of(const std::vector<Sequence>& sequences, const std::vector<int>& which) {
  std::int64_t sum = 0;
  for (const int s : which) sum += sequences[s].tokens;
  return sum;
}

// The least largest sum of at most `count` runs, by the plain dynamic programme.
std::int64_t least_largest(const std::vector<std::int64_t>& lengths, int count) {
  const std::size_t n = lengths.size();
  std::vector<std::int64_t> least(n + 1, std::int64_t{1} << 60);
  least[0] = 0;
  for (int c = 0; c < count; ++c) {
    auto next = least;
    for (std::size_t i = 1; i <= n; ++i) {
      std::int64_t sum = 0;
      for (std::size_t j = i; j-- > 0;) {
        sum += lengths[j];
        next[i] = std::min(next[i], std::max(least[j], sum));
      }
    }
    least = next;
  }
  return least[n];
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

TEST(chunks_are_those_of_the_dynamic_programme) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const auto sequences = random_sequences(seed, 14);
    const auto order = by_falling_tokens(sequences);
    std::vector<std::int64_t> lengths;
    for (const int s : order) lengths.push_back(sequences[s].tokens);
    for (int count = 1; count <= 5; ++count) {
      const auto chunks = cut_into_chunks(sequences, order, count);
      std::int64_t largest = 0;
      std::vector<int> joined;
      for (const auto& chunk : chunks) {
        largest = std::max(largest, tokens_of(sequences, chunk));
        joined.insert(joined.end(), chunk.begin(), chunk.end());
      }
      CHECK(static_cast<int>(chunks.size()) <= count);
      CHECK(joined == order);
      CHECK_EQ(largest, least_largest(lengths, count));
    }
  }
}

TEST(best_fit_fills_bins_and_leaves_what_is_too_long_alone) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const auto sequences = random_sequences(seed, 40);
    std::vector<int> seen;
    for (const auto& bin : best_fit(sequences, by_falling_tokens(sequences), 100)) {
      CHECK(bin.size() == 1 || tokens_of(sequences, bin) <= 100);
      seen.insert(seen.end(), bin.begin(), bin.end());
    }
    std::sort(seen.begin(), seen.end());
    for (std::size_t i = 0; i < seen.size(); ++i) CHECK_EQ(seen[i], static_cast<int>(i));
    CHECK_EQ(seen.size(), sequences.size());
  }
  const auto sequences = make_workload(std::vector<std::int64_t>{60, 50, 45, 40});
  const auto bins = best_fit(sequences, {0, 1, 2, 3}, 100);
  CHECK(bins == (std::vector<std::vector<int>>{{0, 3}, {1, 2}}));
}

TEST(buckets_waste_as_little_as_the_plain_dynamic_programme) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::vector<std::int64_t> lengths;
    for (const auto& sequence : random_sequences(seed, 60)) lengths.push_back(sequence.tokens);
    std::sort(lengths.begin(), lengths.end());
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

TEST(five_counts_are_tried_from_the_first_that_works) {
  const std::vector<Sequence> sequences = make_workload(std::vector<std::int64_t>(24, 5));
  const CostModel cost{.seconds_per_token = 1.0, .micro_batch_seconds = 1.0};
  const Cluster cluster{2, 0, 30};  // 120 tokens: memory alone asks for 2 micro-batches
  for (const int asked : {0, 4, 6}) {
    check::context() = "asked for " + std::to_string(asked);
    PlanOptions options{.exclusive = true, .micro_batches = asked};
    const Modes modes(cost, cluster, options);
    const Task task{sequences, cluster, cost, options, modes};
    std::vector<std::size_t> sizes;
    const auto solve = [&](const std::vector<int>& chunk, std::vector<DraftGroup>& groups) {
      sizes.push_back(chunk.size());
      if (chunk.size() > 4) return false;  // works from 6 micro-batches on
      return balance_groups(task, *modes.find(Kind::whole, 1), chunk, 2, groups);
    };
    const Timed best = best_count(task, solve);
    if (asked == 4) {
      CHECK(best.draft.micro_batches.empty());
      continue;
    }
    // 6 micro-batches of two sequences a rank: 10 s and 1 s each. More of them only add.
    CHECK_EQ(best.draft.micro_batches.size(), std::size_t{6});
    CHECK_NEAR(best.seconds, 66.0, 1e-9);
    CHECK(std::count(sizes.begin(), sizes.end(), std::size_t{4}) >= 6);
    CHECK_EQ(std::any_of(sizes.begin(), sizes.end(), [](std::size_t size) { return size > 4; }), asked == 0);
  }
}

TEST_MAIN()
