// From the run-time DType to the element and accumulate types of a template.
#pragma once

#include "hetsp/attention/cpu/element.h"
#include "hetsp/attention/params.h"
#include "hetsp/base/error.h"

namespace hetsp::attention::cpu {

template <class T>
struct AccOf {
  using type = float;
};
template <>
struct AccOf<double> {
  using type = double;
};

// Calls body(Element{}) for the element type of `dtype`.
template <class Body>
void dispatch(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::float32:
      return body(float{});
    case DType::float64:
      return body(double{});
    case DType::bfloat16:
      return body(BFloat16{});
    case DType::float16:
      return body(Float16{});
  }
  throw BrokenInvariant("unknown dtype");
}

}  // namespace hetsp::attention::cpu
