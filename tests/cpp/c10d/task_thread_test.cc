#include "c10d/task_thread.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/check.h"

using hetsp::routed::TaskThread;

TEST(tasks_are_done_in_order_and_close_waits_for_them) {
  std::vector<int> done;
  TaskThread thread;
  for (int i = 0; i < 1000; ++i) CHECK(thread.put([&done, i] { done.push_back(i); }));
  thread.close();
  CHECK_EQ(done.size(), 1000u);
  for (int i = 0; i < 1000; ++i) CHECK_EQ(done[i], i);
  CHECK(!thread.put([] { CHECK(false); }));
  thread.close();
}

TEST(closed_before_it_began) {
  TaskThread thread;
  thread.close();
  CHECK(!thread.put([] { CHECK(false); }));
}

// Not with the last of its batch: a task may hold tensors.
TEST(what_a_task_holds_goes_when_it_is_done) {
  const auto held = std::make_shared<int>(1);
  const std::weak_ptr<int> seen = held;
  TaskThread thread;
  std::atomic<bool> begun = false, go = false, gone = false;
  thread.put([&] {
    begun = true;
    while (!go) std::this_thread::yield();
  });
  while (!begun) std::this_thread::yield();
  auto first = std::make_shared<int>(2);
  const std::weak_ptr<int> watched = first;
  thread.put([first] { CHECK_EQ(*first, 2); });
  first.reset();
  thread.put([&] { gone = watched.expired(); });
  go = true;
  thread.close();
  CHECK(gone);
}

TEST(many_put_while_it_closes_and_what_was_taken_is_done_seeds_0_to_49) {
  for (int seed = 0; seed < 50; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    TaskThread thread;
    std::atomic<int> taken = 0, done = 0;
    std::vector<std::thread> putting;
    for (int i = 0; i < 3; ++i)
      putting.emplace_back([&] {
        for (int k = 0; k < 200 && thread.put([&] { ++done; }); ++k) ++taken;
      });
    while (taken < seed * 2) std::this_thread::yield();
    thread.close();
    for (auto& it : putting) it.join();
    CHECK_EQ(done.load(), taken.load());
  }
}

TEST_MAIN()
