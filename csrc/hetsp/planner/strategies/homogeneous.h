// Strategies in which all groups of a step have one degree.
#pragma once

#include "hetsp/planner/strategies/task.h"

namespace hetsp::planner {

// DeepSpeed-Ulysses as FlexSP measures it (arXiv 2412.01523, section 6): the largest degree, sequences packed best fit
// decreasing to 0.9 of a group's room. Ulysses where the model allows a degree that holds the longest sequence, else a ring.
[[nodiscard]] Draft draft_static(const Task& task);

// FlexSP's BatchAda: of all homogeneous plans of this batch the best. For each power of two that holds the longest sequence,
// and all ranks, and each of five counts of micro-batches: chunks of neighbours by length, longest first onto the groups.
[[nodiscard]] Draft draft_adaptive(const Task& task);

// Whole sequences only: the same at degree 1.
[[nodiscard]] Draft draft_data_parallel(const Task& task);

// Context parallelism of TransformerEngine: one zigzag ring over all ranks, sequences packed to its room.
[[nodiscard]] Draft draft_te_cp(const Task& task);

// Llama 3's context parallelism (arXiv 2407.21783, section 3.3.2): the same with keys and values gathered.
[[nodiscard]] Draft draft_llama_cp(const Task& task);

// Megatron-LM: rings of the least degree that holds the longest sequence, data parallel over them; sequences packed in the
// order they come, and the packs dealt out in that order, one to each ring of a micro-batch.
[[nodiscard]] Draft draft_megatron_static(const Task& task);

}  // namespace hetsp::planner
