// What a model's sizes say about work, traffic and memory. Knows no machine.
#pragma once

#include <cstdint>

namespace hetsp::planner {

// A decoder of the Llama family (arXiv 2302.13971): gated MLP, grouped-query attention, an output projection. Layers are of
// three kinds: they attend to everything, to a window, or (state-space and convolution layers) to nothing; all have the MLP.
struct ModelShape {
  std::int32_t layers = 32;  // of all kinds
  std::int64_t hidden = 4096, intermediate = 14336;
  std::int32_t heads = 32, kv_heads = 8, head_dim = 128;
  std::int64_t vocabulary = 128256;
  std::int32_t bytes = 2;           // of an element of activations, keys and values
  std::int32_t gradient_bytes = 4;  // of an element of the gradients of keys and values on the way round the ring
  std::int32_t windowed_layers = 0;  // of the layers: they see `window` keys before each query's own
  std::int64_t window = 0;           // tokens
  std::int32_t attentionless_layers = 0;  // of the layers

  [[nodiscard]] std::int32_t full_layers() const { return layers - windowed_layers - attentionless_layers; }
  [[nodiscard]] std::int32_t attention_layers() const { return layers - attentionless_layers; }
  [[nodiscard]] double q_width() const { return static_cast<double>(heads) * head_dim; }  // elements of a token's queries
  [[nodiscard]] double kv_width() const { return static_cast<double>(kv_heads) * head_dim; }  // of its keys, and of its values
  friend bool operator==(const ModelShape&, const ModelShape&) = default;
};

// Throws InvalidArgument naming the field that is out of range.
void check(const ModelShape& shape);

// Weights, without the embedding table: that one is looked up, not multiplied.
[[nodiscard]] double weights(const ModelShape& shape);

// FLOP of forward + backward; with `recompute` the forward runs twice. A pair is a visible (query, key) pair of the layers
// that attend to everything; the pairs of windowed layers, `window` + 1 a query, are counted per token: too many for
// sequences shorter than the window.
[[nodiscard]] double pair_flops(const ModelShape& shape, bool recompute = false);
[[nodiscard]] double token_flops(const ModelShape& shape, bool recompute = false);  // linear modules
[[nodiscard]] double window_flops_per_token(const ModelShape& shape, bool recompute = false);

// Bytes of activations that a token keeps from forward to backward: what every module's backward reads, or, with
// `recompute`, the layers' inputs and one layer's modules.
[[nodiscard]] double activation_bytes_per_token(const ModelShape& shape, bool recompute = false);

}  // namespace hetsp::planner
