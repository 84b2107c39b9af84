#include "hetsp/packing/knapsack_relaxation.h"

#include <algorithm>
#include <random>
#include <string>

#include "hetsp/lp/simplex.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::packing;

// Small whole numbers, so that ties, items of nothing and exact fits are common, or lengths with quadratic seconds.
TEST(never_below_the_simplex_method_and_near_it) {
  KnapsackRelaxation relaxation;  // one object for all cases: nothing of an earlier one may remain
  int near = 0;
  constexpr int kCases = 4000;
  for (unsigned seed = 0; seed < kCases; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    const auto below = [&](int n) { return static_cast<double>(random() % static_cast<unsigned>(n)); };
    const bool lengths = seed % 2 == 0;
    const double T = lengths ? 2000 + below(2000) : below(30), S = lengths ? 1000 : below(30);
    const double t = random() % 3 == 0 ? T * 0.3 : T, s = random() % 3 == 0 ? S * 0.6 : S;
    lp::Model model;
    const int time = model.add_row(-lp::kInfinity, t), room = model.add_row(-lp::kInfinity, s);
    relaxation.clear();
    struct Item {
      double profit, seconds, tokens, count;
    };
    std::vector<Item> items;
    for (int i = 0, n = static_cast<int>(below(lengths ? 60 : 8)); i < n; ++i) {
      const double tokens = lengths ? 1 + below(500) : below(8);
      const double seconds = lengths ? tokens + tokens * tokens / 300 : below(8);
      const double profit = lengths ? (seconds / T + tokens / S) * (0.9 + 1e-3 * below(100)) : below(6);
      items.push_back({profit, seconds, tokens, below(6)});
      relaxation.add(profit, seconds, tokens, items.back().count);
      const lp::Entry uses[] = {{time, seconds}, {room, tokens}};
      model.add_column(-profit, 0.0, items.back().count, uses);
    }
    lp::Simplex simplex(model);
    CHECK(simplex.solve() == lp::Status::optimal);
    const double value = -simplex.objective();
    const double bound = relaxation.solve(T, S, t, s, 0.5, 0.0);
    CHECK(bound >= value - 1e-9 * (1 + value));
    near += bound <= value * 1.001 + 1e-9;
    // The prices give that bound.
    double sum = relaxation.per_second() * t + relaxation.per_token() * s;
    for (const Item& item : items)
      sum += item.count *
             std::max(0.0, item.profit - relaxation.per_second() * item.seconds - relaxation.per_token() * item.tokens);
    CHECK_NEAR(sum, bound, 1e-9 * (1 + bound));
    if (value > 0.0) CHECK(relaxation.solve(T, S, t, s, 0.9, 2.0 * value) >= value - 1e-9 * (1 + value));
  }
  CHECK(near >= kCases * 95 / 100);
}

TEST_MAIN()
