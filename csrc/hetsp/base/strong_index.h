// Indices that must not mix: a Rank is not a sequence number, and passing one for the other does not compile.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace hetsp {

// An integer of kind Tag. Explicit in, explicit out (`value()`), ordered, hashable; no arithmetic on purpose.
template <class Tag>
class StrongIndex {
 public:
  constexpr StrongIndex() = default;
  constexpr explicit StrongIndex(std::int32_t value) : value_(value) {}
  [[nodiscard]] constexpr std::int32_t value() const { return value_; }
  friend constexpr auto operator<=>(StrongIndex, StrongIndex) = default;

 private:
  std::int32_t value_ = -1;
};

using Rank = StrongIndex<struct RankTag>;                    // along the data x sequence axis, never the global rank
using SequenceIndex = StrongIndex<struct SequenceIndexTag>;  // position in the step's workload

}  // namespace hetsp

template <class Tag>
struct std::hash<hetsp::StrongIndex<Tag>> {
  std::size_t operator()(hetsp::StrongIndex<Tag> index) const noexcept { return std::hash<std::int32_t>{}(index.value()); }
};
