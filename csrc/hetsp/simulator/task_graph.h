// What the ranks of a step do, as tasks and their order: the input of the event loop.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/base/strong_index.h"
#include "hetsp/simulator/bundle.h"

namespace hetsp::simulator {

enum class Work : std::uint8_t { linear, attention, fixed };

struct Task {
  enum class Kind : std::uint8_t { compute, transfer, join };
  Kind kind = Kind::join;
  Work work = Work::fixed;        // of a computation
  std::int32_t rank = -1;         // of a computation: a rank does one at a time
  std::int32_t micro_batch = -1;
  std::int32_t group = -1;        // of the micro-batch; -1: none
  std::int32_t bundle = -1;       // of a transfer
  double seconds = 0.0;           // of a computation
};

// Tasks in the order of their creation, which is also the order in which a rank prefers those that are ready. A task starts
// when all tasks before it are done; it may come before later ones only, so the graph has no cycle.
class TaskGraph {
 public:
  int compute(int rank, double seconds, Work work, int micro_batch, int group);
  int transfer(Bundle bundle, int micro_batch, int group);
  int join();  // done when all before it are
  void before(int first, int then);  // first < then

  [[nodiscard]] int size() const { return static_cast<int>(tasks_.size()); }
  [[nodiscard]] const Task& task(int index) const { return tasks_[index]; }
  [[nodiscard]] const Bundle& bundle(const Task& task) const { return bundles_[task.bundle]; }
  [[nodiscard]] const std::vector<std::pair<int, int>>& edges() const { return edges_; }  // (first, then)

 private:
  std::vector<Task> tasks_;
  std::vector<Bundle> bundles_;
  std::vector<std::pair<int, int>> edges_;
};

}  // namespace hetsp::simulator
