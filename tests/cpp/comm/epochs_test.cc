// That the judge would notice: the same network, late copies and all, is harmless to an engine that checks epochs, and ruins
// one that does not. The engine itself has no switch for that. The network plays it: on the way in, a late chunk's epoch is
// replaced by that of its pair's newest transfer, so that the check finds nothing to object to, as if it were not there.
#include <cstdio>

#include "comm/schedule.h"
#include "support/check.h"

using namespace virtual_network;

namespace {

// Twenty messages of one size, one after the other, from node to node; half of the chunks come again up to 0.8 s later. Answers
// how many were wrong.
int wrong_messages(bool forget_epochs, std::uint64_t seed) {
  GroupOptions options{
      .ranks = 2, .nics = 2, .nic_rate = 8e6, .local_rate = 2e8, .late_chunks = 0.5, .forget_epochs = forget_epochs};
  options.engine = {.job = 7, .chunk_bytes = 4096, .eager_bytes = 512, .direct_bytes = 4096};
  Group group(options, seed);
  group.pass(10 * kMs);
  int wrong = 0;
  for (int i = 0; i < 20; ++i) {
    const Message& message = group.exchange(0, 2, 0, 400'000);
    if (!group.run(10 * kSecond) || message.in != message.expected) ++wrong;
  }
  return wrong + group.touched_after_the_end();
}

}  // namespace

TEST(late_copies_do_no_harm_to_an_engine_that_checks_epochs) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    CHECK_EQ(wrong_messages(false, seed), 0);
  }
}

TEST(and_ruin_one_that_does_not) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    CHECK(wrong_messages(true, seed) > 0);
  }
}

TEST(the_random_schedules_notice_it_too) {
  int noticed = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) noticed += Schedule(seed, true).run().wrong.empty() ? 0 : 1;
  std::printf("     %d of 200 seeds\n", noticed);
  CHECK(noticed >= 3);
}

TEST_MAIN()
