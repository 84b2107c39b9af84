#include "c10d/task_queue.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "support/check.h"

using hetsp::routed::TaskQueue;

namespace {

std::vector<int> run(const std::vector<TaskQueue::Task>& tasks, std::vector<int>& ran) {
  for (const auto& task : tasks) task();
  return std::exchange(ran, {});
}

}  // namespace

TEST(tasks_come_out_together_in_the_order_in_which_they_were_put) {
  TaskQueue queue;
  std::vector<int> ran;
  for (int i = 0; i < 3; ++i) CHECK(queue.put([&ran, i] { ran.push_back(i); }));
  CHECK((run(queue.take(), ran) == std::vector<int>{0, 1, 2}));
  CHECK(queue.put([&ran] { ran.push_back(3); }));
  CHECK((run(queue.take(), ran) == std::vector<int>{3}));
}

TEST(a_closed_queue_refuses_and_hands_out_what_is_inside) {
  TaskQueue queue;
  std::vector<int> ran;
  CHECK(queue.put([&ran] { ran.push_back(0); }));
  queue.close();
  CHECK(!queue.put([&ran] { ran.push_back(1); }));
  CHECK((run(queue.take(), ran) == std::vector<int>{0}));
  CHECK(queue.take().empty());
  CHECK(!queue.put([&ran] { ran.push_back(2); }));
  CHECK(queue.take().empty());
}

TEST(an_empty_queue_is_waited_for_until_the_time_has_come) {
  TaskQueue queue;
  const auto until = TaskQueue::Clock::now() + std::chrono::milliseconds(20);
  CHECK(queue.take(until).empty());
  CHECK(TaskQueue::Clock::now() >= until);
  CHECK(queue.take(TaskQueue::Clock::now() - std::chrono::hours(1)).empty());  // has come already
}

TEST(closing_wakes_the_thread_that_waits) {
  TaskQueue queue;
  std::thread waiting([&queue] { CHECK(queue.take().empty()); });
  queue.close();
  waiting.join();
}

// Every task that was taken in is handed out once, each producer's in its order, whenever the queue closes.
TEST(many_producers_and_a_close_among_them) {
  constexpr int producers = 4, each = 3000;
  for (const int close_after : {0, 1, 500, producers * each}) {
    check::context() = "closed after " + std::to_string(close_after);
    TaskQueue queue;
    std::vector<std::vector<int>> ran(producers);  // of the taking thread
    std::vector<int> taken(producers);
    int total = 0;
    std::thread taker([&] {
      for (auto tasks = queue.take(); !tasks.empty(); tasks = queue.take()) {
        for (const auto& task : tasks) task();
        total += static_cast<int>(tasks.size());
        if (total >= close_after) queue.close();
      }
    });
    std::vector<std::thread> threads;
    for (int p = 0; p < producers; ++p)
      threads.emplace_back([&, p] {
        for (int i = 0; i < each && queue.put([&ran, p, i] { ran[p].push_back(i); }); ++i) ++taken[p];
      });
    for (auto& thread : threads) thread.join();
    queue.close();
    taker.join();
    int sum = 0;
    for (int p = 0; p < producers; ++p) {
      CHECK_EQ(static_cast<int>(ran[p].size()), taken[p]);
      for (int i = 0; i < static_cast<int>(ran[p].size()); ++i) CHECK_EQ(ran[p][i], i);
      sum += taken[p];
    }
    CHECK_EQ(sum, total);
  }
}

TEST_MAIN()
