// The plan of a training step: which ranks share each sequence, micro-batch by micro-batch. Plain data that moves no
// bytes; made on one rank, broadcast, and checked by all (plan_check.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hetsp/base/strong_index.h"

namespace hetsp::planner {

// One document of the step. Cost is counted in visible pairs, not in tokens squared: windows and trees are plannable.
struct Sequence {
  std::int64_t tokens = 0;
  std::int64_t visible_pairs = 0;  // (query, key) pairs under its mask; causal: tokens (tokens + 1) / 2
  double fixed_cost = 0.0;         // seconds, once per sequence on each of its ranks
};

// How a group's ranks share the attention of its sequences. ring_degree * head_degree = number of ranks.
struct Strategy {
  std::int32_t head_degree = 1;  // ranks that split the heads (Ulysses, arXiv 2309.14509)
  std::int32_t ring_degree = 1;  // ranks that split the tokens (ring attention, arXiv 2310.01889)
  bool gather_kv = false;        // all-gather keys and values instead of passing them round the ring
  friend bool operator==(const Strategy&, const Strategy&) = default;
};

enum class Activations { keep, offload, recompute };

// How the tokens of each sequence are cut over the group's ranks; sequence_parallel/layout.h turns it into ranges.
enum class Cut {
  whole,       // one rank
  contiguous,  // G equal runs
  zigzag,      // 2G equal chunks, rank i holds chunks i and 2G-1-i: equal causal areas
  balanced     // G runs of equal causal area
};

// Ranks that share the same sequences for one micro-batch. A rank may be in several groups of one micro-batch.
struct Group {
  std::vector<SequenceIndex> sequences;
  std::vector<Rank> ranks;  // distinct; the order is the order of the ring
  Strategy strategy;
  Cut cut = Cut::whole;
  Activations activations = Activations::keep;
  double offload_ratio = 0.0;  // in 0..1 of the activations that may leave the device; above 0 only with Activations::offload
};

// The group without sequences: ranks that have none in a micro-batch, but take part in it. Sharded parameters are collected
// layer by layer from all ranks by all ranks (ZeRO-3, arXiv 1910.02054), so that none may leave one out.
struct Placeholder {
  std::vector<Rank> ranks;  // ascending; empty where no rank is idle
  double seconds = 0.0;  // predicted, on each of them, micro_batch_seconds not included
};

struct MicroBatch {
  std::vector<Group> groups;
  Placeholder placeholder{};  // only with Synchronisation::layer
  double makespan = 0.0;  // seconds of its slowest rank, micro_batch_seconds included
  double lower_bound = 0.0;  // seconds; its share of the plan's bound
};

// Where ranks wait for each other, and so what the makespan is:
enum class Synchronisation {
  layer,  // every layer (sharded parameters): sum over micro-batches of the slowest rank; equal counts on every rank
  micro_batch,  // after every micro-batch: the same sum
  step  // once (replicated parameters): each rank has its own count of micro-batches (is_chained), or is in all of them
};

struct Plan {
  std::int32_t ranks = 0;
  std::vector<Sequence> sequences;  // the workload, in the caller's order
  std::vector<MicroBatch> micro_batches;
  Synchronisation synchronisation = Synchronisation::step;
  std::string strategy;  // the name it was made under
  bool exclusive = false;  // each rank is in at most one group of a micro-batch
  double offloadable = 0.0;  // share of a token's memory that offload_ratio = 1 moves off the device
  std::vector<double> rank_seconds;  // [ranks] predicted, summed over a rank's groups
  std::vector<double> compute_seconds;  // [ranks] the part of it that is attention and linear modules
  double makespan = 0.0;  // seconds, predicted
  double lower_bound = 0.0;  // seconds; no plan under this cost model is faster; of exclusive plans if exclusive
  double solve_seconds = 0.0;  // on the planning machine's clock, from the sequences to the checked plan
  double first_incumbent_seconds = 0.0;  // the same, to the first complete plan that the search knew
  std::string status = "limit";  // "optimal": within 1e-6 of the bound; "target": target_gap reached; "limit": effort spent
  [[nodiscard]] double gap() const { return lower_bound > 0.0 ? makespan / lower_bound - 1.0 : 0.0; }
};

// Disjoint groups with one wait at the end: a rank works through the chain of its own groups, waits only for the ranks it
// shares them with, and pays micro_batch_seconds for these groups alone. The makespan is the longest path.
[[nodiscard]] bool is_chained(const Plan& plan);

// Gives the ranks that are in no group of a micro-batch to its placeholder where synchronisation is layer, else empties it.
void fill_placeholders(Plan& plan);

// 64-bit FNV-1a over every field that an executing rank depends on (not predicted times, bounds, or how it was found).
[[nodiscard]] std::uint64_t digest(const Plan& plan);

}  // namespace hetsp::planner
