#include "hetsp/attention/cu_seqlens.h"

#include "hetsp/base/error.h"

namespace hetsp::attention {

namespace {

template <class Int>
void check(const char* name, const Int* cu, std::int64_t batch, std::int64_t total, std::int64_t max_seqlen) {
  require(cu[0] == 0, "cu_seqlens_", name, "[0] is ", cu[0], ", must be 0");
  for (std::int64_t b = 0; b < batch; ++b) {
    require(cu[b + 1] >= cu[b], "cu_seqlens_", name, "[", b + 1, "] is ", cu[b + 1], ", below cu_seqlens_", name, "[", b,
            "] = ", cu[b], "; it must not decrease");
    require(cu[b + 1] <= total, "cu_seqlens_", name, "[", b + 1, "] is ", cu[b + 1], ", beyond the ", total, " rows of ", name);
    require(cu[b + 1] - cu[b] <= max_seqlen, "max_seqlen_", name, " is ", max_seqlen, ", but sequence ", b, " has ",
            cu[b + 1] - cu[b], " tokens in ", name);
  }
}

template <class Int>
void convert(const CuSeqlens& in, Segment* segments) {
  const auto *q = static_cast<const Int*>(in.q), *k = static_cast<const Int*>(in.k);
  check("q", q, in.batch, in.total_q, in.max_seqlen_q);
  check("k", k, in.batch, in.total_k, in.max_seqlen_k);
  for (std::int64_t b = 0; b < in.batch; ++b) {
    const std::int64_t rows = q[b + 1] - q[b], keys = k[b + 1] - k[b];
    segments[b] = {q[b], q[b + 1], k[b], k[b + 1], keys - rows, 0, in.left, in.right};
  }
}

}  // namespace

void cu_seqlens_to_segments(const CuSeqlens& in, Segment* segments) {
  require(in.batch >= 0, "cu_seqlens has no entries, must have one more than there are sequences");
  require(in.left >= -1, "window_size[0] is ", in.left, ", must be -1 (unbounded) or a number of tokens");
  require(in.right >= -1, "window_size[1] is ", in.right, ", must be -1 (unbounded) or a number of tokens");
  if (in.is_int64) {
    convert<std::int64_t>(in, segments);
  } else {
    convert<std::int32_t>(in, segments);
  }
}

}  // namespace hetsp::attention
