// A dialler that Python provides: it knows devices, addresses and stores.
#pragma once

#include <torch/csrc/utils/pybind.h>

#include "c10d/connector.h"

namespace hetsp::routed {

// `connect(peer, rail, generation)` blocks until it has a fresh context of two ranks, the lower group rank first, and returns
// it with its generation; `connect.close()` makes it raise. `rank` is our own.
Dialler python_dialler(pybind11::object connect, int rank);

}  // namespace hetsp::routed
