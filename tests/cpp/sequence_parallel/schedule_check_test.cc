#include "hetsp/sequence_parallel/schedule_check.h"

#include <functional>

#include "hetsp/base/error.h"
#include "sequence_parallel/plans.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::sequence_parallel;

namespace {

std::vector<Schedule> all_schedules(const Layout& layout, Window window) {
  std::vector<Schedule> schedules;
  for (int rank = 0; rank < layout.ranks; ++rank) schedules.push_back(make_schedule(layout, Rank(rank), window));
  return schedules;
}

// Coverage of every micro-batch, then progress of the whole step.
void check_plan(const planner::Plan& plan, Window window, std::int64_t alignment = 1) {
  std::vector<std::vector<Schedule>> by_rank(plan.ranks);
  for (int micro_batch = 0; micro_batch < static_cast<int>(plan.micro_batches.size()); ++micro_batch) {
    const Layout layout = make_layout(plan, micro_batch, alignment);
    const auto schedules = all_schedules(layout, window);
    check_coverage(layout, schedules, window);
    for (int rank = 0; rank < plan.ranks; ++rank) by_rank[rank].push_back(schedules[rank]);
  }
  std::vector<std::vector<Step>> programs;
  for (const auto& schedules : by_rank) programs.push_back(make_program(schedules));
  check_progress(programs);
}

planner::Plan ring_plan(int ranks, std::int64_t tokens, planner::Cut cut = planner::Cut::zigzag) {
  return plans::plan(ranks, {tokens}, {{{plans::group({0}, plans::first_ranks(ranks), cut)}}});
}

Layout ring_layout(int ranks, std::int64_t tokens) { return make_layout(ring_plan(ranks, tokens), 0); }

// The check must find what `damage` does to the schedules of a ring of 3.
void must_find(const char* part, const std::function<void(std::vector<Schedule>&)>& damage) {
  const Layout layout = ring_layout(3, 40);
  auto schedules = all_schedules(layout, {});
  damage(schedules);
  CHECK_THROWS(BrokenInvariant, part, ([&] {
                 check_coverage(layout, schedules, {});
                 std::vector<std::vector<Step>> programs;
                 for (const auto& schedule : schedules) programs.push_back(make_program({&schedule, 1}));
                 check_progress(programs);
                 return 0;
               }()));
}

}  // namespace

// Every length 0..4G at every degree 1..9, every cut, with and without a window: each pair once, no deadlock.
TEST(every_length_to_4G_at_every_degree) {
  for (int ranks = 1; ranks <= 9; ++ranks)
    for (std::int64_t tokens = 0; tokens <= 4 * ranks; ++tokens)
      for (auto cut : {planner::Cut::zigzag, planner::Cut::contiguous, planner::Cut::balanced})
        for (Window window : {Window{-1, 0}, Window{2, 0}, Window{-1, -1}, Window{0, 0}, Window{3, 1}}) {
          check::context() = "G " + std::to_string(ranks) + " tokens " + std::to_string(tokens);
          check_plan(ring_plan(ranks, tokens, cut), window);
        }
}

TEST(random_plans_with_many_rings_at_once) {
  for (int seed = 0; seed < 400; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    const auto plan = plans::random_plan(random);
    check_plan(plan, seed % 3 == 0 ? Window{7, 0} : Window{}, seed % 2 ? 1 : 4);
  }
}

TEST(a_missing_segment_is_found) {
  must_find("visible pairs are attended", [](auto& schedules) {
    for (auto& step : schedules[1].forward)
      if (!step.segments.empty()) step.segments.pop_back();
  });
}

TEST(one_missing_key_is_found) {
  must_find("visible pairs are attended", [](auto& schedules) {
    for (auto& step : schedules[2].backward)
      if (step.kind == StepKind::attend && step.hop == 1) --step.segments.back().k_end;
  });
}

TEST(a_pair_attended_twice_is_found) {
  must_find("twice", [](auto& schedules) {
    auto& segments = schedules[0].forward[2].segments;
    segments.push_back(segments.front());
  });
}

TEST(a_wrong_position_is_found) {
  must_find("where the layout has", [](auto& schedules) { ++schedules[0].forward[2].segments.front().q_pos0; });
}

TEST(a_lost_send_is_found) {
  must_find("is stuck at step", [](auto& schedules) {
    auto& steps = schedules[0].forward;
    steps[0].kind = StepKind::recv;  // two receives face each other
  });
}

TEST(a_swapped_order_is_found) {
  must_find("meets rank", [](auto& schedules) {
    auto& steps = schedules[1].backward;  // gradients of hop 0 overtake the keys of hop 1
    std::swap(steps[3].field, steps[5].field), std::swap(steps[3].part, steps[5].part);
  });
}

TEST(blocking_order_is_found) {
  // Each rank waits for its receive before it sends: with rendezvous sends all wait for ever.
  must_find("stuck", [](auto& schedules) {
    for (auto& schedule : schedules) {
      auto& steps = schedule.forward;
      std::swap(steps[0], steps[1]);
      steps[1].after = {0};
      steps[1].batch = 100;
    }
  });
}

TEST_MAIN()
