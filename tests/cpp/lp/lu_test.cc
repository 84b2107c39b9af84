#include "hetsp/lp/lu.h"

#include <algorithm>
#include <string>

#include "lp/matrices.h"
#include "support/check.h"

namespace {
using namespace hetsp::lp;
using namespace lp_test;
}  // namespace

TEST(both_solves_invert_both_products) {
  Lu lu;
  for (int seed = 0; seed < 300; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937_64 random(seed);
    const auto before = random_matrix(random, static_cast<int>(random() % 60), static_cast<double>(random() % 5));
    const Factors& factors = lu.factor(spans(before));
    Columns columns(before.size());  // ordered by the rows of their pivots
    for (const auto& pivot : factors.pivots) columns[pivot.row] = before[pivot.column];

    std::vector<double> x(columns.size(), 0.0);
    for (double& v : x)
      if (random() % 3 == 0) v = std::normal_distribution<double>()(random);
    auto b = times(columns, x), c = transposed_times(columns, x);
    lu.ftran(b);
    CHECK(distance(times(columns, b), times(columns, x)) < 1e-9);
    lu.btran(c);
    CHECK(distance(transposed_times(columns, c), transposed_times(columns, x)) < 1e-9);
  }
}

TEST(a_sparse_right_side_costs_little) {
  Columns identity(1000);
  for (int i = 0; i < 1000; ++i) identity[i] = {{i, 2.0}};
  for (int i = 1; i < 1000; ++i) identity[i].push_back({i - 1, 1.0});
  Lu lu;
  lu.factor(spans(identity));
  std::vector<double> b(1000, 0.0);
  b[3] = 1.0;
  const auto before = lu.work();
  lu.ftran(b);
  CHECK(lu.work() - before < 2100);  // the scan of the pivots, and four entries
  CHECK_NEAR(b[0], -1.0 / 16.0, 1e-15);
}

TEST_MAIN()
