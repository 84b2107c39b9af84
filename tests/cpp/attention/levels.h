// What a test can run here: the tables and the kernels of every instruction set of this machine, and for bfloat16 those of AMX
// on emulated tiles, where the machine has the vector instructions beside them.
#pragma once

#include <algorithm>
#include <string>
#include <type_traits>
#include <vector>

#include "hetsp/attention/cpu/backward.h"
#include "hetsp/attention/cpu/forward.h"
#include "hetsp/attention/cpu/isa.h"
#include "hetsp/base/error.h"

namespace hetsp::attention::cpu::amx_emulated {
TileMath<BFloat16> pair_math();
}

namespace levels {

using hetsp::Isa;
using hetsp::attention::BFloat16;
using hetsp::attention::DType;
namespace cpu = hetsp::attention::cpu;

// The sets that this process may use.
inline std::vector<Isa> isas() {
  std::vector<Isa> found;
  for (const Isa isa : hetsp::supported_isas())
    if (hetsp::missing(isa).empty()) found.push_back(isa);
  return found;
}

inline bool amx_is_emulated() {
  const auto& here = hetsp::supported_isas();
  return std::find(here.begin(), here.end(), Isa::avx512_bf16) != here.end();
}
constexpr const char* kEmulated = "amx emulated";
constexpr const char* kNoEmulation = "skipped: emulated AMX needs AVX512_BF16 beside it, which this machine lacks";

template <class Element>
struct Table {
  std::string name;
  cpu::TileMath<Element> math;
};

template <class Element>
std::vector<Table<Element>> tables() {
  std::vector<Table<Element>> found;
  for (const Isa isa : isas()) found.push_back({hetsp::name(isa), cpu::tile_math<Element>(isa)});
  if constexpr (std::is_same_v<Element, BFloat16>)
    if (amx_is_emulated()) found.push_back({kEmulated, cpu::amx_emulated::pair_math()});
  return found;
}

// The kernels of one level.
class Kernels {
 public:
  explicit Kernels(Isa isa) : isa_(isa) {}
  static Kernels emulated() { return Kernels(Isa::amx, true); }

  [[nodiscard]] std::string name() const { return emulated_ ? kEmulated : hetsp::name(isa_); }
  // Whether numbers of `type` are multiplied in pairs, and so rounded between the products.
  [[nodiscard]] bool multiply_pairs(DType type) const {
    return type == DType::bfloat16 && (isa_ == Isa::avx512_bf16 || isa_ == Isa::amx);
  }
  void forward(const hetsp::attention::ForwardParams& params, hetsp::Parallel& parallel) const {
    if (!emulated_) return cpu::forward(params, parallel, isa_);
    hetsp::invariant(params.shape.dtype == DType::bfloat16, "emulated AMX is for bfloat16");
    cpu::forward(params, parallel, cpu::amx_emulated::pair_math());
  }
  void backward(const hetsp::attention::BackwardParams& params, hetsp::Parallel& parallel) const {
    if (!emulated_) return cpu::backward(params, parallel, isa_);
    hetsp::invariant(params.shape.dtype == DType::bfloat16, "emulated AMX is for bfloat16");
    cpu::backward(params, parallel, cpu::amx_emulated::pair_math());
  }

 private:
  Kernels(Isa isa, bool emulated) : isa_(isa), emulated_(emulated) {}
  Isa isa_;
  bool emulated_ = false;
};

inline std::vector<Kernels> kernels(DType type) {
  std::vector<Kernels> found;
  for (const Isa isa : isas()) found.emplace_back(isa);
  if (type == DType::bfloat16 && amx_is_emulated()) found.push_back(Kernels::emulated());
  return found;
}

}  // namespace levels
