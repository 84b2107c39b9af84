// A fixed set of threads behind the Parallel interface, for tests, benchmarks and C++ users of the core.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "hetsp/base/parallel.h"

namespace hetsp {

// The caller's thread is worker 0. run() may be called by one thread at a time and must not be nested.
class ThreadPool final : public Parallel {
 public:
  explicit ThreadPool(int workers);  // throws InvalidArgument unless workers >= 1
  ~ThreadPool() override;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] int workers() const override { return static_cast<int>(threads_.size()) + 1; }
  void run(int count, const std::function<void(int worker)>& body) override;

 private:
  void serve(int worker);
  void call(int worker) noexcept;

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  const std::function<void(int)>* body_ = nullptr;  // borrowed from run()
  std::uint64_t round_ = 0;                         // counts run() calls
  int count_ = 0;                                   // workers wanted in this round
  int busy_ = 0;                                    // threads that have not finished this round
  bool stop_ = false;
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

}  // namespace hetsp
