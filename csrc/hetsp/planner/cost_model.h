// What a sequence costs the ranks that share it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "hetsp/planner/group_cost.h"
#include "hetsp/planner/model_shape.h"
#include "hetsp/planner/network.h"
#include "hetsp/planner/plan.h"

namespace hetsp::planner {

// Seconds per token that crosses the links of a group of `degree` ranks; see CostModel.
struct LinkCost {
  std::int32_t degree;
  double seconds_per_token;
};

// Seconds of forward + backward on each of the d ranks that share a sequence of s tokens and p visible pairs:
//
//   t_d = (a p + b s) / d  +  [d > 1] ( e(d) s / d + h (d - 1) )  +  fixed
//
// a, b: attention per pair and linear modules per token; e(d): communication; h: start-up of a hop. FlexSP
// (arXiv 2412.01523) is e(d) = A / v_d with the bandwidth v_d of an all-to-all over d ranks; a ring (arXiv 2310.01889) is
// e(d) = (d - 1) bytes per token / bandwidth. A rank's time is the sum over its groups plus micro_batch_seconds for each
// micro-batch of the plan. Communication is counted as if nothing hid it: a plan that wins here wins overlapped, too.
//
// A model that has a shape and a network also knows what other kinds of group cost, and where a group crosses nodes
// (group_cost); its table e(d) is then the plain ring's.
struct CostModel {
  double seconds_per_pair = 0.0;     // a
  double seconds_per_token = 0.0;    // b
  std::vector<LinkCost> links{};     // e(d) at some degrees >= 2, ascending; linear between them, past the last with the
                                  // slope of the last two where that rises, constant before the first; empty: e = 0
  double hop_seconds = 0.0;  // h
  double micro_batch_seconds = 0.0;  // optimizer-independent work of a micro-batch (FlexSP's b1)
  double placeholder_seconds = 0.0;  // beside it, of a rank without sequences where parameters are sharded: collecting them
  std::optional<ModelShape> shape{};
  std::optional<Network> network{};
  bool recompute = false;  // the forward runs again in the backward, with its communication

  [[nodiscard]] double link_seconds_per_token(int degree) const;  // e(d); 0 for one rank
  [[nodiscard]] double compute_seconds(const Sequence& sequence) const;  // a p + b s: the work, on one rank
  [[nodiscard]] double seconds(const Sequence& sequence, int degree) const;  // t_d

  // Cost of a group of that kind whose first rank is a node's first; ranks_per_node 0: one node. A model without shape and
  // network has one kind, its table: then `kind` says nothing, and pairs, tokens and sequences add up to `seconds`.
  // Throws InvalidArgument where the degrees do not multiply to `degree` or head_degree exceeds the heads.
  [[nodiscard]] GroupCost group_cost(const Strategy& kind, int degree, int ranks_per_node) const;
  // Most ranks that can split the heads; the largest int where the model has no shape.
  [[nodiscard]] int max_head_degree() const;
};

// Throws InvalidArgument naming the coefficient that is negative or not finite, or the degrees that do not ascend.
void check(const CostModel& cost);

// t_d for many (sequence, degree) pairs, e(d) tabulated for 1..max_degree.
class SequenceSeconds {
 public:
  SequenceSeconds(const CostModel& cost, std::span<const Sequence> sequences, int max_degree);
  [[nodiscard]] double operator()(int sequence, int degree) const {
    const double shared = work_[sequence] + link_[degree] * tokens_[sequence];
    return shared / degree + hop_ * (degree - 1) + fixed_[sequence];
  }
  [[nodiscard]] double work(int sequence) const { return work_[sequence]; }  // a p + b s
  [[nodiscard]] double link(int degree) const { return link_[degree]; }  // e(d)
  [[nodiscard]] double hop() const { return hop_; }
  [[nodiscard]] int max_degree() const { return static_cast<int>(link_.size()) - 1; }
  [[nodiscard]] int sequences() const { return static_cast<int>(work_.size()); }

 private:
  std::vector<double> link_;  // [max_degree + 1]
  std::vector<double> work_, tokens_, fixed_;  // [sequences]
  double hop_;
};

// The cost model of that decoder under ring attention on ranks that sustain attention_flops and linear_flops (FLOP/s), with
// links of link_bytes_per_second and a start-up of hop_seconds for a message. Formulas stand in the source.
[[nodiscard]] CostModel cost_model_from_model(const ModelShape& shape, double attention_flops, double linear_flops,
                                              double link_bytes_per_second, double hop_seconds = 0.0);

// FLOP/s that a rank sustains over forward and backward.
struct ComputeRates {
  double attention_flops = 0.0, linear_flops = 0.0;
};

// The same decoder on a cluster: every kind of group that communication_cost() knows; links and hop_seconds are the plain ring
// over nodes of ranks_per_node (0: one node).
[[nodiscard]] CostModel cost_model_on_network(const ModelShape& shape, const ComputeRates& rates, const Network& network,
                                              int ranks_per_node, bool recompute = false);

}  // namespace hetsp::planner
