// Where dk and dv are summed: one row per key in the accumulate type, without softmax_scale.
#pragma once

#include <cstddef>
#include <cstdint>

#include "hetsp/attention/cpu/scratch.h"
#include "hetsp/attention/params.h"
#include "hetsp/base/zero_pages.h"

namespace hetsp::attention::cpu {

template <class Acc>
struct Slab {
  Acc *dk, *dv;  // [rows][padded(head_dim)], [rows][padded(head_dim_v)]
};

// All slabs of a schedule's split components, zeros at first. In small pages their first touch, and a second clearing, took a
// tenth of the backward of one document of 8192 tokens.
template <class Acc>
class Workspace {
 public:
  Workspace(const Shape& shape, std::int64_t rows)
      : width_k_(padded(shape.head_dim)),
        width_v_(padded(shape.head_dim_v)),
        pages_(static_cast<std::size_t>(rows * (width_k_ + width_v_)) * sizeof(Acc)),
        dk_(static_cast<Acc*>(pages_.data())),
        dv_(dk_ + rows * width_k_) {}
  // From `row` on.
  [[nodiscard]] Slab<Acc> slab(std::int64_t row) const { return {dk_ + row * width_k_, dv_ + row * width_v_}; }

 private:
  std::int64_t width_k_, width_v_;
  ZeroPages pages_;
  Acc *dk_, *dv_;
};

}  // namespace hetsp::attention::cpu
