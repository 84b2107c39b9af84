#include "hetsp/simulator/event_loop.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <queue>
#include <utility>

#include "hetsp/base/error.h"
#include "hetsp/simulator/fair_share.h"

namespace hetsp::simulator {

namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

class EventLoop {
 public:
  EventLoop(const Machine& machine, const TaskGraph& graph, bool contention)
      : graph_(graph),
        contention_(contention),
        capacities_(machine.capacities()),
        begins_(graph.size()),
        pending_(graph.size()),
        successor_begin_(graph.size() + 1),
        ready_(machine.ranks),
        computing_(machine.ranks) {
    for (const auto& [first, then] : graph.edges()) ++successor_begin_[first + 1], ++pending_[then];
    for (int i = 0; i < graph.size(); ++i) successor_begin_[i + 1] += successor_begin_[i];
    successors_.resize(graph.edges().size());
    auto next = successor_begin_;
    for (const auto& [first, then] : graph.edges()) successors_[next[first]++] = then;
    timeline_.busy.assign(machine.ranks, 0.0);
    timeline_.resource_bytes.assign(machine.resources(), 0.0);
  }

  Timeline run() {
    for (int task = 0; task < graph_.size(); ++task) {
      if (pending_[task] == 0) start(task);
    }
    settle();
    while (!events_.empty() || !flows_.empty()) {
      if (changed_) share();
      double then = events_.empty() ? kNever : events_.top().first;
      for (const auto& flow : flows_) then = std::min(then, now_ + flow.left / flow.rate);
      advance(then);
      settle();
    }
    invariant(done_ == graph_.size(), "the simulation ended with ", graph_.size() - done_, " tasks that never started");
    timeline_.makespan = now_;
    return std::move(timeline_);
  }

 private:
  struct Flow {
    int task;
    double left, rate;
  };

  void start(int task) {
    const Task& it = graph_.task(task);
    switch (it.kind) {
      case Task::Kind::join:
        finished_.push_back(task);
        break;
      case Task::Kind::compute:
        ready_[it.rank].push(task);
        touched_.push_back(it.rank);
        break;
      case Task::Kind::transfer:
        begins_[task] = now_;
        events_.emplace(now_ + graph_.bundle(it).start_seconds, task);
        break;
    }
  }

  // Everything that happens at this instant, until nothing more does.
  void settle() {
    while (!finished_.empty() || !touched_.empty()) {
      while (!finished_.empty()) {
        const int task = finished_.back();
        finished_.pop_back();
        ++done_;
        for (int i = successor_begin_[task]; i < successor_begin_[task + 1]; ++i) {
          if (--pending_[successors_[i]] == 0) start(successors_[i]);
        }
      }
      // Only now: of all tasks that became ready at this instant the first is taken.
      for (const int rank : std::exchange(touched_, {})) compute_next(rank);
    }
  }

  void compute_next(int rank) {
    if (computing_[rank] || ready_[rank].empty()) return;
    const int task = ready_[rank].top();
    ready_[rank].pop();
    computing_[rank] = true;
    begins_[task] = now_;
    events_.emplace(now_ + graph_.task(task).seconds, task);
  }

  void advance(double then) {
    const double passed = then - now_;
    now_ = then;
    std::size_t kept = 0;
    for (auto& flow : flows_) {
      flow.left -= flow.rate * passed;
      const Bundle& bundle = graph_.bundle(graph_.task(flow.task));
      if (flow.left > 1e-12 * bundle.bytes && now_ + flow.left / flow.rate > now_) {
        flows_[kept++] = flow;
      } else {
        finish_transfer(flow.task);
      }
    }
    if (kept != flows_.size()) changed_ = true;
    flows_.resize(kept);
    while (!events_.empty() && events_.top().first <= now_) {
      const int task = events_.top().second;
      events_.pop();
      const Task& it = graph_.task(task);
      if (it.kind == Task::Kind::compute) {
        finish_compute(task);
      } else if (const Bundle& bundle = graph_.bundle(it); bundle.bytes > 0.0 && !bundle.uses.empty()) {
        flows_.push_back({task, bundle.bytes, 0.0});
        changed_ = true;
      } else {
        finish_transfer(task);
      }
    }
  }

  void finish_compute(int task) {
    const Task& it = graph_.task(task);
    computing_[it.rank] = false;
    touched_.push_back(it.rank);
    timeline_.busy[it.rank] += now_ - begins_[task];
    auto& spans = timeline_.spans;
    if (now_ > begins_[task]) spans.push_back({it.rank, it.work, it.micro_batch, it.group, begins_[task], now_});
    finished_.push_back(task);
  }

  void finish_transfer(int task) {
    const Task& it = graph_.task(task);
    const Bundle& bundle = graph_.bundle(it);
    for (const auto& use : bundle.uses) timeline_.resource_bytes[use.resource] += use.weight * bundle.bytes;
    timeline_.transfers.push_back({it.micro_batch, it.group, begins_[task], now_, bundle.bytes});
    finished_.push_back(task);
  }

  void share() {
    std::vector<const Bundle*> bundles;
    for (const auto& flow : flows_) bundles.push_back(&graph_.bundle(graph_.task(flow.task)));
    if (contention_) {
      const auto rates = fair_rates(capacities_, bundles);
      for (std::size_t i = 0; i < flows_.size(); ++i) flows_[i].rate = rates[i];
    } else {
      for (std::size_t i = 0; i < flows_.size(); ++i)
        flows_[i].rate = fair_rates(capacities_, std::span(&bundles[i], 1)).front();
    }
    changed_ = false;
  }

  const TaskGraph& graph_;
  const bool contention_;
  const std::vector<double> capacities_;
  double now_ = 0.0;
  int done_ = 0;
  bool changed_ = false;  // the set of flows, since their rates were shared out
  std::vector<double> begins_;                               // [tasks]
  std::vector<int> pending_, successor_begin_, successors_;  // [tasks], [tasks + 1], [edges]
  std::vector<std::priority_queue<int, std::vector<int>, std::greater<>>> ready_;  // [ranks] computations
  std::vector<bool> computing_;                                                    // [ranks]
  std::priority_queue<std::pair<double, int>, std::vector<std::pair<double, int>>, std::greater<>> events_;
  std::vector<Flow> flows_;
  std::vector<int> finished_, touched_;
  Timeline timeline_;
};

}  // namespace

Timeline run(const Machine& machine, const TaskGraph& graph, bool contention) {
  return EventLoop(machine, graph, contention).run();
}

}  // namespace hetsp::simulator
