// How much a solver may spend: work units, which give the same answer on every machine, and optionally seconds, which do not.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>

namespace hetsp::packing {

class Effort {
 public:
  // work: item-in-bin or item-in-column visits. seconds: from now, 0 for no clock. cancel: set by another thread to stop early.
  explicit Effort(std::int64_t work = std::numeric_limits<std::int64_t>::max(), double seconds = 0.0,
                  const std::atomic<bool>* cancel = nullptr)
      : given_(work), left_(work), cancel_(cancel) {
    if (seconds > 0.0)
      deadline_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  }

  // Counts `work`; true while there is some left. The clock is read once per kGrain units.
  bool spend(std::int64_t work) {
    left_ -= work;
    since_look_ += work;
    if (since_look_ >= kGrain) look();
    return left_ > 0 && !stopped_;
  }
  [[nodiscard]] bool spent() const { return left_ <= 0 || stopped_; }
  [[nodiscard]] std::int64_t used() const { return given_ - left_; }

  // At most `work` of what is left here, until the same time; the owner spends what the slice used.
  [[nodiscard]] Effort slice(std::int64_t work) const {
    Effort part = *this;
    part.given_ = part.left_ = std::min(work, left_);
    return part;
  }

  // Reads clock and flag now.
  bool look() {
    since_look_ = 0;
    if (cancel_ != nullptr && cancel_->load(std::memory_order_relaxed)) stopped_ = true;
    if (deadline_ != Clock::time_point::max() && Clock::now() >= deadline_) stopped_ = true;
    return !spent();
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::int64_t kGrain = 20'000;  // about 20 to 50 microseconds
  std::int64_t given_, left_;
  std::int64_t since_look_ = 0;
  bool stopped_ = false;
  const std::atomic<bool>* cancel_;
  Clock::time_point deadline_ = Clock::time_point::max();
};

}  // namespace hetsp::packing
