// What csrc/hetsp/attention/cuda/hopper promises, one case per promise, compared with plain arithmetic. The same text runs on a
// GPU (tests/gpu/hopper_primitives.cu) and on the emulator (hopper_primitives_test.cc), so a fact that the emulator has wrong
// shows as a case that differs between the two.
//
// A case is a struct: Shared, threads, and operator()(Shared&), the body of a kernel. Whoever includes this file has defined
// namespace `backend`: Buffer<T>(vector) with device() and fetch(), run(blocks, case), tensor_map(...). All inputs are small
// integers, so sums are exact in any order and every comparison is for equality.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "attention/hopper_barriers.cuh"
#include "attention/hopper_copies.cuh"
#include "attention/hopper_products.cuh"
#include "attention/hopper_words.cuh"

namespace hopper_primitives {

struct NamedCase {
  std::string name;
  std::function<std::string()> run;  // "" or what is wrong
};

template <class Element, From A, bool MnB, int... N>
void add_products(std::vector<NamedCase>& all) {
  constexpr const char* from = A == From::k_major ? "k" : A == From::mn_major ? "m" : "r";
  (all.push_back({std::string("product_") + name_of<Element> + "_" + from + (MnB ? "n" : "k") + "_" + std::to_string(N),
                  product<Element, N, A, MnB>}),
   ...);
}

inline std::vector<NamedCase> all_cases() {
  std::vector<NamedCase> all;
  add_products<BFloat16, From::k_major, false, 16, 32, 64, 80, 96, 128, 160, 176, 192, 256>(all);
  add_products<BFloat16, From::k_major, true, 64, 128, 192, 256>(all);
  add_products<BFloat16, From::registers, true, 16, 64, 96, 128, 192, 256>(all);
  add_products<BFloat16, From::registers, false, 64, 128>(all);
  add_products<BFloat16, From::mn_major, true, 64, 128>(all);
  add_products<BFloat16, From::mn_major, false, 64, 128>(all);
  add_products<Float16, From::k_major, false, 64, 128>(all);
  add_products<Float16, From::registers, true, 64, 128, 256>(all);
  add_products<Float16, From::mn_major, true, 128>(all);
  all.push_back({"chain_bf16_64", chain<BFloat16, 64>});
  all.push_back({"chain_bf16_128", chain<BFloat16, 128>});
  all.push_back({"chain_f16_128", chain<Float16, 128>});
  for (const int dim : {64, 128, 80, 40}) {
    const std::string text = std::to_string(dim);
    all.push_back({"box_load_bf16_128_dim" + text, [dim] { return box_load<BFloat16, 128>(dim); }});
  }
  const std::vector<std::pair<const char*, std::vector<Corner>>> places = {
      {"one", {{0, 0, 0}}},
      {"inside", {{0, 0, 0}, {32, 2, 64}, {0, 1, 136}, {32, 1, 3}, {0, 0, 1}}},
      {"past_last_token", {{0, 1, 136}, {0, 2, 150}, {32, 0, 199}}},
      {"past_last_column", {{64, 1, 100}, {96, 2, 10}}},  // of 80
      {"outside_tokens", {{0, 0, 500}, {0, 2, 10}}},
      {"outside_columns", {{128, 0, 5}, {0, 2, 10}}}};
  for (const auto& [name, corners] : places)
    for (const int blocks : {1, 7})
      all.push_back({std::string("box_add_") + name + (blocks > 1 ? "_blocks" : ""),
                     [corners = corners, blocks] { return box_add(80, corners, blocks); }});
  all.push_back({"box_load_f16_64_dim72", [] { return box_load<Float16, 64>(72); }});
  all.push_back({"box_load_bf16_256_dim64", [] { return box_load<BFloat16, 256>(64); }});
  all.push_back({"handover", handover});
  all.push_back({"pipeline", pipeline});
  all.push_back({"take_turns", take_turns});
  all.push_back({"warp_words", warp_words});
  all.push_back({"stored_matrices", stored_matrices});
  // ex2.approx, lg2.approx: 2 units of 2^-23 by the PTX ISA; log2 near 1 is bounded absolutely, so relative to max(|log2|, 1).
  all.push_back({"exp2_below_0", [] { return error_of<Function::exp2>(-126, 0, 0, 0x1p-22, 400001); }});
  all.push_back({"exp2_above_0", [] { return error_of<Function::exp2>(0, 127, 0, 0x1p-22, 200001); }});
  all.push_back({"log2_near_1", [] { return error_of<Function::log2>(0.5, 2, 1, 0x1p-22, 400001); }});
  all.push_back({"log2_wide", [] { return error_of<Function::log2>(2, 1e6, 0, 0x1p-22, 400001); }});
  all.push_back({"tanh_wide", [] { return error_of<Function::tanh>(-10, 10, 0, 0x1p-10, 400001); }});
  all.push_back({"tanh_near_0", [] { return error_of<Function::tanh>(-0.01, 0.01, 0, 0x1p-10, 200001); }});
  all.push_back({"exp2_special", special_exp2});
  all.push_back({"log2_special", special_log2});
  all.push_back({"tanh_special", special_tanh});
  all.push_back({"pack_bf16", packing<BFloat16>});
  all.push_back({"pack_f16", packing<Float16>});
  all.push_back({"counter", counter});
  return all;
}

}  // namespace hopper_primitives
