// Proofs that a set of schedules, one per rank, is right before it runs.
#pragma once

#include <span>

#include "hetsp/sequence_parallel/layout.h"
#include "hetsp/sequence_parallel/schedule.h"

namespace hetsp::sequence_parallel {

// Every visible (query, key) pair of every sequence of the layout is attended exactly once, in forward and in backward, on
// the very segments that the kernels will run. Proof, without looking at pairs: each segment is mapped through the layout
// back to a rectangle of one sequence and must carry that rectangle's positions and the window; the rectangles of a
// sequence must not overlap; and their visible pairs must add up to the sequence's own count.
// Throws BrokenInvariant naming the rank, the step and the sequence.
void check_coverage(const Layout& layout, std::span<const Schedule> schedules, Window window);

// No rank waits for ever. programs[r] is what rank r runs (make_program). Model: the posts of a batch go out together;
// between two ranks the k-th send meets the k-th receive (one channel, in posting order); a send is a rendezvous, complete
// only once its receive is posted; a batch is complete when all of it is; a step starts when the steps that it comes after,
// and their batches, are complete, and steps start in list order. Posting never depends on timing, so one run of the model
// stands for all runs. Also checks that each send meets a receive of the same block and that nothing is left over. Throws
// BrokenInvariant naming the ranks that are stuck and the steps they are stuck at.
void check_progress(std::span<const std::vector<Step>> programs);

}  // namespace hetsp::sequence_parallel
