// The two classes of failure: a recoverable one is a typed exception that names the offending value and what was
// allowed; a broken invariant of our own is an assertion. A library never exits, prints or hangs.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace hetsp {

// The caller passed something that no run can accept. Reaches Python as hetsp_ext.errors.InvalidArgument (a ValueError).
class InvalidArgument : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// No plan can hold the workload. Reaches Python as hetsp_ext.errors.PlanInfeasible.
class PlanInfeasible : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A bug in this library, never the caller's fault.
class BrokenInvariant : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

// Throws InvalidArgument with the concatenated parts unless `ok`. The parts are formatted on failure only.
template <class... Parts>
void require(bool ok, const Parts&... parts) {
  if (!ok) [[unlikely]]
    throw InvalidArgument(concat(parts...));
}

// Throws BrokenInvariant with the concatenated parts unless `ok`.
template <class... Parts>
void invariant(bool ok, const Parts&... parts) {
  if (!ok) [[unlikely]]
    throw BrokenInvariant(concat("hetsp broke an invariant of its own: ", parts...));
}

}  // namespace hetsp
