// The machine that a step is planned for.
#pragma once

#include <cstdint>

namespace hetsp::planner {

struct Cluster {
  std::int32_t ranks = 1;           // along the data x sequence axis
  std::int32_t ranks_per_node = 0;  // 0: all ranks on one node; a ring takes neighbouring ranks first
  std::int64_t tokens_per_rank = 0; // what one rank can hold of one micro-batch, in tokens

  [[nodiscard]] int nodes() const;
};

// Throws InvalidArgument naming the field that is out of range.
void check(const Cluster& cluster);

}  // namespace hetsp::planner
