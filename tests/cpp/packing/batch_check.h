// That micro-batches together are a packing of a batch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "hetsp/packing/packing.h"
#include "support/check.h"

namespace hetsp::packing {

// None empty, each a packing of its own items, and every item of the instance in exactly one.
inline void check_batch(const Instance& instance, const std::vector<Packing>& micro_batches) {
  std::vector<int> seen(instance.items.size(), 0);
  for (const Packing& packing : micro_batches) {
    Instance part = instance;
    part.items.clear();
    Packing renumbered = packing;
    for (Bin& bin : renumbered.bins)
      for (auto& i : bin.items) {
        ++seen[i];
        part.items.push_back(instance.items[i]);
        i = static_cast<std::int32_t>(part.items.size()) - 1;
      }
    check(part, renumbered);
    CHECK(!packing.bins.empty());
  }
  CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
}

}  // namespace hetsp::packing
