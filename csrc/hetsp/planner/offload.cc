#include "hetsp/planner/offload.h"

#include <algorithm>
#include <cmath>

#include "hetsp/base/error.h"

namespace hetsp::planner {

namespace {

constexpr double kRounding = 1e-12;  // relative: a quotient this close above an integer is that integer

}  // namespace

std::int64_t ranks_needed(const LayerActivations& layer, double ratio) {
  const double kept = std::min(layer.layers, 2) + (1.0 - ratio) * std::max(0, layer.layers - 2);
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::ceil(kept * layer.bytes / layer.room * (1.0 - kRounding))));
}

Offload choose_offload(const LayerActivations& layer) {
  require(layer.layers >= 1, "offload: layers is ", layer.layers, ", must be at least 1");
  const auto positive = [](const char* name, double value) {
    require(std::isfinite(value) && value > 0.0, "offload: ", name, " is ", value, ", must be finite and above 0");
  };
  positive("bytes", layer.bytes), positive("room", layer.room);
  require(layer.seconds >= 0.0 && layer.bytes_per_second >= 0.0, "offload: seconds is ", layer.seconds,
          " and bytes_per_second ", layer.bytes_per_second, ", both must be at least 0");
  const double hidden = std::min(1.0, layer.seconds * layer.bytes_per_second / layer.bytes);
  Offload best{0.0, ranks_needed(layer, 0.0)};
  if (layer.layers <= 2) return best;
  best.ranks = ranks_needed(layer, hidden);
  const double inner = (static_cast<double>(best.ranks) * layer.room / layer.bytes - 2.0) / (layer.layers - 2);
  best.ratio = std::clamp(1.0 - inner, 0.0, hidden);
  return best;
}

}  // namespace hetsp::planner
