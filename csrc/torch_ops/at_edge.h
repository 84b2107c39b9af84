// The last frame of our code before torch: our errors get a mark by which Python finds them again, because some versions
// of torch turn every native exception into a RuntimeError with text of their own in front.
#pragma once

#include <stdexcept>
#include <string>

#include "hetsp/attention/pieces.h"
#include "hetsp/base/error.h"

namespace hetsp::torch_ops {

template <class Call>
auto at_edge(const Call& call) {
  try {
    return call();
  } catch (const InvalidArgument& error) {
    throw std::invalid_argument(std::string("hetsp: ") + error.what());
  } catch (const attention::NotArrived& error) {
    throw std::runtime_error(std::string("hetsp, not arrived: ") + error.what());
  }
}

}  // namespace hetsp::torch_ops
