#include "hetsp/attention/cu_seqlens.h"

#include "hetsp/base/error.h"

namespace hetsp::attention {

namespace {

template <class Int>
std::int64_t length(const Int* cu, const Int* used, std::int64_t b) {
  return used == nullptr ? cu[b + 1] - cu[b] : used[b];
}

template <class Int>
void check(const char* name, const Int* cu, const Int* used, std::int64_t batch, std::int64_t total, std::int64_t max_seqlen) {
  require(cu[0] == 0, "cu_seqlens_", name, "[0] is ", cu[0], ", must be 0");
  for (std::int64_t b = 0; b < batch; ++b) {
    require(cu[b + 1] >= cu[b], "cu_seqlens_", name, "[", b + 1, "] is ", cu[b + 1], ", below cu_seqlens_", name, "[", b,
            "] = ", cu[b], "; it must not decrease");
    require(cu[b + 1] <= total, "cu_seqlens_", name, "[", b + 1, "] is ", cu[b + 1], ", beyond the ", total, " rows of ", name);
    const std::int64_t rows = length(cu, used, b);
    require(rows >= 0 && rows <= cu[b + 1] - cu[b], "seqused_", name, "[", b, "] is ", rows, ", must be in [0, ",
            cu[b + 1] - cu[b], "], the length of sequence ", b, " in ", name);
    require(rows <= max_seqlen, "max_seqlen_", name, " is ", max_seqlen, ", but sequence ", b, " has ", rows, " tokens in ",
            name);
  }
}

template <class Int>
void convert(const CuSeqlens& in, Segment* segments) {
  const auto *q = static_cast<const Int*>(in.q), *k = static_cast<const Int*>(in.k);
  const auto *used_q = static_cast<const Int*>(in.used_q), *used_k = static_cast<const Int*>(in.used_k);
  check("q", q, used_q, in.batch, in.total_q, in.max_seqlen_q);
  check("k", k, used_k, in.batch, in.total_k, in.max_seqlen_k);
  for (std::int64_t b = 0; b < in.batch; ++b) {
    const std::int64_t rows = length(q, used_q, b), keys = length(k, used_k, b);
    segments[b] = {q[b], q[b] + rows, k[b], k[b] + keys, keys - rows, 0, in.left, in.right};
  }
}

}  // namespace

void check_window(const CuSeqlens& in) {
  require(in.left >= -1, "window_size[0] is ", in.left, ", must be -1 (unbounded) or a number of tokens");
  require(in.right >= -1, "window_size[1] is ", in.right, ", must be -1 (unbounded) or a number of tokens");
}

void cu_seqlens_to_segments(const CuSeqlens& in, Segment* segments) {
  require(in.batch >= 0, "cu_seqlens has no entries, must have one more than there are sequences");
  check_window(in);
  if (in.is_int64) {
    convert<std::int64_t>(in, segments);
  } else {
    convert<std::int32_t>(in, segments);
  }
}

}  // namespace hetsp::attention
