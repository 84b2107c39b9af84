#include "hetsp/planner/group_cost.h"

#include <algorithm>

#include "hetsp/base/ceil_div.h"
#include "hetsp/base/error.h"

namespace hetsp::planner {

double head_imbalance(const ModelShape& shape, int head_degree) {
  return static_cast<double>(ceil_div(shape.heads, head_degree)) * head_degree / shape.heads;
}

GroupCost communication_cost(const ModelShape& shape, const Network& network, const Strategy& kind, int degree,
                             int ranks_per_node, int forward_passes) {
  require(degree >= 1 && kind.head_degree >= 1 && kind.ring_degree >= 1 && kind.head_degree * kind.ring_degree == degree,
          "group cost: head_degree ", kind.head_degree, " x ring_degree ", kind.ring_degree, " must be the degree, ", degree);
  require(kind.head_degree <= shape.heads, "group cost: head_degree is ", kind.head_degree, ", the model has ", shape.heads,
          " heads");
  const double e = shape.bytes, g = shape.gradient_bytes, dim = shape.head_dim, layers = shape.attention_layers();
  const double kv_heads = std::max(shape.kv_heads, kind.head_degree);  // sent, repeated where there are fewer
  double seconds = 0.0;  // per layer and token that a rank holds
  double starts = 0.0;   // seconds per layer and sequence
  if (kind.head_degree > 1) {
    const Crossing crossing(network, kind.head_degree, ranks_per_node);
    const double bytes = e * dim * (2.0 * shape.heads + 2.0 * kv_heads) * (kind.head_degree - 1) / kind.head_degree;
    seconds += (forward_passes + 1) * bytes * crossing.all_to_all();
    starts += 4.0 * (forward_passes + 1) * crossing.start_seconds();  // queries, keys, values, output
  }
  if (kind.ring_degree > 1) {
    const Crossing crossing(network, degree, ranks_per_node);
    const double hops = kind.ring_degree - 1;
    const double bytes = 2.0 * kv_heads * dim * (forward_passes * e + e + g);
    seconds += hops * bytes * (kind.gather_kv ? crossing.all_gather() : crossing.ring_hop(kind.head_degree));
    // Gathered keys are gathered again for the backward, and their gradients scattered in a collective of its own.
    starts += (kind.gather_kv ? forward_passes + 2.0 : (forward_passes + 1.0) * hops) * crossing.start_seconds();
  }
  GroupCost cost;
  cost.per_token = cost.communication_per_token = layers * seconds / degree;
  cost.per_sequence = cost.communication_per_sequence = layers * starts;
  return cost;
}

}  // namespace hetsp::planner
