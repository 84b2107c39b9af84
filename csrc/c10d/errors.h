// How an operation fails, as C++ exceptions; module.cc turns them into the classes of hetsp_ext.errors.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>

#include "hetsp/comm/transport.h"

namespace hetsp::routed {

// A rank died or left; the text begins with "rank N". hetsp_ext.errors.PeerLost.
class PeerLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The operation was given up, here or on the other side. Reaches Python as a RuntimeError.
class OperationAborted : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

std::exception_ptr exception_of(const comm::Outcome& outcome);  // null when it is done

}  // namespace hetsp::routed
