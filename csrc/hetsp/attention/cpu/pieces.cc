#include "hetsp/attention/cpu/pieces.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <thread>
#include <vector>

#include "hetsp/attention/cpu/forward.h"
#include "hetsp/base/error.h"

namespace hetsp::attention::cpu {

namespace {

using Clock = std::chrono::steady_clock;

// Another thread of this process, or a device, writes the flag.
bool is_here(const KeyPiece& piece) {
  return piece.ready == nullptr || has_arrived(__atomic_load_n(piece.ready, __ATOMIC_ACQUIRE), piece.epoch);
}

void wait_for(const KeyPiece& piece, int index, std::int64_t patience_ns) {
  constexpr int soon = 64;  // looks before it sleeps between them
  const Clock::time_point begin = Clock::now();
  for (int looks = 0; !is_here(piece); ++looks) {
    if (Clock::now() - begin > std::chrono::nanoseconds(patience_ns)) {
      throw NotArrived(concat("piece ", index, " of the keys did not arrive within ", static_cast<double>(patience_ns) * 1e-9,
                              " s: its flag is ", __atomic_load_n(piece.ready, __ATOMIC_RELAXED), ", must reach ",
                              piece.epoch));
    }
    looks < soon ? std::this_thread::yield() : std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

bool sees_any(const std::vector<Segment>& segments) {
  return std::any_of(segments.begin(), segments.end(), [](const Segment& s) { return visible_pairs(s) > 0; });
}

// [total_q, heads, head_dim_v] of the accumulate type.
View memory_between(const PiecesParams& params, std::unique_ptr<std::byte[]>& memory) {
  const Shape& s = params.call.shape;
  if (!needs_memory_between(params)) return {nullptr, 0, 0};
  const std::size_t size = s.dtype == DType::float64 ? sizeof(double) : sizeof(float);
  memory.reset(new std::byte[static_cast<std::size_t>(s.total_q * s.heads * s.head_dim_v) * size]);
  return {memory.get(), s.heads * s.head_dim_v, s.head_dim_v};
}

}  // namespace

void forward(const PiecesParams& params, Parallel& parallel, Isa isa) {
  std::unique_ptr<std::byte[]> memory;
  const View between = memory_between(params, memory);
  std::vector<Segment> segments(static_cast<std::size_t>(params.call.segment_count));
  std::int64_t begin = 0;
  for (int index = 0; index < params.count; ++index) {
    const KeyPiece& piece = params.pieces[index];
    std::transform(params.call.segments, params.call.segments + params.call.segment_count, segments.begin(),
                   [&](const Segment& whole) { return cut_to_piece(whole, begin, piece.rows); });
    begin += piece.rows;
    const bool seen = sees_any(segments);
    if (!seen && may_pass_over(params, index)) continue;
    if (seen) wait_for(piece, index, params.patience_ns);
    forward(link_of(params, index, segments.data(), between), parallel, isa);
  }
  if (params.late != nullptr) *params.late = 0;
}

}  // namespace hetsp::attention::cpu
