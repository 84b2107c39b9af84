// The machine that a step is planned for.
#pragma once

#include <cstdint>

namespace hetsp::planner {

// Host memory that activations may be sent to while a rank computes.
struct HostMemory {
  std::int32_t layers = 0;        // of a rank; the first and the last keep theirs. 0: nothing is offloaded
  double tokens_per_second = 0.0;  // whose activations of one layer cross, the slower way of the two

  // Share of a token's activations that may leave: (layers - 2) / layers.
  [[nodiscard]] double offloadable() const { return layers > 2 ? static_cast<double>(layers - 2) / layers : 0.0; }
};

struct Cluster {
  std::int32_t ranks = 1;           // along the data x sequence axis
  std::int32_t ranks_per_node = 0;  // 0: all ranks on one node; a ring takes neighbouring ranks first
  std::int64_t tokens_per_rank = 0; // what one rank can hold of one micro-batch, in tokens
  HostMemory host{};

  [[nodiscard]] int nodes() const;
};

// Throws InvalidArgument naming the field that is out of range.
void check(const Cluster& cluster);

}  // namespace hetsp::planner
