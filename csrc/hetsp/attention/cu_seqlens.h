// flash-attn's packed-batch description, turned into segments at the edge: sequence b holds query rows
// [cu_q[b], cu_q[b+1]) and key rows [cu_k[b], cu_k[b+1]), or the first used_q[b] and used_k[b] of them; causal and windows are
// aligned at the bottom right of what is used.
#pragma once

#include <cstdint>

#include "hetsp/attention/segment.h"

namespace hetsp::attention {

struct CuSeqlens {
  const void *q, *k;  // [batch + 1] int32, or int64 where is_int64; host memory
  bool is_int64;
  std::int64_t batch;
  std::int64_t total_q, total_k;          // rows of the packed tensors; cu[batch] may be less (an unused tail)
  std::int64_t max_seqlen_q, max_seqlen_k;  // upper bounds that the caller promises; checked
  std::int64_t left, right;               // window, tokens, or -1
  const void *used_q = nullptr, *used_k = nullptr;  // [batch] of the same type, rows in use; null: all
};

// Throws InvalidArgument, naming the value, where the window is neither -1 nor a number of tokens: all of a description that
// the host can check where its arrays lie on a GPU.
void check_window(const CuSeqlens& cu_seqlens);

// Writes batch segments. Throws InvalidArgument, naming the index and the value, where an array does not start at 0,
// decreases or ends beyond the tensor, where more of a sequence is used than there is, or where what is used is longer than
// max_seqlen; `segments` is then unspecified.
void cu_seqlens_to_segments(const CuSeqlens& cu_seqlens, Segment* segments);

}  // namespace hetsp::attention
