#include "hetsp/lp/lines.h"

#include <algorithm>

namespace hetsp::lp {

int Lines::add(std::span<const Entry> entries) {
  const auto size = static_cast<std::int32_t>(entries.size());
  lines_.push_back({static_cast<std::int64_t>(pool_.size()), size, size});
  pool_.insert(pool_.end(), entries.begin(), entries.end());
  return count() - 1;
}

void Lines::append(int line, Entry entry) {
  Line& l = lines_[line];
  if (l.size == l.capacity) {
    const auto begin = static_cast<std::int64_t>(pool_.size());
    l.capacity = std::max<std::int32_t>(4, 2 * l.size);
    pool_.resize(pool_.size() + static_cast<std::size_t>(l.capacity));
    std::copy_n(pool_.begin() + l.begin, l.size, pool_.begin() + begin);
    l.begin = begin;
  }
  pool_[static_cast<std::size_t>(l.begin + l.size++)] = entry;
}

}  // namespace hetsp::lp
