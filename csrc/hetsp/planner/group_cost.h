// What a kind of group costs each of its ranks, linear in a sequence's pairs and tokens.
#pragma once

#include "hetsp/planner/model_shape.h"
#include "hetsp/planner/network.h"
#include "hetsp/planner/plan.h"

namespace hetsp::planner {

// Seconds of forward + backward on each rank of a group, per sequence of it:
//   per_pair * visible pairs + per_token * tokens + per_sequence
// Communication is included as if no computation hid it; a sequence pays start-ups as if it travelled alone.
struct GroupCost {
  double per_pair = 0.0, per_token = 0.0, per_sequence = 0.0;
  double communication_per_token = 0.0, communication_per_sequence = 0.0;  // the part of them that is communication
};

// Bytes that cross the links for one rank, one layer and one token that the rank holds, without the factor of hops:
// forward and backward of one pass. With d ranks and n = tokens / d a rank holds, e bytes an element and g of a gradient,
// D the head dimension, H heads of queries and Hkv of keys and values:
//
//   Ulysses     (arXiv 2309.14509)  forward e n D (2 H + 2 max(Hkv, d)) (d - 1) / d, backward the same; d <= H. Keys are
//               repeated where Hkv < d; H that d does not divide leaves ceil(H / d) heads on some rank: attention takes
//               ceil(H / d) d / H of an even share.
//   ring        (arXiv 2310.01889)  forward (d - 1) hops of n 2 Hkv D e, backward (d - 1) hops of n 2 Hkv D (e + g)
//   gather      (Llama 3, arXiv 2407.21783, section 3.3.2)  the same bytes by all-gather and reduce-scatter
//   hybrid      (arXiv 2405.07719)  Ulysses over head_degree neighbours, rings over every head_degree-th rank, which pass on
//               keys of max(Hkv, head_degree) / head_degree heads of n head_degree tokens
//
// Throws InvalidArgument where head_degree > heads, or the degrees do not multiply to `degree`.
[[nodiscard]] GroupCost communication_cost(const ModelShape& shape, const Network& network, const Strategy& kind, int degree,
                                           int ranks_per_node, int forward_passes);

// ceil(H / d) d / H: the attention of the rank with the most heads over an even share.
[[nodiscard]] double head_imbalance(const ModelShape& shape, int head_degree);

}  // namespace hetsp::planner
