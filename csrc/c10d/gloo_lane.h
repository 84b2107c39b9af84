// A lane to one rank of a Gloo context.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <memory>

#include "c10d/lane.h"

namespace hetsp::routed {

// `peer` is a rank of `context`, which may be a mesh that several lanes share. The context must be connected eagerly: a lazy
// one hangs its listener where a network is dead. Its own timeout is of no matter, lanes wait as long as it takes.
std::unique_ptr<Lane> gloo_lane(c10::intrusive_ptr<::c10d::Backend> context, int peer);

}  // namespace hetsp::routed
