#include "hetsp/simulator/event_loop.h"

#include <numeric>

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::simulator;

namespace {

const Machine kMachine{4, 2, {.intra_node = {100.0, 0.0}, .inter_node = {10.0, 0.0}, .nics_per_node = 1}};

Bundle message(int from, int to, double bytes) {
  const Machine::Direction out = Machine::out, in = Machine::in;
  return {.bytes = bytes,
          .start_seconds = 0.0,
          .uses = {{kMachine.nic_link(kMachine.node(from), 0, out), 1.0}, {kMachine.nic_link(kMachine.node(to), 0, in), 1.0}}};
}

}  // namespace

TEST(a_rank_computes_one_task_at_a_time_in_order) {
  TaskGraph graph;
  graph.compute(0, 1.0, Work::linear, 0, 0);
  graph.compute(0, 2.0, Work::attention, 0, 0);
  graph.compute(1, 5.0, Work::linear, 0, 0);
  const Timeline timeline = run(kMachine, graph, true);
  CHECK_EQ(timeline.makespan, 5.0);
  CHECK_EQ(timeline.busy[0], 3.0);
  CHECK_EQ(timeline.spans[0].end, 1.0);
  CHECK(timeline.spans[1].work == Work::attention && timeline.spans[1].begin == 1.0);
}

TEST(of_the_ready_tasks_the_first_is_taken_and_none_is_interrupted) {
  TaskGraph graph;
  const int start = graph.compute(1, 1.0, Work::linear, 0, 0);
  const int late = graph.compute(0, 1.0, Work::attention, 0, 0);  // ready at 1
  graph.compute(0, 3.0, Work::linear, 0, 1);                      // ready at 0
  graph.compute(0, 1.0, Work::fixed, 0, 2);                       // ready at 0
  graph.before(start, late);
  const Timeline timeline = run(kMachine, graph, true);
  CHECK_EQ(timeline.makespan, 5.0);
  CHECK(timeline.spans[1].work == Work::linear && timeline.spans[1].end == 3.0);
  CHECK(timeline.spans[2].work == Work::attention && timeline.spans[2].end == 4.0);
}

TEST(two_messages_over_one_nic_take_twice_as_long) {
  for (const bool contention : {true, false}) {
    TaskGraph graph;
    graph.transfer(message(0, 2, 20.0), 0, 0);
    graph.transfer(message(1, 3, 20.0), 0, 0);
    CHECK_NEAR(run(kMachine, graph, contention).makespan, contention ? 4.0 : 2.0, 1e-12);
  }
}

TEST(a_message_speeds_up_when_another_ends) {
  TaskGraph graph;
  graph.transfer(message(0, 2, 10.0), 0, 0);  // halved until 2 s
  graph.transfer(message(1, 3, 30.0), 0, 0);  // then the other 20 bytes alone
  const Timeline timeline = run(kMachine, graph, true);
  CHECK_NEAR(timeline.transfers[0].end, 2.0, 1e-12);
  CHECK_NEAR(timeline.makespan, 4.0, 1e-12);
  CHECK_NEAR(timeline.resource_bytes[kMachine.nic_link(0, 0, Machine::out)], 40.0, 1e-12);
  CHECK_NEAR(timeline.resource_bytes[kMachine.nic_link(1, 0, Machine::in)], 40.0, 1e-12);
  CHECK_EQ(timeline.resource_bytes[kMachine.nic_link(1, 0, Machine::out)], 0.0);
}

TEST(opposite_directions_do_not_meet) {
  TaskGraph graph;
  graph.transfer(message(0, 2, 20.0), 0, 0);
  graph.transfer(message(3, 1, 20.0), 0, 0);
  CHECK_NEAR(run(kMachine, graph, true).makespan, 2.0, 1e-12);
}

TEST(a_start_up_comes_before_the_first_byte_and_joins_pass_on_at_once) {
  TaskGraph graph;
  const int work = graph.compute(0, 1.0, Work::linear, 0, 0);
  Bundle late = message(0, 2, 10.0);
  late.start_seconds = 0.5;
  const int sent = graph.transfer(late, 0, 0);
  const int join = graph.join();
  const int empty = graph.transfer({}, 0, 0);
  const int end = graph.compute(2, 0.25, Work::fixed, 0, -1);
  graph.before(work, sent), graph.before(sent, join), graph.before(join, empty), graph.before(empty, end);
  const Timeline timeline = run(kMachine, graph, true);
  CHECK_NEAR(timeline.transfers[0].begin, 1.0, 1e-12);
  CHECK_NEAR(timeline.transfers[0].end, 2.5, 1e-12);
  CHECK_NEAR(timeline.makespan, 2.75, 1e-12);
}

TEST(a_task_cannot_wait_for_a_later_one) {
  TaskGraph graph;
  graph.join(), graph.join();
  CHECK_THROWS(BrokenInvariant, "task 1 must come before task 0", (graph.before(1, 0), 0));
  CHECK_EQ(run(kMachine, TaskGraph{}, true).makespan, 0.0);
}

TEST_MAIN()
