// Lanes inside one process, with the manners of Gloo's and faults on demand.
//
// Of Gloo: messages of a direction match the receives of the other end in order, and move when both are there; nothing ends
// unless somebody waits for it. Where the connection breaks, everything that is posted throws, but for the message that is half
// in, which waits until it is aborted; a sender hears of the other end's death through its receives alone. A message that is
// larger than the room for it breaks the connection. A message that was aborted blocks all behind it.
#pragma once

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "c10d/lane.h"

namespace scripted {

using hetsp::routed::Lane;
using hetsp::routed::Pending;

// A connection with the ends 0 and 1. Any thread may use it.
class Cable : public std::enable_shared_from_this<Cable> {
 public:
  // What becomes of a message on its way, on a copy of it.
  using Change = std::function<void(std::vector<std::byte>& message)>;

  static std::shared_ptr<Cable> make() { return std::make_shared<Cable>(); }

  std::unique_ptr<Lane> end(int side) {
    const std::scoped_lock lock(mutex_);
    ends_[side].open = true;
    return std::make_unique<End>(shared_from_this(), side);
  }

  // Nothing moves, nothing breaks: the network swallows everything.
  void stall(bool on) {
    const std::scoped_lock lock(mutex_);
    stalled_ = on;
    move();
  }

  // Breaks at both ends. `half_in`: the oldest receive of each end has got some bytes already.
  void cut(const std::string& why, bool half_in = false) {
    const std::scoped_lock lock(mutex_);
    for (int side : {0, 1}) break_end(side, why, half_in);
  }

  // The next message from `side` goes through `how`.
  void change_next(int side, Change how) {
    const std::scoped_lock lock(mutex_);
    ends_[side].changes.push_back(std::move(how));
  }
  // The next send or receive of `side` throws `why`, and nothing else happens: a lane that lies about being well.
  void refuse_next(int side, std::string why) {
    const std::scoped_lock lock(mutex_);
    ends_[side].refusal = std::move(why);
    ends_[side].refuses = true;
  }

  std::size_t moved() {
    const std::scoped_lock lock(mutex_);
    return moved_;
  }
  // Ends whose lane is still held by somebody.
  int open_ends() {
    const std::scoped_lock lock(mutex_);
    return static_cast<int>(ends_[0].open) + static_cast<int>(ends_[1].open);
  }
  // Messages whose memory the connection still had when their lane went away: nobody had waited for them.
  std::size_t forgotten() {
    const std::scoped_lock lock(mutex_);
    return forgotten_;
  }

 private:
  enum class State { posted, moved, aborted, broken };
  struct Message {
    std::span<std::byte> bytes;
    State state = State::posted;
    std::string why;
  };
  using Queue = std::deque<std::shared_ptr<Message>>;
  struct Side {
    Queue sends, receives;
    std::deque<Change> changes;
    bool open = false, broken = false, refuses = false, blocked = false;  // blocked: for messages from here
    std::string why, refusal;
  };

  class Handle : public Pending {
   public:
    Handle(std::shared_ptr<Cable> cable, std::shared_ptr<Message> message, int source)
        : cable_(std::move(cable)), message_(std::move(message)), source_(source) {}
    bool wait() override { return cable_->wait(*message_); }
    void abort() override { cable_->abort(*message_, source_); }

   private:
    std::shared_ptr<Cable> cable_;
    std::shared_ptr<Message> message_;
    int source_;
  };

  class End : public Lane {
   public:
    End(std::shared_ptr<Cable> cable, int side) : cable_(std::move(cable)), side_(side) {}
    ~End() override { cable_->close(side_); }
    std::unique_ptr<Pending> send(std::span<std::byte> bytes) override { return cable_->post(side_, bytes, true); }
    std::unique_ptr<Pending> receive(std::span<std::byte> room) override { return cable_->post(side_, room, false); }

   private:
    std::shared_ptr<Cable> cable_;
    int side_;
  };

  std::unique_ptr<Pending> post(int side, std::span<std::byte> bytes, bool sends) {
    const std::scoped_lock lock(mutex_);
    Side& end = ends_[side];
    if (std::exchange(end.refuses, false)) throw std::runtime_error(end.refusal);
    if (end.broken) throw std::runtime_error(end.why);
    auto message = std::make_shared<Message>();
    message->bytes = bytes;
    (sends ? end.sends : end.receives).push_back(message);
    move();
    return std::make_unique<Handle>(shared_from_this(), std::move(message), sends ? side : 1 - side);
  }

  bool wait(Message& message) {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return message.state != State::posted; });
    if (message.state == State::broken) throw std::runtime_error(message.why);
    return message.state == State::moved;
  }

  void abort(Message& message, int source) {
    const std::scoped_lock lock(mutex_);
    if (message.state != State::posted) return;
    ends_[source].blocked = true;
    finish(message, State::aborted);
  }

  void close(int side) {
    const std::scoped_lock lock(mutex_);
    Side& end = ends_[side];
    end.open = false;
    for (const Queue* queue : {&end.sends, &end.receives})
      for (const auto& message : *queue)
        if (message->state == State::posted) ++forgotten_, finish(*message, State::aborted);
    end.broken = true;
    end.why = "closed here";
    break_end(1 - side, "Connection closed by peer", false);
  }

  void break_end(int side, const std::string& why, bool half_in) {
    Side& end = ends_[side];
    if (std::exchange(end.broken, true)) return;
    end.why = why;
    bool skip = half_in;
    for (const auto& message : end.receives)
      if (message->state == State::posted && !std::exchange(skip, false)) {
        message->why = why;
        finish(*message, State::broken);
      }
  }

  void finish(Message& message, State state) {
    message.state = state;
    wake_.notify_all();
  }

  void move() {
    for (bool again = true; again && !stalled_;) {
      again = false;
      for (int side : {0, 1}) again |= move_one(ends_[side], 1 - side);
    }
  }

  bool move_one(Side& from, int to) {
    Side& other = ends_[to];
    if (from.blocked || from.broken || other.broken || from.sends.empty() || other.receives.empty()) return false;
    Message &out = *from.sends.front(), &in = *other.receives.front();
    std::vector<std::byte> bytes(out.bytes.begin(), out.bytes.end());
    if (!from.changes.empty()) {
      from.changes.front()(bytes);
      from.changes.pop_front();
    }
    if (bytes.size() > in.bytes.size()) {
      for (int side : {0, 1}) break_end(side, "a message larger than its room", side == to);
      return false;
    }
    if (!bytes.empty()) std::memcpy(in.bytes.data(), bytes.data(), bytes.size());
    finish(out, State::moved);
    finish(in, State::moved);
    from.sends.pop_front();
    other.receives.pop_front();
    ++moved_;
    return true;
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::array<Side, 2> ends_;
  bool stalled_ = false;
  std::size_t moved_ = 0, forgotten_ = 0;
};

}  // namespace scripted
