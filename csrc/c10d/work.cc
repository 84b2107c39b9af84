#include "c10d/work.h"

#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>

#include <utility>

namespace hetsp::routed {

Work::Work(int rank, ::c10d::OpType type, std::string what, std::chrono::milliseconds timeout, std::vector<at::Tensor> results,
           std::shared_ptr<TaskThread> callbacks, std::function<std::string()> report)
    : ::c10d::Work(rank, type),
      what_(std::move(what)),
      timeout_(timeout),
      results_(std::move(results)),
      callbacks_(std::move(callbacks)),
      report_(std::move(report)) {}

bool Work::wait(std::chrono::milliseconds timeout) {
  const auto limit = timeout > std::chrono::milliseconds(0) ? timeout : timeout_;
  std::unique_lock lock(mutex_);
  if (!cv_.wait_for(lock, limit, [this] { return completed_; })) {
    lock.unlock();
    C10_THROW_ERROR(DistBackendError,
                    c10::str("rank ", rank_, ": ", what_, " has not completed within ", limit.count(),
                             " ms; it goes on, and may be waited for again. What is open here, by now:\n", report_()));
  }
  if (aborted_) return false;
  if (exception_) std::rethrow_exception(exception_);
  return true;
}

void Work::abort() {
  std::function<void()> how;
  {
    const std::scoped_lock lock(mutex_);
    if (completed_) return;
    aborted_ = true;
    how = abort_;
  }
  if (how) how();
}

int Work::sourceRank() const {
  const std::scoped_lock lock(mutex_);
  return source_;
}

std::vector<at::Tensor> Work::result() { return results_; }

void Work::on_abort(std::function<void()> how) {
  const std::scoped_lock lock(mutex_);
  abort_ = std::move(how);
}

void Work::on_end(std::function<void(std::exception_ptr)> then) {
  std::exception_ptr failure;
  {
    const std::scoped_lock lock(mutex_);
    if (!completed_) return then_.push_back(std::move(then));
    failure = exception_;
  }
  then(failure);
}

c10::intrusive_ptr<c10::ivalue::Future> Work::getFuture() {
  c10::intrusive_ptr<c10::ivalue::Future> future;
  std::exception_ptr failure;
  {
    const std::scoped_lock lock(mutex_);
    if (future_) return future_;
    std::vector<c10::Device> devices;
    for (const at::Tensor& tensor : results_) {
      if (!tensor.device().is_cpu() && (devices.empty() || devices.back() != tensor.device()))
        devices.push_back(tensor.device());
    }
    future_ = c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()), std::move(devices));
    if (!completed_) return future_;
    future = future_;
    failure = exception_;
  }
  complete(future, results_, failure);
  return future;
}

void Work::complete(const c10::intrusive_ptr<c10::ivalue::Future>& future, const std::vector<at::Tensor>& results,
                    const std::exception_ptr& failure) {
  if (failure) {
    future->setError(failure);
  } else {
    future->markCompleted(c10::IValue(results));
  }
}

void Work::end(const std::exception_ptr& failure, int source) {
  std::vector<std::function<void(std::exception_ptr)>> then;
  c10::intrusive_ptr<c10::ivalue::Future> future;
  {
    const std::scoped_lock lock(mutex_);
    if (completed_) return;
    completed_ = true;
    exception_ = failure;
    source_ = source;
    abort_ = nullptr;
    then.swap(then_);
    future = future_;
  }
  cv_.notify_all();
  for (const auto& call : then) call(failure);
  if (!future) return;
  auto finish = [future, results = results_, failure] { complete(future, results, failure); };
  if (!callbacks_->put(finish)) finish();
}

}  // namespace hetsp::routed
