#include "hetsp/packing/knapsack.h"

#include <algorithm>
#include <random>
#include <string>

#include "support/check.h"

using namespace hetsp::packing;

namespace {

struct Case {
  std::vector<KnapsackItem> items;
  double T, S;
};

// Small numbers, so that ties, exact fits, items too large and worthless items are common.
Case random_case(unsigned seed) {
  std::mt19937 random(seed);
  const auto below = [&](int n) { return static_cast<int>(random() % n); };
  Case c;
  const bool coarse = below(2) == 0;
  for (int i = 0, n = below(7); i < n; ++i) {
    const double scale = coarse ? 1.0 : 0.37 + below(1000) * 1e-3;
    c.items.push_back({below(6) * scale, below(8) * scale, static_cast<double>(below(8)), below(5), i});
  }
  c.T = below(20) * (coarse ? 1.0 : 0.93), c.S = below(20);
  return c;
}

double brute_force(const Case& c, std::size_t from, double T, double S) {
  if (from == c.items.size()) return 0.0;
  const KnapsackItem& item = c.items[from];
  double best = 0.0;
  for (int x = 0; x <= item.count && x * item.seconds <= T * (1 + 1e-12) && x * item.tokens <= S; ++x)
    best = std::max(best, x * item.profit + brute_force(c, from + 1, T - x * item.seconds, S - x * item.tokens));
  return best;
}

double profit_of(const Case& c, const Fill& fill) {
  double profit = 0.0, seconds = 0.0, tokens = 0.0;
  for (const auto& [id, times] : fill) {
    CHECK(times >= 1 && times <= c.items[id].count);
    profit += times * c.items[id].profit, seconds += times * c.items[id].seconds, tokens += times * c.items[id].tokens;
  }
  CHECK(seconds <= c.T * (1 + 1e-11) + 1e-15 && tokens <= c.S);
  return profit;
}

}  // namespace

TEST(equals_brute_force) {
  Knapsack knapsack;  // one object for all cases: nothing of an earlier one may remain
  for (unsigned seed = 0; seed < 20000; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Case c = random_case(seed);
    const double best = brute_force(c, 0, c.T, c.S);
    knapsack.solve(c.items, c.T, c.S, 0.0, 1 << 20);
    CHECK_NEAR(knapsack.profit(), best, 1e-9 * (1 + best));
    CHECK_NEAR(knapsack.upper_bound(), best, 1e-9 * (1 + best));
    double last = 0.0;
    for (const Fill& fill : knapsack.fills()) {
      const double profit = profit_of(c, fill);
      CHECK(profit > last);
      last = profit;
    }
    CHECK_NEAR(last, best, 1e-9 * (1 + best));
  }
}

TEST(a_threshold_hides_what_is_below_it_and_nothing_above) {
  Knapsack knapsack;
  for (unsigned seed = 0; seed < 5000; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Case c = random_case(seed);
    const double best = brute_force(c, 0, c.T, c.S);
    knapsack.solve(c.items, c.T, c.S, best * 0.8, 1 << 20);
    if (best > 0.0) CHECK_NEAR(knapsack.profit(), best, 1e-9 * (1 + best));
    knapsack.solve(c.items, c.T, c.S, best * 1.001 + 1e-6, 1 << 20);
    CHECK(knapsack.profit() == 0.0 && knapsack.fills().empty());
    CHECK_NEAR(knapsack.upper_bound(), best * 1.001 + 1e-6, 1e-12);
  }
}

TEST(an_unfinished_search_still_bounds) {
  Knapsack knapsack;
  int unfinished = 0;
  for (unsigned seed = 0; seed < 5000; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Case c = random_case(seed);
    const double best = brute_force(c, 0, c.T, c.S);
    for (const int work : {0, 1, 3, 8, 20}) {
      knapsack.solve(c.items, c.T, c.S, 0.0, work);
      CHECK(knapsack.upper_bound() >= best - 1e-9 * (1 + best));
      CHECK(knapsack.profit() <= best + 1e-9 * (1 + best));
      unfinished += knapsack.upper_bound() > best + 1e-9 * (1 + best);
    }
  }
  CHECK(unfinished > 1000);
}

// Whole seconds and tokens, so that a table over both is exact; near-equal densities, so that the search is long.
TEST(equals_a_table_over_seconds_and_tokens) {
  Knapsack knapsack;
  std::int64_t longest = 0;
  for (unsigned seed = 0; seed < 150; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    const int T = 60 + below(120), S = 60 + below(120);
    std::vector<KnapsackItem> items;
    std::vector<std::vector<double>> best(T + 1, std::vector<double>(S + 1, 0.0));
    for (int i = 0, n = 5 + below(35); i < n; ++i) {
      const int seconds = 1 + below(T / (1 + below(8))), tokens = 1 + below(S / (1 + below(8))), count = 1 + below(4);
      const double profit = 1.0 * seconds / T + 1.0 * tokens / S + 1e-3 * below(50);
      items.push_back({profit, static_cast<double>(seconds), static_cast<double>(tokens), count, i});
      for (int copy = 0; copy < count; ++copy)
        for (int t = T; t >= seconds; --t)
          for (int s = S; s >= tokens; --s) best[t][s] = std::max(best[t][s], best[t - seconds][s - tokens] + profit);
    }
    knapsack.solve(items, T, S, 0.0, 1 << 22);
    longest = std::max(longest, knapsack.work());
    CHECK(knapsack.profit() <= best[T][S] + 1e-9);
    CHECK(knapsack.upper_bound() >= best[T][S] - 1e-9);
    CHECK(knapsack.profit() >= 0.995 * best[T][S]);  // small items are completed with a limited search
    CHECK(knapsack.upper_bound() <= 1.02 * best[T][S]);
    knapsack.solve(items, T, S, 1.001 * best[T][S], 1 << 22);
    CHECK(knapsack.profit() == 0.0);
  }
  CHECK(longest > 5000);  // the tables were used
}

// Seconds grow with the square of tokens, and profits are near what both cost together: the prices of the configuration LP.
// Once a large item is in, time is scarcer than before; a bound at one mixture of both does not see that.
TEST(a_large_item_among_many_small_ones_is_closed_soon) {
  Knapsack knapsack;
  int closed = 0;
  constexpr int kCases = 60;
  for (unsigned seed = 0; seed < kCases; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    const double S = 1000, T = S + S * S / (300.0 + below(900));
    std::vector<KnapsackItem> items;
    for (int i = 0; i < 140; ++i) {
      const double tokens = i < 80 ? 30 + below(i < 40 ? 700 : 100) : 2 + below(25), seconds = tokens + tokens * tokens / 600;
      const double dearer = std::max(seconds / T, 1.1 * tokens / S);
      items.push_back({dearer * (0.95 + 1e-3 * below(50)), seconds, tokens, i < 40 ? 1 : 1 + below(40), i});
    }
    knapsack.solve(items, T, S, 0.5, 20'000);
    CHECK(knapsack.upper_bound() >= knapsack.profit() && knapsack.profit() > 0.5);
    closed += knapsack.upper_bound() <= 1.002 * knapsack.profit();
  }
  CHECK(closed >= kCases * 9 / 10);
}

TEST_MAIN()
