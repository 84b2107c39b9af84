// Rates of flows that share links.
#pragma once

#include <span>
#include <vector>

#include "hetsp/simulator/bundle.h"

namespace hetsp::simulator {

// Max-min fair rates (Bertsekas and Gallager, Data Networks, section 6.5.2), in bytes/s of each bundle: all rates rise together
// until a resource is full (sum of weight x rate = capacity); the bundles on it keep that rate, the others rise on. A bundle
// that uses nothing gets infinity. `capacities`: [resources] bytes/s. One pass fills at least one resource, so there are at
// most as many as bundles.
[[nodiscard]] std::vector<double> fair_rates(std::span<const double> capacities, std::span<const Bundle* const> bundles);

}  // namespace hetsp::simulator
