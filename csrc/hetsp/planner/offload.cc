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

LayerActivations layer_of(const Sequence& sequence, const CostModel& cost, const HostMemory& host,
                          std::int64_t tokens_per_rank) {
  // Backward counts 2.5 times attention's forward and twice the linear modules' (cost_model.cc).
  const double forward = cost.seconds_per_pair * static_cast<double>(sequence.visible_pairs) / 3.5 +
                         cost.seconds_per_token * static_cast<double>(sequence.tokens) / 3.0;
  return {.layers = host.layers,
          .seconds = forward / host.layers,
          .bytes = static_cast<double>(sequence.tokens),
          .room = static_cast<double>(tokens_per_rank) * host.layers,
          .bytes_per_second = host.tokens_per_second};
}

double hidden_ratio(const Sequence& sequence, const CostModel& cost, const HostMemory& host) {
  if (host.layers <= 2 || sequence.tokens == 0) return 0.0;
  const LayerActivations layer = layer_of(sequence, cost, host, 1);
  return std::min(1.0, layer.seconds * layer.bytes_per_second / layer.bytes);
}

std::optional<double> ratio_to_fit(std::int64_t tokens, std::int64_t room, const HostMemory& host, double hidden) {
  if (tokens <= room) return 0.0;
  if (host.offloadable() <= 0.0) return std::nullopt;
  const double ratio = (1.0 - static_cast<double>(room) / static_cast<double>(tokens)) / host.offloadable();
  return ratio <= hidden ? std::optional(ratio) : std::nullopt;
}

}  // namespace hetsp::planner
