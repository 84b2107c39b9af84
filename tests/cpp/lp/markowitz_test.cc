#include "hetsp/lp/markowitz.h"

#include <algorithm>
#include <string>

#include "lp/matrices.h"
#include "support/check.h"

namespace {

using namespace hetsp::lp;
using lp_test::Columns;

// L U as a dense matrix, by the definition: row r of the pivot k is its row of U plus the multipliers of the pivots before.
std::vector<std::vector<double>> product(const Factors& f, std::size_t size) {
  std::vector<std::vector<double>> matrix(size, std::vector<double>(size, 0.0));
  for (std::size_t k = 0; k < f.pivots.size(); ++k) {
    const auto add = [&](std::int32_t row, double multiplier) {
      matrix[row][f.pivots[k].column] += multiplier * f.pivots[k].value;
      for (auto e = f.upper[k].begin; e < f.upper[k].end; ++e)
        matrix[row][f.upper_entries[e].index] += multiplier * f.upper_entries[e].value;
    };
    add(f.pivots[k].row, 1.0);
    for (auto e = f.lower[k].begin; e < f.lower[k].end; ++e) add(f.lower_entries[e].index, f.lower_entries[e].value);
  }
  return matrix;
}

void check_product(const Columns& columns, const Factors& f) {
  auto expected = columns;
  for (const auto& r : f.replaced) expected[r.column] = {{r.row, r.value}};
  const auto matrix = product(f, columns.size());
  for (std::size_t c = 0; c < columns.size(); ++c) {
    std::vector<double> dense(columns.size(), 0.0);
    for (const Entry& e : expected[c]) dense[e.index] = e.value;
    for (std::size_t r = 0; r < columns.size(); ++r) CHECK_NEAR(matrix[r][c], dense[r], 1e-10);
  }
}

}  // namespace

TEST(the_factors_multiply_to_the_matrix) {
  Markowitz markowitz;
  Factors factors;
  for (int seed = 0; seed < 300; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937_64 random(seed);
    const auto columns = lp_test::random_matrix(random, static_cast<int>(random() % 30), static_cast<double>(random() % 6));
    markowitz.eliminate(lp_test::spans(columns), factors);
    CHECK_EQ(factors.pivots.size(), columns.size());
    CHECK(factors.replaced.empty());
    for (const Entry& e : factors.lower_entries) CHECK(std::abs(e.value) <= 10.0 + 1e-12);
    check_product(columns, factors);
  }
}

TEST(a_permuted_triangle_has_no_fill) {
  std::mt19937_64 random(3);
  Columns columns(40);
  std::vector<std::int32_t> rows(40);
  for (int i = 0; i < 40; ++i) rows[i] = i;
  std::shuffle(rows.begin(), rows.end(), random);
  std::size_t entries = 0;
  for (int c = 0; c < 40; ++c) {
    for (int i = 0; i <= c; ++i)
      if (i == c || random() % 3 == 0) columns[c].push_back({rows[i], 1.0 + static_cast<double>(random() % 3)});
    entries += columns[c].size();
  }
  std::shuffle(columns.begin(), columns.end(), random);
  Markowitz markowitz;
  Factors factors;
  markowitz.eliminate(lp_test::spans(columns), factors);
  CHECK_EQ(factors.lower_entries.size() + factors.upper_entries.size() + 40, entries);
  check_product(columns, factors);
}

TEST(dependent_columns_are_replaced_by_units) {
  Markowitz markowitz;
  Factors factors;
  for (int seed = 0; seed < 300; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937_64 random(seed);
    auto columns = lp_test::random_matrix(random, 2 + static_cast<int>(random() % 20), 3.0);
    const std::size_t a = random() % columns.size(), b = random() % columns.size();
    if (a == b) {
      columns[a].clear();
    } else {
      columns[a] = columns[b];
      for (Entry& e : columns[a]) e.value *= -2.0;
    }
    markowitz.eliminate(lp_test::spans(columns), factors);
    CHECK_EQ(factors.replaced.size(), 1u);
    check_product(columns, factors);
  }
}

TEST_MAIN()
