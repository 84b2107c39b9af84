#include "hetsp/checkpoint/io_ring.h"

namespace hetsp::checkpoint {

std::unique_ptr<IoRing> open_io_ring(unsigned /*entries*/, std::string& why_not) {
  why_not = "io_uring is not in this build (liburing was not found)";
  return nullptr;
}

}  // namespace hetsp::checkpoint
