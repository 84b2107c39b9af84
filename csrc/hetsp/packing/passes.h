// Greedy passes over all modes or, where groups must find a place on nodes, over those that always do.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "hetsp/packing/greedy.h"

namespace hetsp::packing {

class Passes {
 public:
  // `instance`, its items by falling size, must outlive this.
  Passes(const Instance& instance, int micro_batches);

  // Nice modes divide a node or are made of whole ones: in any number they leave no node that is only partly usable.
  [[nodiscard]] bool has_nice() const { return nice_greedy_ != nullptr; }
  // As Greedy::pack; true only where the groups also stand on the nodes.
  bool pack(const std::vector<double>& targets, const Greedy::Weights& weights, bool nice, Random& random, Effort& effort,
            std::vector<Packing>& packings);

 private:
  const Instance* instance_;
  Greedy greedy_;
  Instance nice_;                         // with the nice modes only
  std::vector<std::int32_t> nice_modes_;  // [mode of nice_]: mode of instance_
  std::unique_ptr<Greedy> nice_greedy_;
};

// True where the groups of a packing can stand on the nodes.
[[nodiscard]] bool places(const Instance& instance, const Packing& packing);

}  // namespace hetsp::packing
