#include "hetsp/attention/cpu/backward.h"

#include "attention/levels.h"
#include "attention/reference.h"
#include "hetsp/attention/cpu/backward_schedule.h"
#include "hetsp/attention/cpu/forward.h"
#include "hetsp/base/thread_pool.h"
#include "support/check.h"

using namespace attention_test;
using hetsp::ThreadPool;
using levels::Kernels;

namespace {

constexpr DType kTypes[] = {DType::float64, DType::float32, DType::bfloat16, DType::float16};

// Twice the norm-wise error of the plain maths in the accumulate type, and a floor: rows of few keys cancel in dp - delta,
// for everyone. With 16-bit inputs out is rounded before the backward reads it, as in training; the products of bfloat16 pairs
// round weights and their gradients, too, and so are no better where out is not rounded.
double allowed(const Problem& p, const Kernels& kernels, double error_of_plain_maths) {
  const bool pairs = kernels.multiply_pairs(p.shape.dtype);
  const DType type = p.partial && !pairs ? acc_of(p.shape.dtype) : p.shape.dtype;
  const double floor = type == DType::float64 ? 1e-13 : type == DType::float32 ? 5e-7 : type == DType::bfloat16 ? 1e-2 : 2e-3;
  return 2 * error_of_plain_maths + floor;
}

// dsink is judged by the out and dout that the backward works with: it is a sum over all rows, and may cancel to less than
// what their rounding to 16 bits changes in it.
void take_dsink_from(const Problem& p, const Kernels& kernels, const Result& given, Result& expected) {
  const bool pairs = kernels.multiply_pairs(p.shape.dtype);
  for (std::int64_t head = 0; head < p.shape.heads && p.with_sink; ++head) {
    const auto at = static_cast<std::size_t>(head);
    double sum = 0;
    for (std::int64_t row = 0; row < p.shape.total_q; ++row) {
      const auto statistic = static_cast<std::size_t>(head * p.shape.total_q + row);
      double delta = p.with_dlse ? -p.dlse.get(statistic) : 0;
      for (std::int64_t i = 0; i < p.shape.head_dim_v; ++i) {
        const double dout = p.dout.get(row, head, i);
        const float packed = to_float(hetsp::attention::to_bfloat16(static_cast<float>(dout)));
        delta += given.out.get(row, head, i) * (pairs ? static_cast<double>(packed) : dout);
      }
      sum -= std::exp(p.sink.get(at) - expected.lse.get(statistic)) * delta;
    }
    expected.dsink.set(at, sum);
  }
}

Result run(const Problem& p, int workers, const Kernels& kernels = Kernels(cpu::best_isa())) {
  const DType acc = acc_of(p.shape.dtype), out = p.partial ? acc : p.shape.dtype;
  Result r = make_result(p, out, out, acc);
  ThreadPool pool(workers);
  kernels.forward(forward_params(p, r), pool);
  kernels.backward(backward_params(p, r), pool);
  return r;
}

template <class Body>
void for_each_level_and_type(const Body& body) {
  for (const DType type : {DType::float32, DType::bfloat16})
    for (const Kernels& kernels : levels::kernels(type)) {
      check::context() = kernels.name() + (type == DType::float32 ? " float32" : " bfloat16");
      body(kernels, type);
    }
}

}  // namespace

TEST(agrees_with_the_definition_on_every_level) {
  for (unsigned seed = 0; seed < 120; ++seed) {
    const DType type = kTypes[seed % 4];
    const Problem p = random_problem(seed, type);
    Result expected = reference(p);
    const Result plain = type == DType::float64 ? reference(p) : reference<float>(p);
    for (const Kernels& kernels : levels::kernels(type)) {
      check::context() = kernels.name() + " seed " + std::to_string(seed);
      const Result r = run(p, 1, kernels);
      CHECK_NEAR(relative_error(r.dq, expected.dq), 0, allowed(p, kernels, relative_error(plain.dq, expected.dq)));
      CHECK_NEAR(relative_error(r.dk, expected.dk), 0, allowed(p, kernels, relative_error(plain.dk, expected.dk)));
      CHECK_NEAR(relative_error(r.dv, expected.dv), 0, allowed(p, kernels, relative_error(plain.dv, expected.dv)));
      if (type != DType::float64) take_dsink_from(p, kernels, r, expected);
      CHECK_NEAR(relative_error(r.dsink, expected.dsink), 0, allowed(p, kernels, relative_error(plain.dsink, expected.dsink)));
    }
  }
}

TEST(worker_counts_agree_bitwise) {
  for (unsigned seed = 200; seed < 220; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Problem p = random_problem(seed, seed % 2 == 0 ? DType::float32 : DType::bfloat16);
    const Result one = run(p, 1), three = run(p, 3);
    CHECK(one.dq.buffer().same_bits(three.dq.buffer()));
    CHECK(one.dk.buffer().same_bits(three.dk.buffer()));
    CHECK(one.dv.buffer().same_bits(three.dv.buffer()));
    CHECK(one.dsink.same_bits(three.dsink));
  }
}

// Long enough to be cut into ranges whose slabs are added, beside a document that is not.
TEST(ranges_of_one_component_are_added) {
  const Segment segments[] = {{0, 1200, 0, 1300, 0, 0, -1, -1}, {1210, 1240, 1300, 1340, 10, 0, -1, 0}};
  std::mt19937 random(8);
  const Problem p = make_problem({1240, 1345, 6, 1, 3, 2, DType::float32}, {0.6, 0.0}, {segments[0], segments[1]}, random);
  const auto schedule = cpu::backward_schedule(segments, 2, 1240, 1345, 6, 1, cpu::kTile);
  CHECK(!schedule.splits.empty() && schedule.splits[0].ranges_end == 2);
  const Result expected = reference(p), plain = reference<float>(p), one = run(p, 1), three = run(p, 3);
  CHECK_NEAR(relative_error(one.dq, expected.dq), 0,
             allowed(p, Kernels(cpu::best_isa()), relative_error(plain.dq, expected.dq)));
  CHECK_NEAR(relative_error(one.dk, expected.dk), 0,
             allowed(p, Kernels(cpu::best_isa()), relative_error(plain.dk, expected.dk)));
  CHECK_NEAR(relative_error(one.dv, expected.dv), 0,
             allowed(p, Kernels(cpu::best_isa()), relative_error(plain.dv, expected.dv)));
  CHECK(one.dq.buffer().same_bits(three.dq.buffer()));
  CHECK(one.dk.buffer().same_bits(three.dk.buffer()));
  CHECK(one.dv.buffer().same_bits(three.dv.buffer()));
}

TEST(a_given_delta_is_taken_as_it_is) {
  for (unsigned seed = 300; seed < 320; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Problem p = random_problem(seed, kTypes[seed % 4]);
    const Result computed = run(p, 1);
    Result given = run(p, 1);
    given.out.fill([] { return kNan; });
    for (Rows* gradient : {&given.dq, &given.dk, &given.dv}) gradient->fill([] { return kNan; });
    BackwardParams params = backward_params(p, given);
    params.fill_delta = nullptr, params.dlse = nullptr;
    ThreadPool pool(1);
    cpu::backward(params, pool);
    CHECK(given.delta.same_bits(computed.delta));
    CHECK(given.dq.buffer().same_bits(computed.dq.buffer()));
    CHECK(given.dk.buffer().same_bits(computed.dk.buffer()));
    CHECK(given.dv.buffer().same_bits(computed.dv.buffer()));
    CHECK(given.dsink.same_bits(computed.dsink));
  }
}

// Row 25 of a causal document of 40 holds NaN in q and dout: keys after it must not hear of it. Nor may anything hear of
// the NaN in rows outside all segments.
TEST(what_a_key_is_not_seen_by_cannot_reach_it) {
  for_each_level_and_type([](const Kernels& kernels, DType type) {
    std::mt19937 random(6);
    Problem p = make_problem({42, 42, 1, 1, 8, 8, type}, {0.5, 0.0}, {{0, 40, 0, 40, 0, 0, -1, 0}}, random);
    p.with_seed = p.with_dlse = false, p.with_sink = true;
    Result r = run(p, 1, kernels);
    for (std::int64_t i = 0; i < 8; ++i)
      for (const std::int64_t row : {25, 40, 41}) {
        p.dout.set(row, 0, i, kNan), p.q.set(row, 0, i, kNan);
        if (row >= 40) p.k.set(row, 0, i, kNan), p.v.set(row, 0, i, kNan);
      }
    ThreadPool pool(1);
    kernels.backward(backward_params(p, r), pool);
    for (std::int64_t token = 0; token < 42; ++token) {
      CHECK_EQ(std::isnan(r.dq.get(token, 0, 0)), token == 25);
      CHECK_EQ(std::isnan(r.dk.get(token, 0, 0)), token <= 25);
      CHECK_EQ(std::isnan(r.dv.get(token, 0, 0)), token <= 25);
    }
    CHECK_EQ(r.dq.get(41, 0, 0), 0.0);
    CHECK_EQ(r.dk.get(41, 0, 0), 0.0);
  });
}

// NaN in the last key of a causal document: only the last row may hear of it.
TEST(what_a_row_does_not_see_cannot_reach_its_gradient) {
  for_each_level_and_type([](const Kernels& kernels, DType type) {
    std::mt19937 random(7);
    Problem p = make_problem({40, 40, 1, 1, 8, 8, type}, {0.5, 0.0}, {{0, 40, 0, 40, 0, 0, -1, 0}}, random);
    p.with_seed = p.with_sink = false;
    for (std::int64_t i = 0; i < 8; ++i) p.k.set(39, 0, i, kNan), p.v.set(39, 0, i, kNan);
    const Result r = run(p, 1, kernels);
    for (std::int64_t token = 0; token < 40; ++token) CHECK_EQ(std::isnan(r.dq.get(token, 0, 0)), token == 39);
  });
}

TEST_MAIN()
