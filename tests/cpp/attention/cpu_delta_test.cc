#include "hetsp/attention/cpu/delta.h"

#include <cmath>
#include <limits>
#include <string>

#include "attention/problem.h"
#include "hetsp/base/thread_pool.h"
#include "support/check.h"

using namespace attention_test;
using hetsp::ThreadPool;
using hetsp::attention::cpu::Isa;

namespace {

constexpr DType kTypes[] = {DType::float64, DType::float32, DType::bfloat16, DType::float16};

}  // namespace

// Rows with lse = -inf and out = 0 get 0 although dout and dlse hold NaN there.
TEST(agrees_with_the_definition_on_every_isa) {
  for (const Isa isa : cpu::supported_isas())
    for (unsigned seed = 0; seed < 60; ++seed) {
      check::context() = std::string(cpu::name(isa)) + " seed " + std::to_string(seed);
      Problem p = random_problem(seed, kTypes[seed % 4]);
      const DType acc = acc_of(p.shape.dtype), out_type = p.partial ? acc : p.shape.dtype;
      const Shape& s = p.shape;
      Result r = make_result(p, out_type, out_type, acc);
      std::mt19937 random(seed);
      r.out.fill([&] { return std::normal_distribution<double>()(random); });
      for (std::int64_t head = 0; head < s.heads; ++head)
        for (std::int64_t row = 0; row < s.total_q; ++row) {
          const auto at = static_cast<std::size_t>(head * s.total_q + row);
          const bool keyless = random() % 4 == 0;
          r.lse.set(at, keyless ? -kInf : 1.0);
          for (std::int64_t i = 0; i < s.head_dim_v && keyless; ++i) r.out.set(row, head, i, 0), p.dout.set(row, head, i, kNan);
          if (keyless) p.dlse.set(at, kNan);
        }
      ThreadPool pool(1 + static_cast<int>(seed % 3));
      cpu::delta(delta_params(backward_params(p, r)), pool, isa);
      for (std::int64_t head = 0; head < s.heads; ++head)
        for (std::int64_t row = 0; row < s.total_q; ++row) {
          const auto at = static_cast<std::size_t>(head * s.total_q + row);
          double wanted = 0, size = 0;
          for (std::int64_t i = 0; i < s.head_dim_v; ++i) {
            const double term = r.out.get(row, head, i) == 0 ? 0 : r.out.get(row, head, i) * p.dout.get(row, head, i);
            wanted += term, size += std::abs(term);
          }
          if (p.with_dlse && r.lse.get(at) != -kInf) wanted -= p.dlse.get(at), size += std::abs(p.dlse.get(at));
          // Rounded before and after dlse; sums of up to 33 terms in double.
          const double unit = acc == DType::float64 ? 34 * 0x1p-52 : 2 * 0x1p-24;
          CHECK_NEAR(r.delta.get(at), wanted, size * unit);
        }
    }
}

TEST_MAIN()
