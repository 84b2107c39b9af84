// The best packing of few items, exactly.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "hetsp/packing/effort.h"
#include "hetsp/packing/instance.h"
#include "hetsp/packing/packing.h"

namespace hetsp::packing {

// For a makespan T let r(S) be the least ranks of one group that holds the set S and ends by T. Then all items need
//
//   R(S) = min over nonempty A in S that contain the first item of S    r(A) + R(S \ A),       R({}) = 0,
//
// ranks, a dynamic programme over 3^n / 2 pairs of sets. The least T with R(all) <= N is one of the groups' own seconds, so
// that bisecting these finds it exactly. Nodes are left out: where the groups found cannot be placed on them, the makespan is
// still a lower bound.
class SubsetProgramme {
 public:
  static constexpr int kMost = 12;  // items

  // At most kMost items.
  explicit SubsetProgramme(const Instance& instance);

  // False where the effort was spent before the end; nothing is known then.
  bool solve(Effort& effort);

  // No packing is shorter; infinity where there is none.
  [[nodiscard]] double makespan() const { return makespan_; }
  // One of that makespan, where one was found that stands on the nodes.
  [[nodiscard]] const std::optional<Packing>& packing() const { return packing_; }

 private:
  using Set = std::uint32_t;
  bool ends_by(double T, Effort& effort);
  void build();

  const Instance& instance_;
  Set all_;
  std::vector<double> seconds_;      // [sets][modes] of a group; infinity where it has no room
  std::vector<std::int32_t> group_;  // [sets] r(S)
  std::vector<std::int32_t> ranks_;  // [sets] R(S)
  std::vector<Set> part_;            // [sets] the A that R(S) is attained with
  double makespan_ = 0.0;
  std::optional<Packing> packing_;
};

}  // namespace hetsp::packing
