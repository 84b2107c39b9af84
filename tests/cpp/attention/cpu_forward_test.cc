#include "attention/levels.h"
#include "attention/reference.h"
#include "hetsp/attention/cpu/forward.h"
#include "hetsp/base/thread_pool.h"
#include "support/check.h"

using namespace attention_test;
using hetsp::ThreadPool;
using levels::Kernels;

namespace {

constexpr DType kTypes[] = {DType::float64, DType::float32, DType::bfloat16, DType::float16};

// Norm-wise; the 16-bit types are bounded by the rounding of the output (2^-9 and 2^-12 per element).
double tolerance(DType type) {
  return type == DType::float64 ? 1e-14 : type == DType::float32 ? 1e-6 : type == DType::bfloat16 ? 4e-3 : 5e-4;
}

// The products of bfloat16 pairs round the weights too: a partial result is then no better than one rounded once.
DType type_of_errors(const Problem& p, const Kernels& kernels) {
  const bool pairs = kernels.multiply_pairs(p.shape.dtype);
  return p.partial && !pairs ? acc_of(p.shape.dtype) : p.shape.dtype;
}

Result run(const Problem& p, int workers, const Kernels& kernels = Kernels(cpu::best_isa())) {
  const DType acc = acc_of(p.shape.dtype), out = p.partial ? acc : p.shape.dtype;
  Result r = make_result(p, out, out, acc);
  ThreadPool pool(workers);
  kernels.forward(forward_params(p, r), pool);
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
  for (unsigned seed = 0; seed < 160; ++seed) {
    const DType type = kTypes[seed % 4];
    const Problem p = random_problem(seed, type);
    const Result expected = reference(p);
    for (const Kernels& kernels : levels::kernels(type)) {
      check::context() = kernels.name() + " seed " + std::to_string(seed);
      const Result r = run(p, 1, kernels);
      CHECK_NEAR(relative_error(r.out, expected.out), 0, tolerance(type_of_errors(p, kernels)));
      CHECK_NEAR(relative_error(r.lse, expected.lse), 0, tolerance(acc_of(type)));
    }
  }
}

TEST(worker_counts_agree_bitwise) {
  for (unsigned seed = 200; seed < 220; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Problem p = random_problem(seed, seed % 2 == 0 ? DType::float32 : DType::bfloat16);
    const Result one = run(p, 1), three = run(p, 3);
    CHECK(one.out.buffer().same_bits(three.out.buffer()));
    CHECK(one.lse.same_bits(three.lse));
  }
}

// Two sequences of 70 and 130 tokens; the second alone must have the bits that it has in the batch.
TEST(a_sequence_alone_equals_itself_in_a_batch) {
  for_each_level_and_type([](const Kernels& kernels, DType type) {
    std::mt19937 random(3);
    const Shape shape{200, 200, 2, 1, 24, 24, type};
    Problem batch = make_problem(shape, {0.2, 0.0}, {{0, 70, 0, 70, 0, 0, -1, 0}, {70, 200, 70, 200, 0, 0, -1, 0}}, random);
    Shape alone_shape = shape;
    alone_shape.total_q = alone_shape.total_k = 130;
    Problem alone = make_problem(alone_shape, {0.2, 0.0}, {{0, 130, 0, 130, 0, 0, -1, 0}}, random);
    for (Problem* p : {&batch, &alone}) p->with_seed = p->with_sink = false, p->partial = true;
    for (std::int64_t token = 0; token < 130; ++token)
      for (std::int64_t i = 0; i < 24; ++i) {
        for (std::int64_t head = 0; head < 2; ++head) alone.q.set(token, head, i, batch.q.get(70 + token, head, i));
        alone.k.set(token, 0, i, batch.k.get(70 + token, 0, i)), alone.v.set(token, 0, i, batch.v.get(70 + token, 0, i));
      }
    const Result in_batch = run(batch, 2, kernels), by_itself = run(alone, 1, kernels);
    for (std::int64_t token = 0; token < 130; ++token)
      for (std::int64_t head = 0; head < 2; ++head)
        for (std::int64_t i = 0; i < 24; ++i)
          CHECK_EQ(by_itself.out.get(token, head, i), in_batch.out.get(70 + token, head, i));
  });
}

// NaN in the gap between two documents, in a future key of the same document, and in a row that nobody reads.
TEST(what_a_row_does_not_see_cannot_reach_it) {
  for_each_level_and_type([](const Kernels& kernels, DType type) {
    std::mt19937 random(4);
    Problem p = make_problem({60, 62, 1, 1, 8, 8, type}, {0.5, 0.0},
                             {{0, 30, 0, 30, 0, 0, -1, 0}, {31, 60, 32, 61, 0, 0, -1, 0}}, random);
    p.with_seed = p.with_sink = false;
    for (std::int64_t i = 0; i < 8; ++i) {
      for (const std::int64_t key : {30, 31, 61, 20}) p.k.set(key, 0, i, kNan), p.v.set(key, 0, i, key == 20 ? kInf : kNan);
      p.q.set(30, 0, i, kNan);
    }
    const Result r = run(p, 1, kernels);
    for (std::int64_t token = 0; token < 60; ++token) {
      const bool sees_nan = 20 <= token && token < 30;
      CHECK_EQ(std::isnan(r.out.get(token, 0, 0)), sees_nan);
      CHECK_EQ(std::isnan(r.lse.get(static_cast<std::size_t>(token))), sees_nan);
    }
    CHECK_EQ(r.out.get(30, 0, 0), 0.0);
    CHECK_EQ(r.lse.get(30), -kInf);
  });
}

// Scores far below -1e5 and a first tile that is hidden: a finite stand-in for -inf would win over them.
TEST(very_negative_scores_survive) {
  std::mt19937 random(5);
  Problem p = make_problem({1, 130, 1, 1, 1, 1, DType::float32}, {1.0, 0.0}, {{0, 1, 0, 130, 129, 0, 40, 0}}, random);
  p.with_seed = p.with_sink = false, p.partial = true;
  p.q.set(0, 0, 0, -1e4);
  for (std::int64_t key = 0; key < 130; ++key) p.k.set(key, 0, 0, 100.0 + 1e-4 * static_cast<double>(key % 7));
  const Result expected = reference(p), r = run(p, 1);
  CHECK_NEAR(r.lse.get(0), expected.lse.get(0), 0.5);
  CHECK_NEAR(r.out.get(0, 0, 0), expected.out.get(0, 0, 0), 0.1);
}

TEST_MAIN()
