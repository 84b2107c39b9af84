// What a strategy of disjoint groups works on, and the pieces that several of them share.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "hetsp/planner/draft.h"
#include "hetsp/planner/modes.h"

namespace hetsp::planner {

// Every sequence fits into the largest group. All strategies price groups with the same modes, whatever system they come from.
struct Task {
  std::span<const Sequence> sequences;
  const Cluster& cluster;
  const CostModel& cost;
  const PlanOptions& options;
  const Modes& modes;
};

// Sequence numbers by falling tokens, ties by rising number.
[[nodiscard]] std::vector<int> by_falling_tokens(std::span<const Sequence> sequences);

// The most tokens of any sequence.
[[nodiscard]] std::int64_t longest(std::span<const Sequence> sequences);

// Best fit: each sequence, in the order given, into the fullest bin that still holds it, else into a new bin. No bin exceeds
// `capacity` tokens, but for a bin of one sequence that is longer.
[[nodiscard]] std::vector<std::vector<int>> best_fit(std::span<const Sequence> sequences, const std::vector<int>& order,
                                                     std::int64_t capacity);

// FlexSP's blaster (arXiv 2412.01523, section 4.3; chunk_globalbatch of its release): `order` cut into `count` runs of
// neighbours, or single sequences where there are fewer, such that the largest sum of tokens is least; then the last run is as
// long as that allows, and what is left before it is cut so in turn. Bisection on the sum finds what its dynamic programme
// finds.
[[nodiscard]] std::vector<std::vector<int>> cut_into_chunks(std::span<const Sequence> sequences, const std::vector<int>& order,
                                                            int count);

struct Timed {
  Draft draft;  // without micro-batches where there is none
  double seconds = std::numeric_limits<double>::infinity();  // sum of the slowest groups, and micro_batch_seconds each
};

// FlexSP's trials: for five counts of micro-batches from the fewest whose chunks memory holds (or the one that the options ask
// for), the chunks of neighbours by length, each made into groups by `solve(chunk, groups)`, which may fail. The least sum of
// seconds; where none of the five works, the next count that does.
[[nodiscard]] Timed best_count(
    const Task& task, const std::function<bool(const std::vector<int>& chunk, std::vector<DraftGroup>& groups)>& solve);

// What FlexSP's groups of that degree are: Ulysses (arXiv 2309.14509), whose all-to-all is all that its cost model knows. Where
// kinds or heads exclude it, a ring, or keys and values gathered; none where those are excluded, too.
[[nodiscard]] const Modes::Mode* sequence_parallel_mode(const Task& task, int degree);

// Longest first onto the least loaded of `groups` groups of that mode that has room. False if one finds none.
[[nodiscard]] bool balance_groups(const Task& task, const Modes::Mode& mode, const std::vector<int>& which, int groups,
                                  std::vector<DraftGroup>& result);

// Seconds of a group's sequences on each of its ranks, and of the slowest group.
[[nodiscard]] double group_seconds(const Task& task, const DraftGroup& group);
[[nodiscard]] double slowest_seconds(const Task& task, const std::vector<DraftGroup>& groups);

// Micro-batches that the memory of all ranks asks for at least.
[[nodiscard]] int least_micro_batches(const Task& task);

// The count that was asked for, or the most that are tried: one for each sequence, or what memory asks for.
[[nodiscard]] int most_micro_batches(const Task& task);

// Least power of two, or the largest degree where that is none, whose group holds so many tokens.
[[nodiscard]] int power_of_two_degree(const Task& task, std::int64_t tokens);

// The mode of that kind and degree. Throws InvalidArgument naming the strategy where the options or the model exclude it.
[[nodiscard]] const Modes::Mode& require_mode(const Task& task, Kind kind, int degree);

}  // namespace hetsp::planner
