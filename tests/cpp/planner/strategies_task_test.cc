#include "hetsp/planner/strategies/task.h"

#include <algorithm>
#include <random>
#include <string>
#include <utility>

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

// The chunks of FlexSP's plain dynamic programme: of equals, the longest last chunk.
std::vector<std::size_t> programme_ends(const std::vector<std::int64_t>& lengths, std::size_t count) {
  const std::size_t n = lengths.size();
  constexpr std::int64_t kNone = std::int64_t{1} << 60;
  std::vector<std::vector<std::int64_t>> least(count + 1, std::vector<std::int64_t>(n + 1, kNone));
  std::vector<std::vector<std::size_t>> from(count + 1, std::vector<std::size_t>(n + 1, 0));
  least[0][0] = 0;
  for (std::size_t c = 1; c <= count; ++c)
    for (std::size_t i = 1; i <= n; ++i)
      for (std::size_t j = c - 1; j < i; ++j) {
        std::int64_t sum = 0;
        for (std::size_t k = j; k < i; ++k) sum += lengths[k];
        if (const auto largest = std::max(least[c - 1][j], sum); largest < least[c][i]) least[c][i] = largest, from[c][i] = j;
      }
  std::vector<std::size_t> ends;
  for (std::size_t c = count, end = n; c > 0; --c) ends.push_back(end), end = from[c][end];
  std::reverse(ends.begin(), ends.end());
  return ends;
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
      std::vector<int> joined;
      std::vector<std::size_t> ends;
      for (const auto& chunk : chunks) {
        joined.insert(joined.end(), chunk.begin(), chunk.end());
        ends.push_back(joined.size());
      }
      CHECK(joined == order);
      CHECK(ends == programme_ends(lengths, std::min<std::size_t>(count, lengths.size())));
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

TEST(five_counts_are_tried_from_the_first_that_memory_holds_and_more_only_where_none_works) {
  const std::vector<Sequence> sequences = make_workload(std::vector<std::int64_t>(24, 5));
  const CostModel cost{.seconds_per_token = 1.0, .micro_batch_seconds = 1.0};
  const Cluster cluster{2, 0, 30};  // 120 tokens: memory alone asks for 2 micro-batches
  // Of 24 alike in 2, 3, 4, 5, 6, 7, 8 chunks the first holds 12, 8, 6, 4, 4, 3, 3, and the longest 12, 8, 6, 5, 4, 4, 3.
  const struct {
    int asked;
    std::size_t most;                 // sequences of a chunk that works
    std::vector<std::size_t> firsts;  // of the counts that are tried
    std::size_t best;                 // count; 0: none
  } cases[] = {{0, 24, {12, 8, 6, 4, 4}, 2},
               {0, 4, {12, 8, 6, 4, 4}, 6},
               {0, 3, {12, 8, 6, 4, 4, 3, 3}, 8},
               {4, 4, {6}, 0},
               {6, 4, {4}, 6}};
  for (const auto& [asked, most, firsts, best_of] : cases) {
    check::context() = "asked for " + std::to_string(asked) + ", at most " + std::to_string(most) + " in a chunk";
    const PlanOptions options{.exclusive = true, .micro_batches = asked};
    const Modes modes(cost, cluster, options);
    const Task task{sequences, cluster, cost, options, modes};
    std::vector<std::size_t> tried;
    std::size_t seen = 0;  // sequences of the count that is tried
    bool failed = true;
    const Timed best = best_count(task, [&](const std::vector<int>& chunk, std::vector<DraftGroup>& groups) {
      if (failed || seen == sequences.size()) tried.push_back(chunk.size()), seen = 0;
      seen += chunk.size();
      failed = chunk.size() > most;
      return !failed && balance_groups(task, *modes.find(Kind::whole, 1), chunk, 2, groups);
    });
    CHECK(tried == firsts);
    CHECK_EQ(best.draft.micro_batches.size(), best_of);
  }
}

TEST(groups_of_flexsp_are_ulysses_where_heads_allow) {
  const std::vector<Sequence> sequences = make_workload(std::vector<std::int64_t>{5});
  const CostModel cost{.seconds_per_token = 1.0};
  const Cluster cluster{4, 0, 30};
  const auto kind = [&](std::vector<std::string> executable) -> std::string {
    const PlanOptions options{.executable = std::move(executable), .exclusive = true};
    const Modes modes(cost, cluster, options);
    const auto* mode = sequence_parallel_mode({sequences, cluster, cost, options, modes}, 4);
    return mode == nullptr ? "none" : std::string(name_of(mode->kind));
  };
  CHECK_EQ(kind({"whole", "gather", "ring", "ulysses"}), "ulysses");
  CHECK_EQ(kind({"whole", "gather", "ring"}), "ring");
  CHECK_EQ(kind({"whole", "gather"}), "gather");
  CHECK_EQ(kind({"whole"}), "none");
}

TEST_MAIN()
