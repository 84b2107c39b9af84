#include "hetsp/lp/solution_check.h"

#include <limits>

#include "hetsp/base/error.h"
#include "support/check.h"

namespace {
using namespace hetsp::lp;

// minimise x + 2 y, x + y >= 2, x - y <= 1, 0 <= x <= 4, y >= 0: x = 1.5, y = 0.5, multipliers 1.5 and -0.5.
Model small() {
  Model m;
  m.add_row(2.0, kInfinity);
  m.add_row(-kInfinity, 1.0);
  const Entry x[] = {{0, 1.0}, {1, 1.0}}, y[] = {{0, 1.0}, {1, -1.0}};
  m.add_column(1.0, 0.0, 4.0, x);
  m.add_column(2.0, 0.0, kInfinity, y);
  return m;
}
}  // namespace

TEST(the_optimum_passes_and_each_damage_shows_in_its_place) {
  const Model m = small();
  const double x[] = {1.5, 0.5}, y[] = {1.5, -0.5};
  const Residuals good = check_solution(m, x, y);
  CHECK_NEAR(good.worst(), 0.0, 1e-15);
  CHECK_NEAR(good.objective, 2.5, 1e-15);

  const double outside[] = {1.0, 0.5};
  CHECK_NEAR(check_solution(m, outside, y).primal, 0.25, 1e-13);  // 1.5 of 2
  const double wrong_sign[] = {-1.0, 0.0};
  CHECK_NEAR(check_solution(m, x, wrong_sign).dual, 1.0, 1e-15);
  const double worse[] = {4.0, 3.0};  // feasible, far from both rows
  const Residuals r = check_solution(m, worse, y);
  CHECK_NEAR(r.primal, 0.0, 0.0);
  CHECK_NEAR(r.complementarity, 7.5 / 10.0, 1e-15);
  CHECK_NEAR(r.gap, 7.5 / 10.0, 1e-15);
  const double nan[] = {std::numeric_limits<double>::quiet_NaN(), 0.5};
  CHECK(check_solution(m, nan, y).primal == kInfinity);
  CHECK_THROWS(hetsp::InvalidArgument, "1 columns and 2 rows", check_solution(m, std::span(x, 1), y));
}

TEST(rays_prove_or_do_not) {
  Model m = small();
  m.upper = {0.5, 1.0};  // x + y <= 1.5 < 2
  const double proof[] = {1.0, 0.0}, none[] = {0.0, -1.0}, spoilt[] = {-1.0, 0.0};
  CHECK_NEAR(check_infeasible(m, proof), 0.5 / 3.5, 1e-15);
  CHECK(check_infeasible(m, none) < 0.0);
  CHECK(check_infeasible(m, spoilt) == -kInfinity);

  Model open = small();
  open.cost = {1.0, -2.0};
  const double down[] = {0.0, 2.0}, through_a_row[] = {0.0, -1.0}, through_a_bound[] = {1.0, 1.0};
  CHECK_NEAR(check_unbounded(open, down), 2.0, 1e-15);
  CHECK(check_unbounded(open, through_a_row) == -kInfinity);
  CHECK(check_unbounded(open, through_a_bound) == -kInfinity);
  open.cost = {1.0, 2.0};
  CHECK(check_unbounded(open, down) < 0.0);
}

TEST_MAIN()
