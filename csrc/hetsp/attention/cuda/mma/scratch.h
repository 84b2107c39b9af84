// What the passes of a launch share beside their tensors: counters that hand out items, and the lists of suspects.
//
// A hidden pair has weight 0, and tensor cores multiply: 0 times NaN is NaN. Inside a tile that the mask cuts, a NaN of a
// row that some rows see and others do not so reaches all of them. That cannot be seen from outside the tile for the price of
// nothing, but its trace can: such a sum is NaN ever after. So a pass whose result of an item is not finite writes the item
// down, and repair.cuh computes its rows again by scalar kernels that leave hidden pairs out. A sum that overflowed, or that
// sees a NaN, is suspected too, and comes out as it must.
//
// C++17, host and device.
#pragma once

#include <cstdint>

namespace hetsp::attention::cuda::mma {

constexpr int most_passes = 4;               // of one call; each has a counter and a list
constexpr int zeroed_words = 16;             // at the front of the scratch; the rest may hold anything
constexpr std::int32_t most_suspects = 4096; // of a pass; if there are more, all of its items are computed again
constexpr std::int64_t scratch_words = zeroed_words + std::int64_t{most_passes} * most_suspects;  // of std::int32_t

struct Scratch {  // device memory
  std::int32_t* next_item;      // [1]
  std::int32_t* suspect_count;  // [1], may exceed most_suspects
  std::int32_t* suspects;       // [most_suspects]: tile * heads + head
};

constexpr Scratch scratch_of_pass(std::int32_t* words, int pass) {
  return {words + pass, words + most_passes + pass, words + zeroed_words + std::int64_t{pass} * most_suspects};
}

}  // namespace hetsp::attention::cuda::mma
