// What it costs to send n bytes to another node over x of the NICs of a node (after Zeppelin, arXiv 2509.21841, section 4).
//
// Directly: n / inter. Spread: dispatch to x - 1 neighbours, transfer by x NICs at once, combine at the other end:
//   dispatch = combine = n (x-1)/x / intra,  transfer = n / (x inter).
// In m chunks the three stages overlap: sum/m + (1 - 1/m) max(stages).
#pragma once

#include <cstddef>

namespace hetsp::comm {

struct LinkRates {
  double inter = 0;  // bytes/s of one NIC; 0: not known
  double intra = 0;  // bytes/s between two ranks of a node
};

[[nodiscard]] double direct_seconds(const LinkRates& rates, double bytes);
[[nodiscard]] double spread_seconds(const LinkRates& rates, double bytes, int rails, int chunks);

// Whether spreading `bytes` over `rails` is the faster way. Where the rate of NICs is not known they are taken for slower than
// the node's inside, as is usual.
[[nodiscard]] bool spread_pays(const LinkRates& rates, std::size_t bytes, std::size_t chunk_bytes, int rails);

}  // namespace hetsp::comm
