#include "hetsp/simulator/task_graph.h"

#include <utility>

#include "hetsp/base/error.h"

namespace hetsp::simulator {

int TaskGraph::compute(int rank, double seconds, Work work, int micro_batch, int group) {
  tasks_.push_back({Task::Kind::compute, work, rank, micro_batch, group, -1, seconds});
  return size() - 1;
}

int TaskGraph::transfer(Bundle bundle, int micro_batch, int group) {
  bundles_.push_back(std::move(bundle));
  tasks_.push_back({Task::Kind::transfer, Work::fixed, -1, micro_batch, group, static_cast<int>(bundles_.size()) - 1, 0.0});
  return size() - 1;
}

int TaskGraph::join() {
  tasks_.emplace_back();
  return size() - 1;
}

void TaskGraph::before(int first, int then) {
  invariant(0 <= first && first < then && then < size(), "task ", first, " must come before task ", then);
  edges_.emplace_back(first, then);
}

}  // namespace hetsp::simulator
