// The strategies of disjoint groups by name, and what a draft costs.
#pragma once

#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hetsp/planner/strategies/task.h"

namespace hetsp::planner {

struct NamedDraft {
  const char* name;
  Draft (*make)(const Task&);
  // Sequences up to which it is cheap beside a search, so that `auto` tries it, too.
  std::size_t most = std::numeric_limits<std::size_t>::max();
  bool searches = false;  // takes as long as a search: only for callers without a time limit
};

[[nodiscard]] std::span<const NamedDraft> named_drafts();

// Their names, "auto" not among them.
[[nodiscard]] const std::vector<std::string>& draft_names();

// That strategy's draft; its header in strategies/ has the definition and its source.
[[nodiscard]] Draft make_draft(std::string_view strategy, const Task& task);

// The draft's plan with its predicted times; with `shared` ranks may serve several groups of a micro-batch, else those groups
// follow each other as micro-batches.
[[nodiscard]] Plan price(const Task& task, Draft draft, bool shared = false);

}  // namespace hetsp::planner
