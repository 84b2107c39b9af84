#include "hetsp/base/thread_pool.h"

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
