// The op of pieces.h: check -> allocate -> params -> launch.
#include <algorithm>
#include <string>
#include <utility>

#include "hetsp/attention/validate.h"
#include "hetsp/base/error.h"
#include "torch_ops/at_edge.h"
#include "torch_ops/attention_ops.h"
#include "torch_ops/attention_tensors.h"

namespace hetsp::torch_ops {

namespace {

// Names a piece's tensor in an error.
std::string of_piece(const char* what, std::size_t index) { return concat(what, "[", index, "]"); }

// Shape of the whole: total_k counts all pieces.
attention::Shape check_pieces(const Tensor& q, const std::vector<Tensor>& k, const std::vector<Tensor>& v) {
  require(k.size() == v.size(), "there are ", k.size(), " pieces of k and ", v.size(), " of v, must be as many");
  require(!k.empty() && k.size() <= attention::most_pieces, "there are ", k.size(), " pieces of keys, must be 1 to ",
          attention::most_pieces);
  attention::Shape shape = check_qkv(q, k[0], v[0]);
  for (std::size_t i = 1; i < k.size(); ++i) {
    check(of_piece("k", i).c_str(), k[i], q, q.scalar_type(), {-1, shape.heads_kv, shape.head_dim});
    check(of_piece("v", i).c_str(), v[i], q, q.scalar_type(), {k[i].size(0), shape.heads_kv, shape.head_dim_v});
    shape.total_k += k[i].size(0);
  }
  return shape;
}

void check_flags(const Tensor& q, const std::optional<Tensor>& ready, const std::vector<int64_t>& epochs, std::size_t pieces) {
  require(epochs.empty() || epochs.size() == pieces, "there are ", epochs.size(), " epochs for ", pieces,
          " pieces, must be one each, or none");
  for (const int64_t epoch : epochs)
    require(-1 <= epoch && epoch < int64_t{1} << 32, "an epoch is ", epoch, ", must be a number of 32 bits, or -1: no wait");
  const bool waits = std::any_of(epochs.begin(), epochs.end(), [](int64_t epoch) { return epoch >= 0; });
  require(ready.has_value() || !waits, "epochs are given without the flags `ready` that have to reach them");
  if (!ready) return;
  check("ready", *ready, q, ScalarType::Int, {static_cast<int64_t>(pieces)});
  require(ready->is_contiguous(), "ready is not contiguous: a copy of it would never change");
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> pieces_attention_forward(const AttentionLaunch& launch, Tensor q, std::vector<Tensor> k,
                                                            std::vector<Tensor> v, Tensor segments, std::optional<Tensor> ready,
                                                            std::vector<int64_t> epochs, double softmax_scale, double softcap,
                                                            std::optional<Tensor> sink, std::optional<Tensor> seed_out,
                                                            std::optional<Tensor> seed_lse, bool partial, double patience,
                                                            std::optional<Tensor> lists) {
  return at_edge([&] {
    attention::PiecesParams params{};
    params.call.shape = check_pieces(q, k, v);
    params.call.score = {softmax_scale, softcap};
    check_flags(q, ready, epochs, k.size());
    require(patience >= 0 && patience <= 1e9, "patience is ", patience, " s, must be 0 to 1e9");
    ForwardExtras extras{segments, sink, seed_out, seed_lse, lists};
    extras.check(q, params.call.shape);
    q = with_contiguous_rows(q);
    params.call.q = const_view(q);
    extras.fill(params.call);
    attention::KeyPiece pieces[attention::most_pieces];
    for (std::size_t i = 0; i < k.size(); ++i) {
      const bool waits = !epochs.empty() && epochs[i] >= 0;
      // A copy would be made before the piece is there.
      for (const auto& [what, t] : {std::pair("k", &k[i]), std::pair("v", &v[i])})
        require(t->size(2) == 1 || t->stride(2) == 1, of_piece(what, i), " has a last dimension of stride ", t->stride(2),
                ", must be contiguous");
      pieces[i] = {const_view(k[i]), const_view(v[i]), k[i].size(0), nullptr, 0};
      if (waits) {
        pieces[i].ready = static_cast<const std::uint32_t*>(ready->const_data_ptr()) + i;
        pieces[i].epoch = static_cast<std::uint32_t>(epochs[i]);
      }
    }
    const ForwardResults results(q, params.call, partial);
    const Tensor late = empty(q, {1}, ScalarType::Int);
    params.pieces = pieces, params.count = static_cast<int>(k.size());
    params.patience_ns = static_cast<int64_t>(patience * 1e9);
    params.late = static_cast<std::int32_t*>(late.mutable_data_ptr());
    attention::validate(params);
    launch.pieces(params, device_of(q));
    return std::tuple(results.out, results.lse, late);
  });
}

}  // namespace hetsp::torch_ops
