// The checks that every device's kernels rely on. Called once, at the edge; each throws InvalidArgument naming the value.
#pragma once

#include "hetsp/attention/params.h"
#include "hetsp/attention/pieces.h"

namespace hetsp::attention {

void validate(const ForwardParams& params);
void validate(const PiecesParams& params);
void validate(const BackwardParams& params);
void validate(const DeltaParams& params);
void validate(const MergeParams& params);

// Segments in host memory: rows inside the tensors, windows and positions in range. (On CUDA the segments lie in device
// memory; the work-list kernel clamps them instead.)
void validate_segments(const Segment* segments, std::int64_t count, std::int64_t total_q, std::int64_t total_k);

}  // namespace hetsp::attention
