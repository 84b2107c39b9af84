#include "hetsp/attention/cpu/merge.h"

#include "hetsp/attention/cpu/pack.h"
#include "hetsp/attention/softmax_state.h"
#include "hetsp/base/ceil_div.h"

namespace hetsp::attention::cpu {

namespace {

// Weights in double: two float logarithms near each other leave no digits for e^(a - b) otherwise.
template <class Acc>
void merge_row(const MergeParams& p, std::int64_t token, std::int64_t head) {
  const std::int64_t at = head * p.total_q + token;
  const auto a = state_from_lse<double>(static_cast<const Acc*>(p.lse_a)[at]);
  const auto b = state_from_lse<double>(static_cast<const Acc*>(p.lse_b)[at]);
  const auto both = merge(a, b);
  static_cast<Acc*>(p.lse)[at] = static_cast<Acc>(lse(both.state));
  const bool use_a = a.sum != 0, use_b = b.sum != 0;  // select: out of an empty part is not read
  const double weight_a = both.a / both.state.sum, weight_b = both.b / both.state.sum;
  const Acc *out_a = row<Acc>(p.out_a, token, head), *out_b = row<Acc>(p.out_b, token, head);
  Acc* out = row<Acc>(p.out, token, head);
  for (std::int64_t i = 0; i < p.head_dim_v; ++i)
    out[i] = static_cast<Acc>((use_a ? weight_a * out_a[i] : 0.0) + (use_b ? weight_b * out_b[i] : 0.0));
}

}  // namespace

void merge(const MergeParams& p, Parallel& parallel) {
  constexpr std::int64_t kRows = 256;  // an item large enough to outweigh the counter
  for_each_item(parallel, ceil_div(p.total_q, kRows), [&](std::int64_t item, int) {
    for (std::int64_t token = item * kRows; token < std::min((item + 1) * kRows, p.total_q); ++token)
      for (std::int64_t head = 0; head < p.heads; ++head)
        p.is_double ? merge_row<double>(p, token, head) : merge_row<float>(p, token, head);
  });
}

}  // namespace hetsp::attention::cpu
