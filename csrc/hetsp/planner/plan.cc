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

bool is_chained(const Plan& plan) { return plan.exclusive && plan.synchronisation == Synchronisation::step; }

void fill_placeholders(Plan& plan) {
  for (MicroBatch& micro_batch : plan.micro_batches) {
    micro_batch.placeholder = {};
    if (plan.synchronisation != Synchronisation::layer) continue;
    std::vector<bool> busy(plan.ranks);
    for (const Group& group : micro_batch.groups)
      for (const Rank rank : group.ranks) busy[rank.value()] = true;
    for (std::int32_t rank = 0; rank < plan.ranks; ++rank)
      if (!busy[rank]) micro_batch.placeholder.ranks.emplace_back(rank);
  }
}

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
    // Nothing where there is none: so plans that were recorded before there were any keep their digest.
    for (const auto rank : micro_batch.placeholder.ranks) hash.add(rank.value());
  }
  return hash.state();
}

}  // namespace hetsp::planner
