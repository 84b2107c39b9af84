// Pieces of a problem's keys against the definition in float64, and bit by bit against a loop of seeded forwards.
#include "hetsp/attention/cpu/pieces.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "attention/pieces_case.h"
#include "attention/reference.h"
#include "hetsp/attention/cpu/forward.h"
#include "hetsp/attention/validate.h"
#include "hetsp/base/error.h"
#include "hetsp/base/thread_pool.h"
#include "support/check.h"

using namespace attention_test;
using hetsp::InvalidArgument;
using hetsp::ThreadPool;

namespace {

constexpr DType kTypes[] = {DType::float64, DType::float32, DType::bfloat16, DType::float16};
constexpr std::int64_t kSecond = 1'000'000'000;

Result result_of(const Problem& p) {
  const DType acc = acc_of(p.shape.dtype), out = p.partial ? acc : p.shape.dtype;
  return make_result(p, out, out, acc);
}

PiecesParams params_of(const Problem& p, const Result& r, const Pieces& pieces) {
  return {forward_params(p, r), pieces.list.data(), static_cast<int>(pieces.list.size()), kSecond, nullptr};
}

bool any_pair(const std::vector<Segment>& segments) {
  return std::any_of(segments.begin(), segments.end(), [](const Segment& s) { return visible_pairs(s) > 0; });
}

}  // namespace

TEST(agrees_with_the_definition_and_to_the_bit_with_a_loop_of_seeded_calls) {
  for (unsigned seed = 0; seed < 120; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const DType type = kTypes[seed % 4];
    const Problem p = random_problem(seed, type);
    std::mt19937 random(seed);
    const Pieces pieces(p, random);
    const Result r = result_of(p), looped = result_of(p), expected = reference(p);
    const PiecesParams params = params_of(p, r, pieces), loop = params_of(p, looped, pieces);
    validate(params);
    ThreadPool pool(static_cast<int>(1 + seed % 2));
    cpu::forward(params, pool);
    // The bound of one call, and a rounding of the accumulate type more for each link.
    const double rounding = type == DType::float64   ? 1e-14
                            : type == DType::float32 ? 1e-6
                            : type == DType::float16 ? 5e-4
                                                     : 4e-3;
    CHECK_NEAR(relative_error(r.out, expected.out), 0, rounding);
    CHECK_NEAR(relative_error(r.lse, expected.lse), 0, acc_of(type) == DType::float64 ? 1e-14 : 1e-6);

    const Rows between(acc_of(type), p.shape.total_q, p.shape.heads, p.shape.head_dim_v);
    for (int i = 0; i < loop.count; ++i) {
      const std::vector<Segment> cut = pieces.segments(p, i);
      if (may_pass_over(loop, i) && !any_pair(cut)) continue;
      cpu::forward(link_of(loop, i, cut.data(), between.view()), pool);
    }
    CHECK(r.out.buffer().same_bits(looped.out.buffer()));
    CHECK(r.lse.same_bits(looped.lse));
  }
}

TEST(waits_for_the_flags_and_reads_no_piece_before) {
  const Problem p = random_problem(7, DType::float32);
  std::mt19937 random(7);
  Pieces pieces(p, random, 5);
  const Result expected = result_of(p), r = result_of(p);
  ThreadPool pool(2);
  cpu::forward(params_of(p, expected, pieces), pool);
  std::vector<std::uint32_t> flags(pieces.list.size(), 0xfffffffeu);
  pieces.wait_for(flags.data(), 1);  // beyond the wrap
  pieces.hide();
  std::thread sender([&] {
    for (std::size_t i = pieces.list.size(); i-- > 0;) {  // the last first
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
      pieces.show(i);
      std::atomic_ref<std::uint32_t>(flags[i]).store(1, std::memory_order_release);
    }
  });
  std::int32_t late = 77;
  PiecesParams params = params_of(p, r, pieces);
  params.late = &late, params.patience_ns = 60 * kSecond;
  cpu::forward(params, pool);
  sender.join();
  CHECK_EQ(late, 0);
  CHECK(r.out.buffer().same_bits(expected.out.buffer()));
  CHECK(r.lse.same_bits(expected.lse));
}

TEST(a_piece_that_does_not_come_is_an_error_that_names_it) {
  const Problem p = random_problem(7, DType::float32);
  std::mt19937 random(7);
  Pieces pieces(p, random, 3);
  const Result r = result_of(p);
  std::vector<std::uint32_t> flags(pieces.list.size(), 9);
  pieces.list[1].ready = &flags[1], pieces.list[1].epoch = 11;
  PiecesParams params = params_of(p, r, pieces);
  params.patience_ns = 1000;
  ThreadPool pool(1);
  CHECK_THROWS(NotArrived, "piece 1 of the keys did not arrive within 1e-06 s: its flag is 9, must reach 11",
               cpu::forward(params, pool));
  flags[1] = 11;
  cpu::forward(params, pool);
}

// Nobody would read it.
TEST(a_piece_that_no_row_sees_is_not_waited_for) {
  std::mt19937 random(1);
  Problem p = make_problem({20, 60, 1, 1, 8, 8, DType::float32}, {0.3, 0.0},
                           {{0, 20, 0, 20, 0, 0, -1, 0}, {0, 20, 40, 60, 40, 0, -1, 0}}, random);
  Pieces pieces(p, std::vector<std::int64_t>{20, 20, 20});
  const std::uint32_t never = 0;
  pieces.list[1].ready = &never, pieces.list[1].epoch = 1;
  const Result r = result_of(p), expected = reference(p);
  PiecesParams params = params_of(p, r, pieces);
  params.patience_ns = 0;
  ThreadPool pool(1);
  cpu::forward(params, pool);
  CHECK_NEAR(relative_error(r.out, expected.out), 0, 1e-6);
}

TEST(what_no_call_can_have_is_refused) {
  const Problem p = random_problem(7, DType::float32);
  std::mt19937 random(7);
  const Pieces pieces(p, random, 2);
  const Result r = result_of(p);
  PiecesParams params = params_of(p, r, pieces);
  params.count = 0;
  CHECK_THROWS(InvalidArgument, "there are 0 pieces of keys, must be 1 to 16", validate(params));
  params.count = 17;
  CHECK_THROWS(InvalidArgument, "there are 17 pieces of keys, must be 1 to 16", validate(params));
  params.count = 2, params.patience_ns = -1;
  CHECK_THROWS(InvalidArgument, "patience is -1 ns, must be >= 0", validate(params));
}

TEST_MAIN()
