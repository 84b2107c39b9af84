// A network in virtual time: NICs with rates, streams that queue on them, and the faults of both.
//
// A stream is one direction of a connection and behaves as TCP does towards those who use it: in order, nothing lost, whatever
// happens below shows as delay. A frame goes on the wire whole. One that meets a NIC that is down, or a black hole, is sent
// again after 200 ms, 400 ms, ... 3.2 s, as long as the connection lives; loss is a stall.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <queue>
#include <random>
#include <utility>
#include <vector>

#include "hetsp/comm/transport.h"

namespace virtual_network {

using namespace hetsp::comm;

constexpr Time kUs = 1'000, kMs = 1'000'000, kSecond = 1'000'000'000;

// Events in the order of their time, those of one time in the order in which they were asked for.
class Clock {
 public:
  Time now() const { return now_; }
  void at(Time time, std::function<void()> what) { events_.push({std::max(time, now_), next_++, std::move(what)}); }
  void after(Time delay, std::function<void()> what) { at(now_ + delay, std::move(what)); }

  // Drops what is still to happen, and what it holds.
  void forget() { events_ = {}; }

  // Runs what is due until `time`, or until `done` says so; false: neither, nothing is left to happen.
  bool run(Time time, const std::function<bool()>& done) {
    while (!done()) {
      if (events_.empty()) return false;
      if (events_.top().time > time) {
        now_ = time;
        return true;
      }
      Event event = events_.top();
      events_.pop();
      now_ = event.time;
      event.what();
    }
    return true;
  }

 private:
  struct Event {
    Time time;
    std::uint64_t order;
    std::function<void()> what;
    bool operator<(const Event& other) const { return time != other.time ? time > other.time : order > other.order; }
  };
  Time now_ = kSecond;
  std::uint64_t next_ = 0;
  std::priority_queue<Event> events_;
};

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : random_(seed) {}
  std::uint64_t below(std::uint64_t sides) { return random_() % sides; }
  bool once_in(std::uint64_t times) { return below(times) == 0; }
  bool chance(double probability) { return static_cast<double>(random_() >> 11U) * 0x1p-53 < probability; }
  Time between(Time low, Time high) { return low + static_cast<Time>(below(static_cast<std::uint64_t>(high - low) + 1)); }

 private:
  std::mt19937_64 random_;
};

using Payload = std::shared_ptr<const std::vector<std::byte>>;

struct Frame {
  Header header;
  Payload payload;  // null: empty
  std::size_t bytes() const { return sizeof(Header) + (payload ? payload->size() : 0); }
};

// An interface of a node, or its loopback: what goes out takes its turn, one frame of one stream at a time.
struct Nic {
  double rate = 1e9;   // bytes/s, out
  Time delay = 20 * kUs;
  bool up = true;
  bool hears = true, speaks = true;  // false: a black hole for what comes in, goes out
  double stalls = 0;                   // probability that a frame meets one
  std::deque<class Stream*> turns{};  // streams with something to send
  bool busy = false;
};

inline bool passes(const Nic& from, const Nic& to) { return from.up && to.up && from.speaks && to.hears; }

class Stream : public std::enable_shared_from_this<Stream> {
 public:
  std::function<void(const Frame&)> deliver;
  std::function<void(Token)> sent;

  Stream(Clock& clock, Dice& dice, Nic& from, Nic& to) : clock_(clock), dice_(dice), from_(from), to_(to) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { std::erase(from_.turns, this); }

  void put(Frame frame, Token token) {
    queued_ += frame.bytes();
    queue_.push_back({std::move(frame), token});
    if (queue_.size() > 1) return;
    waits_ = unread_ >= kUnread;
    if (!waits_) take_turn();
  }

  std::size_t queued() const { return queued_; }

  // The other end has taken a frame in; of more than kUnread it keeps the wire waiting.
  void taken() {
    --unread_;
    if (waits_ && !closed_ && unread_ < kUnread) {
      waits_ = false;
      take_turn();
    }
  }

  // Ends it: what waits counts as sent and never arrives. Answers what had not arrived.
  std::vector<Frame> close() {
    std::vector<Frame> lost(flying_.begin(), flying_.end());
    closed_ = true;
    std::erase(from_.turns, this);
    for (auto& [frame, token] : queue_) {
      lost.push_back(frame);
      sent(token);
    }
    queue_.clear();
    queued_ = 0;
    return lost;
  }

 private:
  static constexpr int kUnread = 8;

  void take_turn() {
    from_.turns.push_back(this);
    serve(clock_, from_);
  }

  static void serve(Clock& clock, Nic& nic) {
    if (nic.busy || nic.turns.empty()) return;
    const std::shared_ptr<Stream> stream = nic.turns.front()->shared_from_this();
    nic.turns.pop_front();
    nic.busy = true;
    const double seconds = static_cast<double>(stream->queue_.front().first.bytes()) / nic.rate;
    clock.after(static_cast<Time>(seconds * 1e9) + 1, [&clock, &nic, stream] {
      nic.busy = false;
      stream->through();
      serve(clock, nic);
    });
  }

  void through() {
    if (closed_) return;
    if (!passes(from_, to_)) return again(200 * kMs << std::min(tries_++, 4));
    if (from_.stalls > 0 && dice_.chance(from_.stalls))
      return again(dice_.once_in(10) ? 200 * kMs : dice_.between(kMs, 20 * kMs));
    tries_ = 0;
    auto [frame, token] = std::move(queue_.front());
    queue_.pop_front();
    queued_ -= frame.bytes();
    sent(token);
    flying_.push_back(std::move(frame));
    arrival_ = std::max(arrival_, clock_.now() + from_.delay + dice_.between(0, from_.delay / 4));
    clock_.at(arrival_, [self = shared_from_this()] {
      if (self->closed_) return;
      const Frame arrived = std::move(self->flying_.front());
      self->flying_.pop_front();
      self->deliver(arrived);
    });
    waits_ = ++unread_ >= kUnread && !queue_.empty();
    if (!queue_.empty() && !waits_) from_.turns.push_back(this);
  }

  void again(Time later) {
    clock_.after(later, [self = shared_from_this()] {
      if (!self->closed_) self->take_turn();
    });
  }

  Clock& clock_;
  Dice& dice_;
  Nic& from_;
  Nic& to_;
  std::deque<std::pair<Frame, Token>> queue_;
  std::deque<Frame> flying_;
  std::size_t queued_ = 0;
  Time arrival_ = 0;
  int tries_ = 0;
  int unread_ = 0;  // frames on their way or arrived, and not taken in
  bool waits_ = false, closed_ = false;
};

}  // namespace virtual_network
