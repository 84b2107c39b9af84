#include "hetsp/checkpoint/write_queue.h"

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

#include "hetsp/base/error.h"
#include "hetsp/checkpoint/quiet_thread.h"

namespace hetsp::checkpoint {

WriteQueue::WriteQueue(FileSystem& fs, const Options& options) : options_(options) {
  require(options.writers >= 1, "writers is ", options.writers, ", must be at least 1");
  require(options.depth >= 1, "depth is ", options.depth, ", must be at least 1");
  for (int i = 0; i < options.writers; ++i) {
    auto writer = std::make_unique<Writer>();
    if (options.best == IoMode::io_uring) writer->ring = fs.io_ring(static_cast<unsigned>(options.depth), writer->why_not);
    writer->flight.resize(static_cast<std::size_t>(options.depth));
    for (int token = 0; token < options.depth; ++token) writer->tokens.push_back(static_cast<std::uint64_t>(token));
    writers_.push_back(std::move(writer));
  }
  for (auto& writer : writers_) writer->thread = quiet_thread([this, w = writer.get()] { serve_writes(*w); });
  other_ = quiet_thread([this] { serve_others(); });
}

WriteQueue::~WriteQueue() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& writer : writers_) writer->thread.join();
  other_.join();
}

void WriteQueue::write(Write write) {
  {
    const std::lock_guard lock(mutex_);
    writes_.push_back(std::move(write));
    for (auto& writer : writers_)
      if (writer->waits) writer->ring->wake();
  }
  wake_.notify_all();
}

void WriteQueue::later(std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    others_.push_back(std::move(job));
  }
  wake_.notify_all();
}

void WriteQueue::ended() {
  const std::lock_guard lock(mutex_);
  if (--running_ == 0 && stop_) wake_.notify_all();
}

void WriteQueue::serve_others() noexcept {
  for (;;) {
    std::function<void()> job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return !others_.empty() || (stop_ && running_ == 0 && writes_.empty()); });
      if (others_.empty()) return;
      job = std::move(others_.front());
      others_.pop_front();
      ++running_;
    }
    job();
    job = nullptr;  // what it holds goes before it counts as ended
    ended();
  }
}

// The next write; nothing where there is none now (`wait` false) or will be none any more.
std::optional<Write> WriteQueue::next(Writer& writer, bool wait) {
  std::unique_lock lock(mutex_);
  if (wait) wake_.wait(lock, [&] { return !writes_.empty() || (stop_ && running_ == 0 && others_.empty()); });
  writer.waits = writes_.empty() && !wait;
  if (writes_.empty()) return std::nullopt;
  std::optional<Write> write = std::move(writes_.front());
  writes_.pop_front();
  ++running_;
  return write;
}

void WriteQueue::serve_writes(Writer& writer) noexcept {
  for (;;) {
    const std::size_t under_way = writer.flight.size() - writer.tokens.size();
    if (!writer.tokens.empty()) {
      if (auto write = next(writer, under_way == 0)) {
        start(writer, std::move(*write));
        continue;
      }
      if (under_way == 0) return;
    }
    IoRing::Completion completion{};
    const int result = writer.ring->wait(completion);
    {
      const std::lock_guard lock(mutex_);
      writer.waits = false;
    }
    if (result == 0) {
      if (completion.token != IoRing::kWoken) end(writer, completion);
    } else if (result != -EINTR) {
      // Nobody knows what became of the writes under way: their files fail, and new ones go by pwrite.
      for (std::uint64_t token = 0; token < writer.flight.size(); ++token)
        if (writer.flight[token].file != nullptr) end(writer, {token, -EIO});
      give_up_ring(writer, result);
    }
  }
}

void WriteQueue::start(Writer& writer, Write write) {
  std::optional<IoError> failure;
  OutputFile::Descriptor to{};
  try {
    to = write.file->open();
  } catch (const IoError& error) {
    failure = error;
  } catch (const std::bad_alloc&) {
    failure.emplace("open", write.file->path(), ENOMEM);
  }
  if (failure) {
    write.done(failure);
    return ended();
  }
  if (!to.direct || writer.ring == nullptr || writer.given_up) return by_pwrite(writer, write, 0, 0);
  const std::uint64_t token = writer.tokens.back();
  const int result = writer.ring->write(to.fd, write.data, write.bytes, write.offset, token);
  if (result < 0) return by_pwrite(writer, write, 0, is_refusal(result) ? result : 0);
  writer.tokens.pop_back();
  writer.flight[token] = std::move(write);
}

void WriteQueue::end(Writer& writer, const IoRing::Completion& completion) {
  const Write write = std::exchange(writer.flight[completion.token], {});
  writer.tokens.push_back(completion.token);
  const std::int64_t result = completion.result;
  if (result == write.bytes) {
    write.file->note_ring(!writer.given_up, writer.why_not);
    write.done(std::nullopt);
    ended();
  } else if (result >= 0 || result == -EINTR || result == -EAGAIN || is_refusal(result)) {
    by_pwrite(writer, write, std::max<std::int64_t>(result, 0), is_refusal(result) ? result : 0);
  } else {
    write.done(IoError("write", write.file->path(), static_cast<int>(-result)));
    ended();
  }
}

// refusal: what the ring said, where it would not take the write. If the file is still O_DIRECT afterwards, it was the ring.
void WriteQueue::by_pwrite(Writer& writer, const Write& write, std::int64_t done, std::int64_t refusal) {
  std::optional<IoError> failure;
  try {
    write.file->write(write.data, write.bytes, write.offset, done);
    if (refusal < 0 && write.file->open().direct) give_up_ring(writer, refusal);
  } catch (const IoError& error) {
    failure = error;
  } catch (const std::bad_alloc&) {
    failure.emplace("write", write.file->path(), ENOMEM);
  }
  if (writer.ring == nullptr || writer.given_up) write.file->note_ring(false, writer.why_not);
  write.done(failure);
  ended();
}

// It may have writes under way still, and is kept.
void WriteQueue::give_up_ring(Writer& writer, std::int64_t result) {
  writer.why_not = "io_uring refused by write: " + describe_errno(static_cast<int>(-result));
  writer.given_up = true;
}

}  // namespace hetsp::checkpoint
