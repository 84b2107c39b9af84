// How much of its activations a long sequence should send to host memory, so that it needs fewer ranks.
#pragma once

#include <cstdint>
#include <optional>

#include "hetsp/planner/cluster.h"
#include "hetsp/planner/cost_model.h"
#include "hetsp/planner/plan.h"

namespace hetsp::planner {

// One sequence on one rank's layers, undivided: seconds and bytes both divide by the ranks that share it, so the answer does
// not depend on their number. Layers alike; the first and the last are never offloaded (they leave no time to hide in).
struct LayerActivations {
  std::int32_t layers = 0;         // l, of a rank
  double seconds = 0.0;            // T, forward of one layer
  double bytes = 0.0;              // Act, kept by one layer
  double room = 0.0;               // bytes that a rank has for the activations of all its layers: l Act(C)
  double bytes_per_second = 0.0;   // B, the lesser of device to host and host to device
};

struct Offload {
  double ratio = 0.0;       // r, of the activations of each inner layer
  std::int64_t ranks = 1;   // D
};

// D(r) = ceil((2 + (1 - r)(l - 2)) Act / room): ranks that hold the sequence.
[[nodiscard]] std::int64_t ranks_needed(const LayerActivations& layer, double ratio);

// ByteScale's choice (arXiv 2502.21231, equation 3): the fewest ranks with copies that computation hides, r Act <= T B, and
// the least traffic among those. D falls with r, so the fewest ranks are D* = D(min(1, T B / Act)), and the least ratio that
// reaches them is r = max(0, 1 - (D* room / Act - 2) / (l - 2)): 0 where no rank is saved. Throws InvalidArgument naming the
// field that is out of range.
[[nodiscard]] Offload choose_offload(const LayerActivations& layer);

// The sequence's layer on a rank with that host memory, in tokens for bytes, with `tokens_per_rank` of room.
[[nodiscard]] LayerActivations layer_of(const Sequence& sequence, const CostModel& cost, const HostMemory& host,
                                        std::int64_t tokens_per_rank);

// The largest ratio that computation hides: min(1, T B / Act); 0 without host memory or inner layers.
[[nodiscard]] double hidden_ratio(const Sequence& sequence, const CostModel& cost, const HostMemory& host);

// The least ratio at which a group with room for `room` tokens holds so many; none where even `hidden` is too little.
[[nodiscard]] std::optional<double> ratio_to_fit(std::int64_t tokens, std::int64_t room, const HostMemory& host, double hidden);

}  // namespace hetsp::planner
