// From the run-time DType to the element type of a template.
#pragma once

#include "hetsp/attention/number.h"
#include "hetsp/attention/params.h"
#include "hetsp/base/error.h"

namespace hetsp::attention::cpu {

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
