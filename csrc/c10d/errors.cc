#include "c10d/errors.h"

#include "hetsp/base/error.h"

namespace hetsp::routed {

std::exception_ptr exception_of(const comm::Outcome& outcome) {
  switch (outcome.kind) {
    case comm::Outcome::Kind::done:
      return nullptr;
    case comm::Outcome::Kind::invalid:
      return std::make_exception_ptr(InvalidArgument(outcome.what));
    case comm::Outcome::Kind::peer_lost:
      return std::make_exception_ptr(PeerLost(outcome.what));
    case comm::Outcome::Kind::aborted:
      break;
  }
  return std::make_exception_ptr(OperationAborted(outcome.what));
}

}  // namespace hetsp::routed
