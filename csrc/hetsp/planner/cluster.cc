#include "hetsp/planner/cluster.h"

#include <cmath>

#include "hetsp/base/ceil_div.h"
#include "hetsp/base/error.h"

namespace hetsp::planner {

namespace {
constexpr std::int32_t kMaxRanks = 1 << 20;             // loads and memory are arrays over ranks
constexpr std::int64_t kMaxTokens = std::int64_t{1} << 40;  // 2 G tokens, and tokens x ranks, stay inside 63 bits
}  // namespace

int Cluster::nodes() const { return ranks_per_node == 0 ? 1 : ceil_div(ranks, ranks_per_node); }

void check(const Cluster& cluster) {
  require(1 <= cluster.ranks && cluster.ranks <= kMaxRanks, "cluster: ranks is ", cluster.ranks, ", must be in 1..", kMaxRanks);
  require(0 <= cluster.ranks_per_node, "cluster: ranks_per_node is ", cluster.ranks_per_node,
          ", must be at least 1, or 0 for one node");
  require(1 <= cluster.tokens_per_rank && cluster.tokens_per_rank <= kMaxTokens, "cluster: tokens_per_rank is ",
          cluster.tokens_per_rank, ", must be in 1..", kMaxTokens);
  require(cluster.host.layers >= 0, "cluster: host layers is ", cluster.host.layers, ", must be at least 1, or 0 for none");
  require(std::isfinite(cluster.host.tokens_per_second) && cluster.host.tokens_per_second >= 0.0,
          "cluster: host tokens_per_second is ", cluster.host.tokens_per_second, ", must be finite and at least 0");
}

}  // namespace hetsp::planner
