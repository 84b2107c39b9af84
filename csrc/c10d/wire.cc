#include "c10d/wire.h"

#include <exception>
#include <utility>

#include "c10d/lane_words.h"

namespace hetsp::routed {

Wire::Wire(std::unique_ptr<Lane> lane, std::shared_ptr<BufferPool> receive, int depth, WireEvents events)
    : lane_(std::move(lane)), pool_(std::move(receive)), depth_(depth), events_(std::move(events)) {
  receiver_ = std::thread([this] { receive_frames(); });
  sender_ = std::thread([this] { wait_for_sends(); });
}

Wire::~Wire() { close(); }

void Wire::close() {
  {
    const std::scoped_lock lock(mutex_);
    closing_ = true;
  }
  give_up();
  if (receiver_.joinable()) receiver_.join();
  if (sender_.joinable()) sender_.join();
  lane_.reset();
}

void Wire::send(std::shared_ptr<Buffer> buffer, std::size_t payload, comm::Token token) {
  Message message{nullptr, std::move(buffer), token};
  std::string why;
  bool refused = false, broke = false;
  {
    const std::scoped_lock lock(mutex_);
    refused = closing_ || failed_;
  }
  if (!refused) {
    try {
      message.pending = lane_->send(message.buffer->frame(payload));
    } catch (const std::exception& error) {
      why = lane_words(error.what());
      broke = true;
    }
  }
  bool late = false;
  {
    const std::scoped_lock lock(mutex_);
    late = closing_ || failed_;  // meanwhile: give_up() has not seen this message
    if (late && message.pending) message.pending->abort();
    sends_.push_back(std::move(message));
  }
  wake_.notify_one();
  if (broke) fail(why);
}

void Wire::post_receive(std::deque<Message>& posted) {
  Message message{nullptr, pool_->take(), 0};
  message.buffer->set_header({.magic = 0});  // of the frame before: a message shorter than a header is none
  message.pending = lane_->receive(message.buffer->room());
  {
    const std::scoped_lock lock(mutex_);
    if (closing_ || failed_) message.pending->abort();
    receives_.push_back(message.pending);
  }
  posted.push_back(std::move(message));
}

void Wire::receive_frames() {
  std::deque<Message> posted;
  try {
    for (int i = 0; i < depth_; ++i) post_receive(posted);
    for (;;) {
      Message first = posted.front();
      const bool arrived = first.pending->wait();
      {
        const std::scoped_lock lock(mutex_);
        receives_.pop_front();
      }
      posted.pop_front();
      if (!arrived) break;
      const comm::Header header = first.buffer->header();
      if (header.magic != comm::Header{}.magic || header.length > first.buffer->capacity()) {
        fail("what arrived is no frame");
        break;
      }
      post_receive(posted);
      events_.arrived(std::move(first.buffer));
    }
  } catch (const std::exception& error) {
    fail(lane_words(error.what()));
  }
  // Aborted or broken, so none of these blocks; their memory may go when the lane has let go of it.
  for (const Message& message : posted) {
    message.pending->abort();
    try {
      message.pending->wait();
    } catch (const std::exception&) {
      // broken, as reported
    }
  }
}

void Wire::wait_for_sends() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return closing_ || !sends_.empty(); });
    if (sends_.empty()) return;
    const Message first = sends_.front();  // stays in the list: give_up() must find it
    lock.unlock();
    try {
      if (first.pending) first.pending->wait();
    } catch (const std::exception& error) {
      fail(lane_words(error.what()));
    }
    lock.lock();
    sends_.pop_front();
    lock.unlock();
    events_.sent(first.token);
    lock.lock();
  }
}

void Wire::fail(const std::string& why) {
  {
    const std::scoped_lock lock(mutex_);
    if (failed_ || closing_) return;
    failed_ = true;
  }
  give_up();
  events_.broken(why);
}

void Wire::give_up() {
  const std::scoped_lock lock(mutex_);
  for (const Message& message : sends_) {
    if (message.pending) message.pending->abort();
  }
  for (const auto& pending : receives_) pending->abort();
  wake_.notify_one();
}

}  // namespace hetsp::routed
