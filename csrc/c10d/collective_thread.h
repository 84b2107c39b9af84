// Runs collectives, one after the other, in the order in which they were posted.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>

#include "c10d/driver.h"
#include "c10d/program.h"
#include "c10d/task_thread.h"

namespace hetsp::routed {

// All ranks post their collectives in one order, so number n here meets number n there: each has a tag of its own, which keeps
// what a failed one left behind away from the next. A rank whose part fails gives up the rest of its messages one by
// one, so that those who send or receive them fail too instead of waiting for what never comes, or taking it for right.
class CollectiveThread {
 public:
  explicit CollectiveThread(Driver& driver) : driver_(driver) {}

  // `numbered`: the next in the order of all ranks; the farewell is not, for a rank may leave where others begin a collective,
  // and neither may be taken for the other.
  enum class Place { numbered, farewell };
  // `type`: of the messages, must be equal on all ranks. `done` is called on this thread, or at once where it was closed. What
  // is returned gives the collective up.
  std::function<void()> post(Program program, std::uint16_t type, std::function<void(std::exception_ptr)> done,
                             Place place = Place::numbered);
  void close() { thread_.close(); }  // after the driver, whose end ends everything that is waited for here

 private:
  struct Run;
  void run(const std::shared_ptr<Run>& run, const Round& round, std::int64_t tag);

  Driver& driver_;
  TaskThread thread_;
  std::int64_t next_ = 0;  // of this thread
};

}  // namespace hetsp::routed
