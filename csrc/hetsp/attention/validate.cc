#include "hetsp/attention/validate.h"

#include <cmath>

#include "hetsp/base/error.h"

namespace hetsp::attention {

namespace {

// Positions may be added to windows and row numbers without overflow.
constexpr std::int64_t kMaxPosition = std::int64_t{1} << 60;

void check(const Shape& shape) {
  require(shape.total_q >= 0 && shape.total_k >= 0, "total_q, total_k are ", shape.total_q, ", ", shape.total_k,
          ", must be >= 0");
  require(shape.heads >= 1, "q has ", shape.heads, " heads, must have at least 1");
  require(shape.heads_kv >= 1, "k and v have ", shape.heads_kv, " heads, must have at least 1");
  require(shape.heads % shape.heads_kv == 0, "q has ", shape.heads, " heads, which is no multiple of the ", shape.heads_kv,
          " heads of k and v");
  require(shape.head_dim >= 1 && shape.head_dim_v >= 1, "head_dim, head_dim_v are ", shape.head_dim, ", ", shape.head_dim_v,
          ", must be at least 1");
}

void check(const Score& score) {
  require(std::isfinite(score.softmax_scale), "softmax_scale is ", score.softmax_scale, ", must be finite");
  require(std::isfinite(score.softcap) && score.softcap >= 0, "softcap is ", score.softcap, ", must be 0 (off) or positive");
}

void check_range(const char* name, std::int64_t index, std::int64_t begin, std::int64_t end, std::int64_t total) {
  require(0 <= begin && begin <= end && end <= total, "segment ", index, " has ", name, " rows [", begin, ", ", end,
          "), must be a run inside [0, ", total, ")");
}

}  // namespace

void validate(const ForwardParams& params) {
  check(params.shape);
  check(params.score);
  require((params.seed_out.data == nullptr) == (params.seed_lse == nullptr), "seed_out and seed_lse must be given together");
}

void validate(const PiecesParams& params) {
  validate(params.call);
  require(1 <= params.count && params.count <= most_pieces, "there are ", params.count, " pieces of keys, must be 1 to ",
          most_pieces, ": more go in several calls, each seeded by the one before");
  require(params.patience_ns >= 0, "patience is ", params.patience_ns, " ns, must be >= 0");
  std::int64_t rows = 0;
  for (int i = 0; i < params.count; ++i) rows += params.pieces[i].rows;
  invariant(rows == params.call.shape.total_k, "pieces of ", rows, " rows, a call of ", params.call.shape.total_k);
}

void validate(const BackwardParams& params) {
  check(params.shape);
  check(params.score);
  invariant((params.sink == nullptr) == (params.dsink == nullptr), "sink without dsink");
}

void validate(const DeltaParams& params) {
  require(params.total_q >= 0, "total_q is ", params.total_q, ", must be >= 0");
  require(params.heads >= 1 && params.head_dim_v >= 1, "heads, head_dim_v are ", params.heads, ", ", params.head_dim_v,
          ", must be at least 1");
}

void validate(const MergeParams& params) {
  require(params.total_q >= 0, "total_q is ", params.total_q, ", must be >= 0");
  require(params.heads >= 1 && params.head_dim_v >= 1, "heads, head_dim_v are ", params.heads, ", ", params.head_dim_v,
          ", must be at least 1");
}

void validate_segments(const Segment* segments, std::int64_t count, std::int64_t total_q, std::int64_t total_k) {
  for (std::int64_t index = 0; index < count; ++index) {
    const Segment& s = segments[index];
    check_range("query", index, s.q_begin, s.q_end, total_q);
    check_range("key", index, s.k_begin, s.k_end, total_k);
    for (const std::int64_t position : {s.q_pos0, s.k_pos0})
      require(-kMaxPosition <= position && position <= kMaxPosition, "segment ", index, " starts at position ", position,
              ", must be within 2^60 of 0");
    for (const std::int64_t window : {s.left, s.right})
      require(-1 <= window && window <= kMaxPosition, "segment ", index, " has a window of ", window,
              " tokens, must be -1 (unbounded) or a number of tokens up to 2^60");
  }
}

}  // namespace hetsp::attention
