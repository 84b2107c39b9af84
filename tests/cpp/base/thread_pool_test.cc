#include "hetsp/base/thread_pool.h"

#include <atomic>
#include <stdexcept>
#include <vector>

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;

TEST(every_item_once) {
  for (int workers : {1, 2, 5}) {
    ThreadPool pool(workers);
    for (int items : {0, 1, 2, 1000}) {
      std::vector<int> seen(items), by_worker(workers);
      for_each_item(pool, items, [&](std::int64_t item, int worker) { ++seen[item], ++by_worker[worker]; });
      for (int count : seen) CHECK_EQ(count, 1);
      int sum = 0;
      for (int count : by_worker) sum += count;
      CHECK_EQ(sum, items);
    }
  }
}

// As many regions as workers, each held by its worker's thread while it takes items, and left when an item throws.
TEST(workers_hold_their_regions) {
  static thread_local int held = 0;
  struct Region {
    std::atomic<int>& entered;
    explicit Region(std::atomic<int>& count) : entered(count) { ++entered, ++held; }
    ~Region() { --held; }
    Region(const Region&) = delete;
    Region& operator=(const Region&) = delete;
  };
  ThreadPool pool(3);
  for (const bool throws : {false, true}) {
    std::atomic<int> entered = 0, outside = 0;
    const auto region = [&] { return Region(entered); };
    const auto body = [&](std::int64_t item, int) {
      if (held != 1) ++outside;
      if (throws && item == 5) throw std::runtime_error("item 5");
    };
    if (throws) {
      CHECK_THROWS(std::runtime_error, "item 5", (for_each_item(pool, 100, region, body), 0));
    } else {
      for_each_item(pool, 100, region, body);
    }
    CHECK_EQ(entered.load(), 3);
    CHECK_EQ(outside.load(), 0);
    std::atomic<int> still_held = 0;
    pool.run(3, [&](int) { still_held += held; });
    CHECK_EQ(still_held.load(), 0);
  }
}

TEST(exception_reaches_caller_and_pool_survives) {
  ThreadPool pool(3);
  CHECK_THROWS(std::runtime_error, "item 7",
               (for_each_item(pool, 20,
                              [](std::int64_t item, int) {
                                if (item == 7) throw std::runtime_error("item 7");
                              }),
                0));
  int ran = 0;
  pool.run(1, [&](int) { ++ran; });
  CHECK_EQ(ran, 1);
}

TEST(bad_counts_are_named) {
  CHECK_THROWS(InvalidArgument, "workers is 0", ThreadPool(0));
  ThreadPool pool(2);
  CHECK_THROWS(InvalidArgument, "3 bodies asked of 2", (pool.run(3, [](int) {}), 0));
}

TEST_MAIN()
