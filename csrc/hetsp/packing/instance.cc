#include "hetsp/packing/instance.h"

#include <cmath>
#include <numeric>

#include "hetsp/base/error.h"

namespace hetsp::packing {

namespace {
constexpr std::int32_t kMaxRanks = 1 << 20;
constexpr std::int64_t kMaxTokens = std::int64_t{1} << 40;  // sums over 2^20 items stay inside 63 bits
constexpr std::int64_t kMaxRoom = std::int64_t{1} << 61;
}  // namespace

void check(const Instance& instance) {
  require(1 <= instance.ranks && instance.ranks <= kMaxRanks, "packing: ranks is ", instance.ranks, ", must be in 1..",
          kMaxRanks);
  require(0 <= instance.ranks_per_node, "packing: ranks_per_node is ", instance.ranks_per_node, ", must be at least 0");
  require(!instance.modes.empty(), "packing: there are no modes");
  for (std::size_t m = 0; m < instance.modes.size(); ++m) {
    const Mode& mode = instance.modes[m];
    require(1 <= mode.ranks && mode.ranks <= instance.ranks, "packing: mode ", m, " has ", mode.ranks, " ranks, must be in 1..",
            instance.ranks);
    require(m == 0 || instance.modes[m - 1].ranks <= mode.ranks, "packing: mode ", m, " has ", mode.ranks,
            " ranks and follows ", m == 0 ? 0 : instance.modes[m - 1].ranks, "; modes come by rising ranks");
    require(0 <= mode.room && mode.room <= kMaxRoom, "packing: mode ", m, " has room for ", mode.room,
            " tokens, must be in 0..", kMaxRoom);
    for (const double coefficient : {mode.per_pair, mode.per_token, mode.per_item})
      require(std::isfinite(coefficient) && coefficient >= 0.0, "packing: mode ", m, " has a coefficient of ", coefficient,
              " seconds, must be finite and at least 0");
  }
  for (std::size_t i = 0; i < instance.items.size(); ++i) {
    const Item& item = instance.items[i];
    require(0 <= item.tokens && item.tokens <= kMaxTokens, "packing: item ", i, " has ", item.tokens, " tokens, must be in 0..",
            kMaxTokens);
    require(std::isfinite(item.pairs) && item.pairs >= 0.0, "packing: item ", i, " has ", item.pairs,
            " pairs, must be finite and at least 0");
  }
}

Instance with_whole_rooms(Instance instance) {
  std::int64_t quantum = 0;
  for (const Item& item : instance.items) quantum = std::gcd(quantum, item.tokens);
  if (quantum > 1)
    for (Mode& mode : instance.modes) mode.room -= mode.room % quantum;
  return instance;
}

}  // namespace hetsp::packing
