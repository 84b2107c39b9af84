// The CPU kernels on random cases, every instruction set against the same truth, element by element. Buffers end with their
// last element (AddressSanitizer sees the next one), gaps between rows hold NaN and must keep it, strides may be negative or 0.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "attention/attention_call.h"
#include "attention/attention_case.h"
#include "attention/attention_truth.h"
#include "attention/levels.h"
#include "hetsp/attention/cpu/backward.h"
#include "hetsp/attention/cpu/forward.h"
#include "hetsp/base/error.h"
#include "hetsp/base/thread_pool.h"
#include "support/check.h"

using namespace attention_case;
namespace cpu = hetsp::attention::cpu;

namespace {

// Rounding errors allowed, in units of worst_error: a key too many or too few costs 10^4 and more in float32.
constexpr double kUnits = 8;

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr unsigned kSeeds = 4;  // 10 to 20 times slower there, and it is addresses that are looked at
#else
constexpr unsigned kSeeds = 16;
#endif

class Fuzz {
 public:
  void run(DType dtype, const std::vector<Dims>& all_dims, std::int64_t most_tokens) {
    unsigned seed = 7000 + 1000 * static_cast<unsigned>(dtype);
    for (const Dims& dims : all_dims)
      for (unsigned i = 0; i < kSeeds; ++i) check_case(random_case(seed++, dtype, dims, most_tokens));
    std::printf("     %s: %zu cases, worst error %.1f of %.0f units\n", name(dtype), all_dims.size() * kSeeds, worst_, kUnits);
  }

 private:
  // All instruction sets go backward from the out and lse of the first, so that they share a truth.
  void check_case(const Case& c) {
    const Forward expected = forward(c);
    Output first = empty_output(c);
    cpu::forward(forward_params(c, first), pool_, hetsp::Isa::portable);
    const Backward gradient = backward(c, first.out, first.lse);
    for (const levels::Kernels& kernels : levels::kernels(c.shape.dtype)) {
      check::context() = kernels.name() + " " + c.label;
      // Products of bfloat16 pairs take probabilities and score gradients rounded to bfloat16; log-sum-exps do not suffer.
      const DType products = kernels.multiply_pairs(c.shape.dtype) ? DType::bfloat16 : c.acc();
      Output output = empty_output(c);
      kernels.forward(forward_params(c, output), pool_);
      check_close("out", output.out, expected.out, c.out_dtype(), products);
      check_close("lse", output.lse, expected.lse, c.acc(), c.acc());
      Gradients found = empty_gradients(c);
      const Array delta(c.acc(), c.shape.heads * c.shape.total_q);
      kernels.backward(backward_params(c, first, found, delta), pool_);
      check_close("dq", found.dq, gradient.dq, c.grad_dtype(), products);
      check_close("dk", found.dk, gradient.dk, c.grad_dtype(), products);
      check_close("dv", found.dv, gradient.dv, c.grad_dtype(), products);
      // A float32 dout is rounded once, for all that is made of it: D, too, of which dsink is a sum.
      if (c.has_sink) check_close("dsink", found.dsink, gradient.dsink, c.acc(), c.out_is_acc ? products : c.acc());
    }
  }

  void check_close(const char* what, const Array& actual, const std::vector<Sum>& expected, DType dtype, DType products) {
    const double worst = worst_error(actual.values(), expected, dtype, products);
    worst_ = std::max(worst_, worst);
    if (worst > kUnits) check::fail(__FILE__, __LINE__, hetsp::concat(what, " is off by ", worst, " units"));
    if (actual.strays() > 0) check::fail(__FILE__, __LINE__, hetsp::concat(what, " was written between its rows"));
  }

  hetsp::ThreadPool pool_{3};
  double worst_ = 0;
};

}  // namespace

TEST(random_float32) { Fuzz().run(DType::float32, {{64, 64}, {17, 40}, {80, 64}, {128, 128}, {1, 1}}, 150); }
TEST(random_float64) { Fuzz().run(DType::float64, {{64, 64}, {40, 17}, {96, 128}}, 150); }
TEST(random_bfloat16) { Fuzz().run(DType::bfloat16, {{64, 64}, {72, 72}, {128, 128}, {17, 5}}, 150); }
TEST(random_float16) { Fuzz().run(DType::float16, {{64, 64}, {16, 32}}, 150); }
TEST(random_wide_heads) {
  Fuzz().run(DType::float32, {{256, 256}, {192, 128}}, 66);
  Fuzz().run(DType::bfloat16, {{256, 256}, {192, 128}}, 66);
}

TEST_MAIN()
