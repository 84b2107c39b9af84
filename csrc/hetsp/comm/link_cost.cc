#include "hetsp/comm/link_cost.h"

#include <algorithm>

#include "hetsp/base/ceil_div.h"

namespace hetsp::comm {

double direct_seconds(const LinkRates& rates, double bytes) { return bytes / rates.inter; }

double spread_seconds(const LinkRates& rates, double bytes, int rails, int chunks) {
  const double passed_on = bytes * (rails - 1) / rails / rates.intra;
  const double transfer = bytes / rails / rates.inter;
  const double sum = 2 * passed_on + transfer, longest = std::max(passed_on, transfer);
  return sum / chunks + (1 - 1.0 / chunks) * longest;
}

bool spread_pays(const LinkRates& rates, std::size_t bytes, std::size_t chunk_bytes, int rails) {
  const std::size_t chunks = ceil_div(bytes, chunk_bytes);
  if (rails < 2 || chunks < 2) return false;
  if (rates.inter == 0 || rates.intra == 0) return true;
  const int used = static_cast<int>(std::min<std::size_t>(static_cast<std::size_t>(rails), chunks));
  const int rounds = std::max(1, static_cast<int>(chunks / static_cast<std::size_t>(used)));
  return spread_seconds(rates, static_cast<double>(bytes), used, rounds) < direct_seconds(rates, static_cast<double>(bytes));
}

}  // namespace hetsp::comm
