// Published and assumed settings by name: a cost model, a cluster's nodes and a rank's memory in one.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hetsp/planner/cluster.h"
#include "hetsp/planner/cost_model.h"
#include "hetsp/planner/plan.h"

namespace hetsp::planner {

// Parameters of a model whose position table grows with its context.
struct Parameters {
  std::int64_t context;  // tokens
  double count;
};

// Memory of a rank. The state of the model is sharded over all ranks (ZeRO-3), or the optimizer's part of it alone (ZeRO-1);
// activations are what the sequences leave:
//   state  = (sharded_bytes_per_parameter / ranks + replicated_bytes_per_parameter) * parameters
//   tokens = floor((bytes - state) / activation_bytes_per_token)
struct RankMemory {
  double bytes = 0.0;  // for state and activations together
  double sharded_bytes_per_parameter = 0.0, replicated_bytes_per_parameter = 0.0;
  double activation_bytes_per_token = 0.0;
  std::vector<Parameters> parameters{};  // by rising context, linear between them and beyond

  [[nodiscard]] std::int64_t tokens(std::int32_t ranks, std::int64_t context) const;  // 0 where the state does not fit
};

struct Preset {
  std::string name;
  std::string description;  // one line
  CostModel cost;
  std::int32_t ranks_per_node = 8;
  RankMemory memory;
  // Of the system that it describes: sharded parameters make ranks wait in every layer (layer), replicated ones once (step).
  Synchronisation synchronisation = Synchronisation::layer;
  HostMemory host{};  // where its system offloads activations
  // Kinds of group; of two that cost the same, which is all that a table knows of, the first is taken: its system's own.
  std::vector<std::string> executable{"whole", "ulysses", "ring", "gather"};
  bool overlaps = true;        // computation may hide the hops of its rings; FlexSP's all-to-alls it cannot
  bool squared_pairs = false;  // its seconds_per_pair counts tokens^2 a sequence, not the pairs of a causal mask

  // Throws PlanInfeasible where the model's state alone fills the memory of that many ranks.
  [[nodiscard]] Cluster cluster(std::int32_t ranks, std::int64_t max_length) const;
  [[nodiscard]] std::vector<Sequence> workload(std::span<const std::int64_t> lengths) const;
};

[[nodiscard]] const std::vector<Preset>& presets();
[[nodiscard]] const Preset& preset(std::string_view name);  // throws InvalidArgument listing the names

}  // namespace hetsp::planner
