// Copies that leave the target out of the caches (non-temporal stores): the target is read next by a disk or a device, and a
// plain copy would first load each of its lines and then push out what training has there.
#pragma once

#include <cstddef>

#include "hetsp/base/isa.h"

namespace hetsp::staging {

// Copies `bytes` from `from` to `to`, which must not overlap. What is written is visible to every thread that synchronises with
// this one afterwards, as after memcpy. Below 4 KiB it is memcpy. `isa` from supported_isas().
void stream_copy(void* to, const void* from, std::size_t bytes, Isa isa = active_isa());

}  // namespace hetsp::staging
