#include "attention/problem.h"
#include "hetsp/attention/cpu/merge.h"
#include "hetsp/base/thread_pool.h"
#include "support/check.h"

using namespace attention_test;

namespace {

// Three parts of which the second is empty in every fourth row, merged from the left and from the right.
void check_type(DType type, double tolerance) {
  std::mt19937 random(9);
  std::normal_distribution<double> normal;
  const std::int64_t rows = 300, heads = 3, dim = 5;
  Rows out[2] = {Rows(type, rows, heads, dim, true), Rows(type, rows, heads, dim)};
  Buffer lse[2] = {Buffer(type, rows * heads), Buffer(type, rows * heads)};
  for (int part = 0; part < 2; ++part) {
    out[part].fill([&] { return normal(random); });
    for (std::size_t i = 0; i < lse[part].count(); ++i)
      lse[part].set(i, random() % 4 == 0 ? -kInf : 30 * normal(random) - (i % 2 ? 1000.0 : 0.0));
  }
  out[0].set(0, 0, 0, kNan), lse[0].set(0, -kInf), lse[1].set(0, 1.0);  // out of an empty part is not read
  Rows joined(type, rows, heads, dim);
  Buffer joined_lse(type, rows * heads);
  hetsp::ThreadPool pool(2);
  cpu::merge({rows, heads, dim, type == DType::float64, out[0].const_view(), out[1].const_view(), lse[0].data(), lse[1].data(),
              joined.view(), joined_lse.data()},
             pool);
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t head = 0; head < heads; ++head) {
      const auto at = static_cast<std::size_t>(head * rows + row);
      const double a = lse[0].get(at), b = lse[1].get(at), top = std::max(a, b);
      const double both = top == -kInf ? -kInf : top + std::log(std::exp(a - top) + std::exp(b - top));
      CHECK_NEAR(joined_lse.get(at), both, tolerance * std::max(1.0, std::abs(both)));
      for (std::int64_t i = 0; i < dim; ++i) {
        double wanted = 0;
        if (a != -kInf) wanted += std::exp(a - both) * out[0].get(row, head, i);
        if (b != -kInf) wanted += std::exp(b - both) * out[1].get(row, head, i);
        CHECK_NEAR(joined.get(row, head, i), wanted, tolerance * 4);
      }
    }
}

}  // namespace

TEST(float64_matches_the_formula) { check_type(DType::float64, 1e-13); }
TEST(float32_matches_the_formula) { check_type(DType::float32, 2e-7); }

TEST_MAIN()
