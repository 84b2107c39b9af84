// FlexSP's micro-batches (arXiv 2412.01523, section 5): the items by falling size, cut into consecutive parts such that the
// largest part's tokens are least.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/packing/instance.h"

namespace hetsp::packing {

// Ends of `parts` parts, as indices into the items, which are by falling size; the last is their number. Parts may be empty
// where there are more than items.
[[nodiscard]] std::vector<std::int32_t> sorted_cut(const Instance& instance, int parts);

}  // namespace hetsp::packing
