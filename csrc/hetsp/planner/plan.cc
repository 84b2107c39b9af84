#include "hetsp/planner/plan.h"

#include <bit>

namespace hetsp::planner {

namespace {

class Fnv1a {
 public:
  template <class Integer>
  void add(Integer value) {
    auto bits = static_cast<std::uint64_t>(value);
    for (int byte = 0; byte < 8; ++byte, bits >>= 8) state_ = (state_ ^ (bits & 0xff)) * 0x100000001b3;
  }
  [[nodiscard]] std::uint64_t state() const { return state_; }

 private:
  std::uint64_t state_ = 0xcbf29ce484222325;
};

}  // namespace

std::uint64_t digest(const Plan& plan) {
  Fnv1a hash;
  hash.add(plan.ranks);
  hash.add(static_cast<int>(plan.synchronisation));
  hash.add(plan.sequences.size());
  for (const auto& sequence : plan.sequences) hash.add(sequence.tokens), hash.add(sequence.visible_pairs);
  hash.add(plan.micro_batches.size());
  for (const auto& micro_batch : plan.micro_batches) {
    hash.add(micro_batch.groups.size());
    for (const auto& group : micro_batch.groups) {
      hash.add(group.sequences.size());
      for (const auto sequence : group.sequences) hash.add(sequence.value());
      hash.add(group.ranks.size());
      for (const auto rank : group.ranks) hash.add(rank.value());
      hash.add(group.strategy.head_degree), hash.add(group.strategy.ring_degree), hash.add(group.strategy.gather_kv);
      hash.add(static_cast<int>(group.cut)), hash.add(static_cast<int>(group.activations));
      if (group.activations == Activations::offload) hash.add(std::bit_cast<std::uint64_t>(group.offload_ratio));
    }
  }
  return hash.state();
}

}  // namespace hetsp::planner
