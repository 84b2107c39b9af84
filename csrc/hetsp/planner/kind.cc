#include "hetsp/planner/kind.h"

namespace hetsp::planner {

namespace {
constexpr std::string_view kNames[] = {"whole", "ring", "ulysses", "gather"};  // in the order of the enum
}  // namespace

std::string_view name_of(Kind kind) { return kNames[static_cast<int>(kind)]; }

std::optional<Kind> kind_from(std::string_view name) {
  for (int kind = 0; kind < 4; ++kind)
    if (name == kNames[kind]) return static_cast<Kind>(kind);
  return std::nullopt;
}

Strategy strategy_of(Kind kind, int degree) {
  if (kind == Kind::ulysses) return {.head_degree = degree};
  return {.ring_degree = degree, .gather_kv = kind == Kind::gather && degree > 1};
}

Cut cut_of(Kind kind, int degree) {
  if (degree == 1) return Cut::whole;
  return kind == Kind::ulysses ? Cut::contiguous : Cut::zigzag;
}

std::string_view name_of(const Strategy& strategy) {
  if (strategy.head_degree > 1) return strategy.ring_degree > 1 ? "hybrid" : name_of(Kind::ulysses);
  if (strategy.gather_kv) return name_of(Kind::gather);
  return name_of(strategy.ring_degree > 1 ? Kind::ring : Kind::whole);
}

}  // namespace hetsp::planner
