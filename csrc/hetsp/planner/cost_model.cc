#include "hetsp/planner/cost_model.h"

#include <algorithm>
#include <cmath>

#include "hetsp/base/error.h"

namespace hetsp::planner {

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
  std::int32_t last = 1;
  for (const auto& link : cost.links) {
    require(link.degree > last, "cost model: link degree ", link.degree, " follows ", last, "; degrees start at 2 and ascend");
    coefficient("seconds_per_token of a link", link.seconds_per_token);
    last = link.degree;
  }
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
  const auto count = [](const char* name, std::int64_t value) {
    require(value >= 1, "model shape: ", name, " is ", value, ", must be at least 1");
  };
  count("layers", shape.layers), count("hidden", shape.hidden), count("intermediate", shape.intermediate);
  count("heads", shape.heads), count("kv_heads", shape.kv_heads), count("head_dim", shape.head_dim);
  count("vocabulary", shape.vocabulary), count("bytes", shape.bytes), count("gradient_bytes", shape.gradient_bytes);
  require(shape.heads % shape.kv_heads == 0, "model shape: heads is ", shape.heads, ", must be a multiple of kv_heads, ",
          shape.kv_heads);
  const auto rate = [](const char* name, double value) {
    require(std::isfinite(value) && value > 0.0, "cost model: ", name, " is ", value, ", must be finite and above 0");
  };
  rate("attention_flops", attention_flops), rate("linear_flops", linear_flops),
      rate("link_bytes_per_second", link_bytes_per_second);

  const double layers = shape.layers, head_dim = shape.head_dim, hidden = static_cast<double>(shape.hidden);
  const double q_width = shape.heads * head_dim, kv_width = shape.kv_heads * head_dim;

  // Attention, per visible pair and head: Q K^T and P V are 2 products of 2 head_dim FLOP; backward has 5 such products
  // (S again, dP, dV, dQ, dK), 2.5 times the forward (FlashAttention-2, arXiv 2307.08691, section 3.1): 7 in all.
  const double pair_flops = 7.0 * 2.0 * q_width * layers;

  // Linear modules: 6 FLOP per token and weight, 2 forward and 4 backward (arXiv 2001.08361, section 2.1). Weights of a
  // layer: Q and output projections, K and V, the three matrices of the gated MLP; once the output projection.
  const double layer_weights =
      2.0 * hidden * q_width + 2.0 * hidden * kv_width + 3.0 * hidden * static_cast<double>(shape.intermediate);
  const double token_flops = 6.0 * (layers * layer_weights + hidden * static_cast<double>(shape.vocabulary));

  // Ring: each of the d - 1 hops passes on the keys and values of s / d tokens, forward and again backward, and backward
  // the float gradients of both (arXiv 2310.01889). One start-up per hop, direction of the pass and layer.
  const double hop_bytes = layers * 2.0 * kv_width * (2.0 * shape.bytes + shape.gradient_bytes);
  const double hop_token_seconds = hop_bytes / link_bytes_per_second;

  CostModel cost{
      .seconds_per_pair = pair_flops / attention_flops,
      .seconds_per_token = token_flops / linear_flops,
      .links = {{2, hop_token_seconds}, {3, 2.0 * hop_token_seconds}},  // linear in d, and so is the table's extension
      .hop_seconds = 2.0 * layers * hop_seconds};
  check(cost);
  return cost;
}

}  // namespace hetsp::planner
