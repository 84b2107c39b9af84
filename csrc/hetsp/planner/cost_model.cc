#include "hetsp/planner/cost_model.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hetsp/base/error.h"

namespace hetsp::planner {

namespace {

void check_rate(const char* name, double value) {
  require(std::isfinite(value) && value > 0.0, "cost model: ", name, " is ", value, ", must be finite and above 0");
}

}  // namespace

double CostModel::link_seconds_per_token(int degree) const {
  if (degree <= 1 || links.empty()) return 0.0;
  const auto high = std::lower_bound(links.begin(), links.end(), degree, [](const LinkCost& l, int d) { return l.degree < d; });
  if (high != links.end() && (high->degree == degree || high == links.begin())) return high->seconds_per_token;
  const bool past = high == links.end();
  if (past && links.size() == 1) return links.back().seconds_per_token;
  const LinkCost& from = past ? links[links.size() - 2] : *(high - 1);
  const LinkCost& to = past ? links.back() : *high;
  const double slope = (to.seconds_per_token - from.seconds_per_token) / (to.degree - from.degree);
  if (past) return to.seconds_per_token + std::max(0.0, slope) * (degree - to.degree);
  return from.seconds_per_token + slope * (degree - from.degree);
}

double CostModel::compute_seconds(const Sequence& sequence) const {
  return seconds_per_pair * static_cast<double>(sequence.visible_pairs) +
         seconds_per_token * static_cast<double>(sequence.tokens);
}

double CostModel::seconds(const Sequence& sequence, int degree) const {
  require(degree >= 1, "cost model: degree is ", degree, ", must be at least 1");
  const double shared = compute_seconds(sequence) + link_seconds_per_token(degree) * static_cast<double>(sequence.tokens);
  return shared / degree + hop_seconds * (degree - 1) + sequence.fixed_cost;
}

void check(const CostModel& cost) {
  const auto coefficient = [](const char* name, double value) {
    require(std::isfinite(value) && value >= 0.0, "cost model: ", name, " is ", value, ", must be finite and at least 0");
  };
  coefficient("seconds_per_pair", cost.seconds_per_pair);
  coefficient("seconds_per_token", cost.seconds_per_token);
  coefficient("hop_seconds", cost.hop_seconds);
  coefficient("micro_batch_seconds", cost.micro_batch_seconds);
  coefficient("placeholder_seconds", cost.placeholder_seconds);
  std::int32_t last = 1;
  for (const auto& link : cost.links) {
    require(link.degree > last, "cost model: link degree ", link.degree, " follows ", last, "; degrees start at 2 and ascend");
    coefficient("seconds_per_token of a link", link.seconds_per_token);
    last = link.degree;
  }
  require(cost.shape.has_value() == cost.network.has_value(), "cost model: shape and network come together");
  if (cost.shape) check(*cost.shape), check(*cost.network);
}

int CostModel::max_head_degree() const { return shape ? shape->heads : std::numeric_limits<int>::max(); }

GroupCost CostModel::group_cost(const Strategy& kind, int degree, int ranks_per_node) const {
  require(degree >= 1, "cost model: degree is ", degree, ", must be at least 1");
  GroupCost cost;
  if (shape) {
    cost = communication_cost(*shape, *network, kind, degree, ranks_per_node, recompute ? 2 : 1);
  } else {
    cost.communication_per_token = cost.per_token = link_seconds_per_token(degree) / degree;
    cost.communication_per_sequence = cost.per_sequence = hop_seconds * (degree - 1);
  }
  cost.per_pair = seconds_per_pair / degree * (shape ? head_imbalance(*shape, kind.head_degree) : 1.0);
  cost.per_token += seconds_per_token / degree;
  return cost;
}

SequenceSeconds::SequenceSeconds(const CostModel& cost, std::span<const Sequence> sequences, int max_degree)
    : link_(max_degree + 1), hop_(cost.hop_seconds) {
  for (int degree = 2; degree <= max_degree; ++degree) link_[degree] = cost.link_seconds_per_token(degree);
  for (const auto& sequence : sequences) {
    work_.push_back(cost.compute_seconds(sequence));
    tokens_.push_back(static_cast<double>(sequence.tokens));
    fixed_.push_back(sequence.fixed_cost);
  }
}

CostModel cost_model_from_model(const ModelShape& shape, double attention_flops, double linear_flops,
                                double link_bytes_per_second, double hop_seconds) {
  check(shape);
  check_rate("attention_flops", attention_flops), check_rate("linear_flops", linear_flops);
  check_rate("link_bytes_per_second", link_bytes_per_second);

  // Ring: each of the d - 1 hops passes on the keys and values of s / d tokens, forward and again backward, and backward
  // the float gradients of both (arXiv 2310.01889). One start-up per hop, direction of the pass and layer.
  const double hop_bytes = shape.attention_layers() * 2.0 * shape.kv_width() * (2.0 * shape.bytes + shape.gradient_bytes);
  const double hop_token_seconds = hop_bytes / link_bytes_per_second;

  CostModel cost{
      .seconds_per_pair = pair_flops(shape) / attention_flops,
      .seconds_per_token = token_flops(shape) / linear_flops + window_flops_per_token(shape) / attention_flops,
      .links = {{2, hop_token_seconds}, {3, 2.0 * hop_token_seconds}},  // linear in d, and so is the table's extension
      .hop_seconds = 2.0 * shape.attention_layers() * hop_seconds};
  check(cost);
  return cost;
}

CostModel cost_model_on_network(const ModelShape& shape, const ComputeRates& rates, const Network& network, int ranks_per_node,
                                bool recompute) {
  check(shape), check(network);
  check_rate("attention_flops", rates.attention_flops), check_rate("linear_flops", rates.linear_flops);
  require(ranks_per_node >= 0, "cost model: ranks_per_node is ", ranks_per_node, ", must be at least 0");
  CostModel cost{.seconds_per_pair = pair_flops(shape, recompute) / rates.attention_flops,
                 .seconds_per_token = token_flops(shape, recompute) / rates.linear_flops +
                                      window_flops_per_token(shape, recompute) / rates.attention_flops,
                 .shape = shape,
                 .network = network,
                 .recompute = recompute};
  // e(d) = (d - 1) times the seconds of a hop per token, which jump where the ring leaves the node: linear on both sides.
  const int node = ranks_per_node;
  std::vector<int> degrees{2, 3};
  if (node > 0) degrees = {2, node, node + 1, node + 2};
  std::int32_t last = 1;
  for (const int degree : degrees) {
    if (degree <= last) continue;
    last = degree;
    const GroupCost ring = communication_cost(shape, network, {.ring_degree = degree}, degree, node, recompute ? 2 : 1);
    cost.links.push_back({degree, ring.per_token * degree});
  }
  const double start = std::max(network.intra_node.start_seconds, node > 0 ? network.inter_node.start_seconds : 0.0);
  cost.hop_seconds = shape.attention_layers() * (recompute ? 3.0 : 2.0) * start;
  // A rank that only takes part collects every layer's weights forward and backward and sends its share of the gradients on
  // (ZeRO-3, arXiv 1910.02054: 3 times the weights), over its link and its node's NICs together. Ranks that compute hide it.
  const double nics = (network.nics_per_node > 0 ? network.nics_per_node : node) * network.inter_node.bytes_per_second;
  cost.placeholder_seconds =
      3.0 * weights(shape) * shape.bytes * std::max(1.0 / network.intra_node.bytes_per_second, node > 0 ? 1.0 / nics : 0.0);
  check(cost);
  return cost;
}

}  // namespace hetsp::planner
