#include "hetsp/simulator/timeline.h"

#include "support/check.h"

using namespace hetsp::simulator;

TEST(communication_is_what_no_computation_hides) {
  Timeline timeline{
      .makespan = 10.0,
      .busy = {4.0, 0.0, 3.0},
      .communication = {},
      .wait = {},
      .resource_bytes = {},
      .spans = {{0, Work::linear, 0, 0, 0.0, 2.0}, {0, Work::attention, 0, 0, 4.0, 6.0}, {2, Work::linear, 0, 1, 1.0, 4.0}},
      .transfers = {{0, 0, 1.0, 5.0, 8.0}, {0, 0, 3.0, 7.0, 8.0}, {0, 1, 2.0, 3.0, 1.0}}};
  account(timeline, {{{0, 1}, {2}}});
  CHECK_NEAR(timeline.communication[0], 3.0, 1e-12);  // 2..4 and 6..7
  CHECK_NEAR(timeline.wait[0], 3.0, 1e-12);
  CHECK_NEAR(timeline.communication[1], 6.0, 1e-12);  // 1..7, overlapping messages once
  CHECK_NEAR(timeline.wait[1], 4.0, 1e-12);
  CHECK_EQ(timeline.communication[2], 0.0);  // hidden
  CHECK_NEAR(timeline.wait[2], 7.0, 1e-12);
}

TEST_MAIN()
