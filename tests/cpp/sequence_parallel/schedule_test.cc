#include "hetsp/sequence_parallel/schedule.h"

#include "hetsp/base/error.h"
#include "sequence_parallel/plans.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::sequence_parallel;

namespace {

Layout ring_of(int ranks, std::int64_t tokens) {
  return make_layout(plans::plan(ranks, {tokens}, {{{plans::group({0}, plans::first_ranks(ranks))}}}), 0);
}

std::string kinds(const std::vector<Step>& steps) {
  std::string text;
  for (const auto& step : steps) text += "ASR+"[static_cast<int>(step.kind)];
  return text;
}

}  // namespace

TEST(local_work_needs_no_message) {
  const auto schedule = make_schedule(ring_of(1, 10), Rank(0), {});
  CHECK_EQ(kinds(schedule.forward), "A");
  CHECK_EQ(kinds(schedule.backward), "A");
  CHECK_EQ(schedule.visible_pairs(), 55);
}

TEST(messages_go_out_before_the_work_that_hides_them) {
  const auto schedule = make_schedule(ring_of(3, 60), Rank(1), {});
  CHECK_EQ(kinds(schedule.forward), "SRASRAA");                   // keys of hops 1 and 2
  CHECK_EQ(kinds(schedule.backward), "SRASRSRA+SRA+SR+");         // and gradients one hop behind, the last one home
  CHECK_EQ(schedule.backward[3].peer.value(), 2);
  CHECK_EQ(schedule.backward[4].peer.value(), 0);
}

TEST(a_rank_without_tokens_only_passes_on) {
  const auto schedule = make_schedule(ring_of(3, 1), Rank(0), {});  // cuts 0 0 0 0 0 0 1: all on rank 0
  CHECK_EQ(schedule.visible_pairs(), 1);
  CHECK_EQ(make_schedule(ring_of(3, 1), Rank(1), {}).visible_pairs(), 0);
}

TEST(a_window_drops_segments_and_keeps_the_pairs) {
  const Window window{5, 0};
  std::int64_t pairs = 0;
  for (int rank = 0; rank < 4; ++rank) pairs += make_schedule(ring_of(4, 97), Rank(rank), window).visible_pairs();
  CHECK_EQ(pairs, attention::visible_pairs({0, 97, 0, 97, 0, 0, 5, 0}));
}

TEST(zigzag_balances_the_executed_pairs) {
  for (int ranks : {2, 3, 5, 8}) {
    const Layout layout = ring_of(ranks, 16384);
    const double mean = 16384.0 * 16385 / 2 / ranks;
    for (int rank = 0; rank < ranks; ++rank)
      CHECK_NEAR(static_cast<double>(make_schedule(layout, Rank(rank), {}).visible_pairs()) / mean, 1.0, 1e-3);
  }
}

TEST(bad_values_are_named) {
  CHECK_THROWS(InvalidArgument, "rank 3 of 3", make_schedule(ring_of(3, 9), Rank(3), {}));
  CHECK_THROWS(InvalidArgument, "window (-2, 0)", make_schedule(ring_of(3, 9), Rank(0), {-2, 0}));
}

TEST_MAIN()
