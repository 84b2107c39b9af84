#include "hetsp/packing/subset_programme.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "hetsp/base/error.h"

namespace hetsp::packing {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int32_t kTooMany = 1 << 29;  // ranks; twice as many are still no overflow

}  // namespace

SubsetProgramme::SubsetProgramme(const Instance& instance) : instance_(instance) {
  const std::size_t n = instance.items.size(), modes = instance.modes.size();
  require(n <= static_cast<std::size_t>(kMost), "packing: ", n, " items, the programme over subsets takes at most ", kMost);
  all_ = (Set{1} << n) - 1;
  seconds_.assign((std::size_t{all_} + 1) * modes, 0.0);
  std::vector<std::int64_t> tokens(std::size_t{all_} + 1, 0);
  for (Set set = 1; set <= all_; ++set) {
    const auto last = static_cast<std::size_t>(std::bit_width(set)) - 1;
    const Set rest = set & ~(Set{1} << last);
    tokens[set] = tokens[rest] + instance.items[last].tokens;
    for (std::size_t k = 0; k < modes; ++k) {
      const Mode& mode = instance.modes[k];
      seconds_[set * modes + k] =
          tokens[set] <= mode.room ? seconds_[rest * modes + k] + mode.seconds(instance.items[last]) : kInfinity;
    }
  }
  group_.resize(seconds_.size() / std::max<std::size_t>(modes, 1));
  ranks_ = group_;
  part_.assign(group_.size(), 0);
}

// True where the items end by T on the ranks that there are.
bool SubsetProgramme::ends_by(double T, Effort& effort) {
  const std::size_t modes = instance_.modes.size();
  std::int64_t visits = 0;
  ranks_[0] = 0;
  for (Set set = 1; set <= all_; ++set) {
    group_[set] = kTooMany;
    for (std::size_t k = 0; k < modes && group_[set] == kTooMany; ++k)  // by rising ranks
      if (seconds_[set * modes + k] <= T) group_[set] = instance_.modes[k].ranks;
    const Set first = set & (~set + 1), rest = set ^ first;
    ranks_[set] = kTooMany;
    for (Set others = rest;; others = (others - 1) & rest) {  // A = first and others
      const std::int32_t ranks = group_[first | others] + ranks_[rest ^ others];
      if (ranks < ranks_[set]) ranks_[set] = ranks, part_[set] = first | others;
      ++visits;
      if (others == 0) break;
    }
  }
  effort.spend(visits);
  return ranks_[all_] <= instance_.ranks;
}

// The groups behind R(all), each in the first mode that ends in time.
void SubsetProgramme::build() {
  const std::size_t modes = instance_.modes.size();
  Packing packing;
  std::vector<std::int32_t> ranks;
  for (Set set = all_; set != 0; set ^= part_[set]) {
    const Set part = part_[set];
    Bin& bin = packing.bins.emplace_back();
    while (seconds_[part * modes + static_cast<std::size_t>(bin.mode)] > makespan_) ++bin.mode;
    for (Set left = part; left != 0; left &= left - 1) bin.items.push_back(std::countr_zero(left));
    ranks.push_back(instance_.modes[bin.mode].ranks);
  }
  if (!places(instance_, ranks)) return;
  packing.makespan = packing::makespan(instance_, packing.bins);
  packing_ = std::move(packing);
}

bool SubsetProgramme::solve(Effort& effort) {
  packing_.reset();
  std::vector<double> ends{0.0};
  for (const double seconds : seconds_)
    if (seconds < kInfinity) ends.push_back(seconds);
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  std::size_t low = 0, high = ends.size();
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (ends_by(ends[middle], effort))
      high = middle;
    else
      low = middle + 1;
    if (effort.spent()) return false;
  }
  makespan_ = low < ends.size() ? ends[low] : kInfinity;
  if (makespan_ == kInfinity) return true;
  ends_by(makespan_, effort);
  build();
  return true;
}

}  // namespace hetsp::packing
