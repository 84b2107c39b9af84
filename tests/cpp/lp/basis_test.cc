#include "hetsp/lp/basis.h"

#include <algorithm>
#include <string>

#include "lp/matrices.h"
#include "support/check.h"

namespace {

using namespace hetsp::lp;
using namespace lp_test;

std::span<const Entry> column_of(const Columns& all, int v) { return all[v]; }

Columns basic(const Columns& all, const Basis& basis) {
  Columns columns;
  for (int p = 0; p < basis.size(); ++p) columns.push_back(all[basis.variable(p)]);
  return columns;
}

SparseVector sparse(std::vector<double> value) {
  SparseVector v;
  v.value = std::move(value);
  v.gather(0.0);
  return v;
}

}  // namespace

TEST(solves_follow_exchanges) {
  for (int seed = 0; seed < 60; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937_64 random(seed);
    const int size = 1 + static_cast<int>(random() % 40);
    Columns all = random_matrix(random, size, 2.0), more = random_matrix(random, size, 2.0);
    all.insert(all.end(), more.begin(), more.end());
    Basis basis;
    for (int i = 0; i < size; ++i) basis.extend(i);
    CHECK(!basis.factored());
    CHECK(basis.factor([&](int v) { return column_of(all, v); }).empty());
    for (int step = 0; step < 30; ++step) {
      const int entering = static_cast<int>(random() % all.size());
      SparseVector w;
      w.reset(size);
      for (const Entry& e : all[entering]) w.value[e.index] = e.value;
      basis.ftran(w);
      std::vector<double> column(static_cast<std::size_t>(size), 0.0);
      for (const Entry& e : all[entering]) column[e.index] = e.value;
      CHECK(distance(times(basic(all, basis), w.value), column) < 1e-8);
      int p = 0;
      for (int i = 0; i < size; ++i)
        if (std::abs(w.value[i]) > std::abs(w.value[p])) p = i;
      if (std::abs(w.value[p]) < 0.1) continue;
      basis.exchange(p, entering, w);
      std::vector<double> x(static_cast<std::size_t>(size), 0.0);
      for (double& v : x) v = static_cast<double>(random() % 5) - 2.0;
      auto b = sparse(times(basic(all, basis), x)), c = sparse(transposed_times(basic(all, basis), x));
      basis.ftran(b), basis.btran(c);
      CHECK(distance(b.value, x) < 1e-6);
      CHECK(distance(c.value, x) < 1e-6);
    }
  }
}

TEST(a_dependent_column_leaves_for_the_unit_of_its_row) {
  const Columns all = {{{0, 1.0}, {1, 1.0}}, {{0, 2.0}, {1, 2.0}}, {{2, 4.0}}};
  Basis basis;
  for (int i = 0; i < 3; ++i) basis.extend(i);
  const auto replaced = basis.factor([&](int v) { return column_of(all, v); });
  CHECK_EQ(replaced.size(), 1u);
  CHECK(replaced[0].left == 0 || replaced[0].left == 1);
  CHECK(replaced[0].position == 0 || replaced[0].position == 1);
  SparseVector unit = sparse({0.0, 0.0, 0.0});
  unit.value[replaced[0].position] = -3.0;
  basis.ftran(unit);
  CHECK_NEAR(unit.value[replaced[0].position], 3.0, 1e-15);  // the column -e_row
}

TEST(a_row_more_makes_the_factors_stale) {
  const Columns all = {{{0, 2.0}}, {{1, -1.0}}};
  Basis basis;
  basis.extend(0);
  basis.factor([&](int v) { return column_of(all, v); });
  CHECK(basis.factored());
  basis.extend(1);
  CHECK(!basis.factored());
  CHECK(basis.factor([&](int v) { return column_of(all, v); }).empty());
  CHECK(!basis.due());
}

TEST_MAIN()
