#include "hetsp/checkpoint/write_queue.h"

#include <cerrno>
#include <new>
#include <utility>

#include "hetsp/base/error.h"
#include "hetsp/checkpoint/quiet_thread.h"

namespace hetsp::checkpoint {

namespace {

void run(const Write& write) noexcept {
  std::optional<IoError> failure;
  try {
    write.file->write(write.data, write.bytes, write.offset);
  } catch (const IoError& error) {
    failure = error;
  } catch (const std::bad_alloc&) {
    failure.emplace("write", write.file->path(), ENOMEM);
  }
  write.done(failure);
}

}  // namespace

WriteQueue::WriteQueue(FileSystem& /*fs*/, const Options& options) {
  require(options.writers >= 1, "writers is ", options.writers, ", must be at least 1");
  for (int i = 0; i < options.writers; ++i) threads_.push_back(quiet_thread([this] { serve(); }));
}

WriteQueue::~WriteQueue() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void WriteQueue::write(Write write) { push({std::move(write), nullptr}); }
void WriteQueue::later(std::function<void()> job) { push({{}, std::move(job)}); }

void WriteQueue::push(Job job) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
}

void WriteQueue::serve() noexcept {
  for (;;) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return !jobs_.empty() || (stop_ && running_ == 0); });
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
      ++running_;
    }
    job.other ? job.other() : run(job.write);
    job = {};  // what it holds goes before it counts as ended
    const std::lock_guard lock(mutex_);
    if (--running_ == 0 && stop_) wake_.notify_all();
  }
}

}  // namespace hetsp::checkpoint
