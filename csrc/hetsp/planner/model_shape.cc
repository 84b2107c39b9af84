#include "hetsp/planner/model_shape.h"

#include "hetsp/base/error.h"

namespace hetsp::planner {

namespace {

// Q and output projections, K and V, the three matrices of the gated MLP.
double layer_weights(const ModelShape& shape) {
  const auto hidden = static_cast<double>(shape.hidden), intermediate = static_cast<double>(shape.intermediate);
  return 2.0 * hidden * shape.q_width() + 2.0 * hidden * shape.kv_width() + 3.0 * hidden * intermediate;
}

// Attention, per pair and layer: Q K^T and P V are 2 products of 2 head_dim FLOP a head; backward has 5 such products (S
// again, dP, dV, dQ, dK), 2.5 times the forward (FlashAttention-2, arXiv 2307.08691, section 3.1): 7 in all.
double layer_pair_flops(const ModelShape& shape, bool recompute) { return (recompute ? 9.0 : 7.0) * 2.0 * shape.q_width(); }

}  // namespace

void check(const ModelShape& shape) {
  const auto count = [](const char* name, std::int64_t value, std::int64_t least = 1) {
    require(value >= least, "model shape: ", name, " is ", value, ", must be at least ", least);
  };
  count("layers", shape.layers), count("hidden", shape.hidden), count("intermediate", shape.intermediate);
  count("heads", shape.heads), count("kv_heads", shape.kv_heads), count("head_dim", shape.head_dim);
  count("vocabulary", shape.vocabulary), count("bytes", shape.bytes), count("gradient_bytes", shape.gradient_bytes);
  count("windowed_layers", shape.windowed_layers, 0), count("window", shape.window, 0);
  count("attentionless_layers", shape.attentionless_layers, 0);
  require(shape.heads % shape.kv_heads == 0, "model shape: heads is ", shape.heads, ", must be a multiple of kv_heads, ",
          shape.kv_heads);
  require(shape.full_layers() >= 0, "model shape: windowed_layers is ", shape.windowed_layers, " and attentionless_layers ",
          shape.attentionless_layers, ", together more than layers, ", shape.layers);
}

double weights(const ModelShape& shape) {
  return shape.layers * layer_weights(shape) + static_cast<double>(shape.hidden) * static_cast<double>(shape.vocabulary);
}

double pair_flops(const ModelShape& shape, bool recompute) { return shape.full_layers() * layer_pair_flops(shape, recompute); }

// 6 FLOP per token and weight, 2 forward and 4 backward (arXiv 2001.08361, section 2.1).
double token_flops(const ModelShape& shape, bool recompute) { return (recompute ? 8.0 : 6.0) * weights(shape); }

double window_flops_per_token(const ModelShape& shape, bool recompute) {
  return shape.windowed_layers * static_cast<double>(shape.window + 1) * layer_pair_flops(shape, recompute);
}

double activation_bytes_per_token(const ModelShape& shape, bool recompute) {
  const auto hidden = static_cast<double>(shape.hidden), intermediate = static_cast<double>(shape.intermediate);
  // Two norms with their inputs; queries, keys, values and the attention's output; gate, up and their product.
  const double layer = 4.0 * hidden + 2.0 * shape.q_width() + 2.0 * shape.kv_width() + 3.0 * intermediate;
  return shape.bytes * (recompute ? shape.layers * hidden + layer : shape.layers * layer);
}

}  // namespace hetsp::planner
