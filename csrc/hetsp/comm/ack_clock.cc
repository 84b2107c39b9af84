#include "hetsp/comm/ack_clock.h"

#include <algorithm>
#include <cstdlib>

namespace hetsp::comm {

namespace {

constexpr Time kMs = 1'000'000, kSecond = 1000 * kMs;
constexpr Time kLongestFloor = 90 * kMs, kVerdict = 180 * kMs, kLongest = 1000 * kMs;
constexpr Time kSpan = 5 * kSecond, kForget = 10 * kSecond, kLongestBack = 50 * kMs;

}  // namespace

AckClock::Mark AckClock::sent(Time now, bool idle, bool full) {
  if (idle) delivered_time_ = now;  // a pause is not the link's
  return {.sent = now, .delivered_time = delivered_time_, .delivered = delivered_, .full = full};
}

void AckClock::acknowledged(const Mark& mark, std::size_t bytes, Time now) {
  last_ = now;
  const Time took = std::max<Time>(now - mark.sent, 1);
  if (measured_) {
    deviation_ += (std::abs(took - smoothed_) - deviation_) / 4;
    smoothed_ += (took - smoothed_) / 8;
  } else {
    smoothed_ = took;
    deviation_ = took / 2;
    measured_ = true;
  }
  if (now - span_since_ > kSpan) {
    shortest_[1] = now - span_since_ > 2 * kSpan ? 0 : shortest_[0];
    shortest_[0] = 0;
    shortest_way_[1] = now - span_since_ > 2 * kSpan ? Way{} : shortest_way_[0];
    shortest_way_[0] = {};
    span_since_ = now;
  }
  shortest_[0] = shortest_[0] == 0 ? took : std::min(shortest_[0], took);
  if (floor_ > options_.floor && now - floor_since_ > kForget) {
    floor_ = std::max(options_.floor, floor_ / 2);
    floor_since_ = now;
  }

  delivered_ += bytes;
  delivered_time_ = now;
  const Time elapsed = now - mark.delivered_time;
  if (bytes == 0 || elapsed <= 0) return;
  const double sample = static_cast<double>(delivered_ - mark.delivered) * 1e9 / static_cast<double>(elapsed);
  if (rate_ == 0)
    rate_ = sample;
  else if (mark.full || sample > rate_)
    rate_ += (sample - rate_) / 4;
}

void AckClock::came_back(std::uint64_t stamp, Time now) {
  if (stamp == 0) return;
  const std::uint64_t took = static_cast<std::uint64_t>(now) - stamp;
  const auto beyond = [took](const Way& way) { return way.known ? static_cast<Time>(took - way.took) : Time{0}; };
  const Time waited = std::clamp(std::max(beyond(shortest_way_[0]), beyond(shortest_way_[1])), Time{0}, kLongestBack);
  if (!shortest_way_[0].known || beyond(shortest_way_[0]) < 0) shortest_way_[0] = {true, took};
  back_ += (waited - back_) / 4;
}

Time AckClock::patience() const {
  return measured_ ? std::clamp(smoothed_ + 4 * deviation_, floor_, std::max(floor_, kLongest))
                   : std::max(floor_, options_.first);
}

Time AckClock::verdict() const {
  const Time patience = this->patience();
  return std::max(std::min(2 * patience, kVerdict), patience + patience / 4);
}

void AckClock::misjudged() {
  floor_ = std::max(floor_, std::min(2 * floor_, kLongestFloor));
  floor_since_ = last_;
}

void AckClock::restart() {
  shortest_[0] = shortest_[1] = 0;
  shortest_way_[0] = shortest_way_[1] = {};
  back_ = 0;
}

Time AckClock::shortest() const {
  if (shortest_[0] == 0 || shortest_[1] == 0) return std::max(shortest_[0], shortest_[1]);
  return std::min(shortest_[0], shortest_[1]);
}

}  // namespace hetsp::comm
