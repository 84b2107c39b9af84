// The handle of an operation under way.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "c10d/task_thread.h"

namespace hetsp::routed {

// Whoever carries the operation out holds a reference and calls end() once: a Work that its user drops is still done. Waiting
// for longer than the deadline raises and changes nothing: the operation goes on, and may be waited for again.
class Work : public ::c10d::Work {
 public:
  // `what` is for messages: "recv from rank 3 (tag 0)". `timeout`: of a wait that names none. `callbacks` runs what users hang
  // on the future, which may wait for other operations. `report`: what stands in the error of a wait that was too short.
  Work(int rank, ::c10d::OpType type, std::string what, std::chrono::milliseconds timeout, std::vector<at::Tensor> results,
       std::shared_ptr<TaskThread> callbacks, std::function<std::string()> report);

  bool wait(std::chrono::milliseconds timeout) override;
  void abort() override;  // then wait() returns false
  int sourceRank() const override;
  std::vector<at::Tensor> result() override;
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override;
  void synchronize() override {}

  void on_abort(std::function<void()> how);
  void on_end(std::function<void(std::exception_ptr)> then);  // called at once where it has ended; must not block
  void end(const std::exception_ptr& failure, int source);

 private:
  static void complete(const c10::intrusive_ptr<c10::ivalue::Future>& future, const std::vector<at::Tensor>& results,
                       const std::exception_ptr& failure);

  const std::string what_;
  const std::chrono::milliseconds timeout_;
  std::vector<at::Tensor> results_;
  std::shared_ptr<TaskThread> callbacks_;
  const std::function<std::string()> report_;
  // Guarded by the base's mutex_.
  int source_ = -1;
  bool aborted_ = false;
  std::function<void()> abort_;
  std::vector<std::function<void(std::exception_ptr)>> then_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

}  // namespace hetsp::routed
