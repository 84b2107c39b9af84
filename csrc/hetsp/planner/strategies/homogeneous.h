// Strategies in which all groups of a step have one degree.
#pragma once

#include "hetsp/planner/strategies/task.h"

namespace hetsp::planner {

// DeepSpeed-Ulysses as FlexSP measures it (arXiv 2412.01523, section 6; PKU-DAIR/Hetu-Galvatron, branch flexsp, strategy
// fix_sp_bfd): the largest degree. Ulysses where the model allows a degree that holds the longest sequence, else a ring.
// Sequences are packed as the release packs them for all homogeneous plans:
//
//   1  best fit decreasing to the longest sequence or 0.9 of a group's room, whichever is more
//   2  packs are dealt out in the order they were opened, a micro-batch of all groups after the other
//   3  a group of the last micro-batch that got none takes the first sequence, in order of arrival, of the last pack that has
//      two or more
//   4  from 16 ranks a group on, where there were such groups, that micro-batch is levelled: in order of arrival, sequences of
//      groups above its mean of tokens go to later ones below it
[[nodiscard]] Draft draft_static(const Task& task);

// FlexSP's BatchAda (section 6; the release's adaptive_bfd): of the homogeneous plans of this batch, packed so, the one whose
// micro-batches take the least in sum. Powers of two that hold the longest sequence, and all ranks.
[[nodiscard]] Draft draft_adaptive(const Task& task);

// Whole sequences only: chunks of neighbours by length, five counts of them, longest first onto the ranks.
[[nodiscard]] Draft draft_data_parallel(const Task& task);

// Context parallelism of TransformerEngine: one zigzag ring over all ranks, sequences packed to its room.
[[nodiscard]] Draft draft_te_cp(const Task& task);

// Llama 3's context parallelism (arXiv 2407.21783, section 3.3.2): the same with keys and values gathered.
[[nodiscard]] Draft draft_llama_cp(const Task& task);

// Megatron-LM: rings of the least degree that holds the longest sequence, data parallel over them; sequences packed in the
// order they come, and the packs dealt out in that order, one to each ring of a micro-batch.
[[nodiscard]] Draft draft_megatron_static(const Task& task);

}  // namespace hetsp::planner
