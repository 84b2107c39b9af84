// How the core runs things at the same time without knowing whose threads it uses: the torch ops hand in torch's own
// (so that torch.set_num_threads is obeyed), tests and benchmarks a ThreadPool.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>

namespace hetsp {

class Parallel {
 public:
  virtual ~Parallel() = default;
  [[nodiscard]] virtual int workers() const = 0;  // how many bodies may run at once, >= 1

  // Calls body(worker) once for each worker in [0, count), count <= workers(), possibly at the same time, and returns
  // when all have returned. The first exception thrown by a body is rethrown here.
  virtual void run(int count, const std::function<void(int worker)>& body) = 0;
};

// Calls body(item, worker) once for each item in [0, items). Items are handed out in order from one counter, so a list
// sorted longest first ends balanced; `worker` indexes per-worker scratch.
//
// Each worker holds what region() returns for as long as it takes items.
template <class Region, class Body>
void for_each_item(Parallel& parallel, std::int64_t items, const Region& region, const Body& body) {
  if (items <= 0) return;
  const int workers = static_cast<int>(std::min<std::int64_t>(parallel.workers(), items));
  std::atomic<std::int64_t> next{0};
  parallel.run(workers, [&](int worker) {
    [[maybe_unused]] const auto held = region();
    for (std::int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) body(item, worker);
  });
}
template <class Body>
void for_each_item(Parallel& parallel, std::int64_t items, const Body& body) {
  for_each_item(parallel, items, [] { return nullptr; }, body);
}

}  // namespace hetsp
