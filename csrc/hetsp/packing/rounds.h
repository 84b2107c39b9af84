// Two solvers on a thread each, in rounds of counted work.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <limits>
#include <thread>

#include "hetsp/packing/effort.h"
#include "hetsp/packing/limits.h"

namespace hetsp::packing {

// Rounds grow from some milliseconds to some hundreds; after each, what both found is exchanged by the caller. Since a round
// ends by its work and not by the clock, equal arguments give equal rounds, unless `seconds` or `cancel` ends the last one.
class Rounds {
 public:
  // default_work: where the limits name none. first_round: of each thread, enough for a step of either.
  Rounds(const Limits& limits, std::int64_t default_work, std::int64_t first_round)
      : limits_(limits),
        round_(first_round),
        left_(limits.work > 0        ? limits.work
              : limits.seconds > 0.0 ? std::numeric_limits<std::int64_t>::max()
                                     : default_work) {}

  [[nodiscard]] double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  // Runs both at the same time, each with an Effort of its own. False where nothing was left to run with.
  template <class Search, class Proof>
  bool run(const Search& search, const Proof& proof) {
    const double left = limits_.seconds > 0.0 ? limits_.seconds - seconds() : 0.0;
    if (left_ <= 0 || (limits_.seconds > 0.0 && left <= 0.0) || (limits_.cancel != nullptr && limits_.cancel->load()))
      return false;
    const std::int64_t work = std::min(round_, std::max<std::int64_t>(left_ / 2, 1));
    left_ -= 2 * work;
    round_ = std::min(2 * round_, kLast);
    Effort search_effort(work, left, limits_.cancel), proof_effort(work, left, limits_.cancel);
    std::exception_ptr failures[2];
    const auto guarded = [](std::exception_ptr& failure, const auto& body) {
      try {
        body();
      } catch (...) {
        failure = std::current_exception();
      }
    };
    std::thread searching([&] { guarded(failures[0], [&] { search(search_effort); }); });
    guarded(failures[1], [&] { proof(proof_effort); });
    searching.join();
    for (const auto& failure : failures)
      if (failure) std::rethrow_exception(failure);
    return true;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::int64_t kLast = 6'400'000;
  Limits limits_;
  std::int64_t round_, left_;  // visits of an item: of each thread in the next round, of both in all
  Clock::time_point start_ = Clock::now();
};

// How a run ended, from its gap.
inline constexpr double kOptimalGap = 1e-6;
[[nodiscard]] constexpr const char* status_of(double gap, double target_gap) {
  return gap <= kOptimalGap ? "optimal" : gap <= target_gap ? "target" : "limit";
}

}  // namespace hetsp::packing
