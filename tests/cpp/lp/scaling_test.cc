#include "hetsp/lp/scaling.h"

#include <cmath>
#include <random>

#include "support/check.h"

namespace {
using namespace hetsp::lp;

double spread(const Model& m, const Scaling& s) {
  double least = kInfinity, most = 0.0;
  for (int j = 0; j < m.columns(); ++j)
    for (const Entry& e : m.column(j)) {
      const double size = std::abs(e.value) * s.row[e.index] * s.column[j];
      least = std::min(least, size), most = std::max(most, size);
    }
  return most / least;
}
}  // namespace

TEST(factors_are_powers_of_two_that_narrow_the_matrix) {
  std::mt19937_64 random(1);
  Model m;
  std::vector<double> row_size, column_size;
  for (int i = 0; i < 20; ++i) m.add_row(0.0, 1.0), row_size.push_back(std::ldexp(1.0, static_cast<int>(random() % 30) - 15));
  for (int j = 0; j < 30; ++j) {
    const double size = std::ldexp(1.0, static_cast<int>(random() % 30) - 15);
    std::vector<Entry> entries;
    for (int i = 0; i < 20; ++i)
      if (random() % 3 == 0) entries.push_back({i, size * row_size[i] * (1.0 + 0.1 * static_cast<double>(random() % 10))});
    m.add_column(0.0, 0.0, 1.0, entries);
  }
  const Scaling s = scale(m), none{std::vector<double>(20, 1.0), std::vector<double>(30, 1.0)};
  CHECK(spread(m, none) > 1e9);
  CHECK(spread(m, s) < 50.0);
  for (const auto* factors : {&s.row, &s.column})
    for (const double factor : *factors) {
      int exponent = 0;
      CHECK(std::frexp(factor, &exponent) == 0.5);
    }
}

TEST(a_matrix_near_one_is_left_alone) {
  Model m;
  m.add_row(0.0, 1.0);
  m.add_row(0.0, 1.0);
  const Entry entries[] = {{0, 9.0}, {1, -0.2}};
  m.add_column(1e6, 0.0, 1.0, entries);
  m.add_column(1e6, 0.0, 1.0, {});
  const Scaling s = scale(m);
  CHECK(s.row[0] == 1.0 && s.row[1] == 1.0 && s.column[0] == 1.0 && s.column[1] == 1.0);
}

TEST(one_more_line_is_brought_near_one) {
  const double others[] = {1.0, 4.0};
  const Entry far[] = {{0, 4096.0}, {1, 1024.0}}, near[] = {{0, 5.0}};
  CHECK_EQ(scale_of(far, others), 1.0 / 4096.0);
  CHECK_EQ(scale_of(near, others), 1.0);
  CHECK_EQ(scale_of({}, others), 1.0);
}

TEST_MAIN()
