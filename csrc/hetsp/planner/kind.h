// The kinds of group that a plan may ask for, by name.
#pragma once

#include <optional>
#include <string_view>

#include "hetsp/planner/plan.h"

namespace hetsp::planner {

//   whole    one rank
//   ring     d ranks pass keys and values round (ring attention, arXiv 2310.01889); zigzag cut, so that causal areas are equal
//   ulysses  d ranks exchange tokens for heads before attention and back after it (arXiv 2309.14509); contiguous cut
//   gather   d ranks gather all keys and values first (arXiv 2407.21783, section 3.3.2); zigzag cut
enum class Kind { whole, ring, ulysses, gather };

[[nodiscard]] std::string_view name_of(Kind kind);
[[nodiscard]] std::optional<Kind> kind_from(std::string_view name);

// How `degree` ranks of that kind share, and how their tokens are cut. One rank is whole, whatever the kind.
[[nodiscard]] Strategy strategy_of(Kind kind, int degree);
[[nodiscard]] Cut cut_of(Kind kind, int degree);

// The name of a group's strategy: of its kind, or "hybrid" where heads and tokens are both split.
[[nodiscard]] std::string_view name_of(const Strategy& strategy);

}  // namespace hetsp::planner
