// What one rank does for the attention of one micro-batch, as a list of steps: plan + layout + rank -> schedule. Plain data;
// a walker executes it over a channel and a kernel that it knows nothing about.
//
// Ring attention (arXiv 2310.01889) over every ring of the layout at the same time and on one channel. In a ring of G
// ranks, rank i starts with its own keys and values and at hop h holds those of part (i - h) mod G: it passes them on to
// rank i + 1 before it attends to them, so that the transfer hides behind the work. Backward runs the same hops; the
// gradient of a part's keys and values travels one hop behind them, gathers a contribution on each rank, and is home after
// G hops. Sums therefore have one fixed order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hetsp/attention/segment.h"
#include "hetsp/base/strong_index.h"
#include "hetsp/sequence_parallel/layout.h"

namespace hetsp::sequence_parallel {

// Which keys a query may see, in tokens of distance inside a sequence (attention/segment.h); -1: unbounded.
struct Window {
  std::int64_t left = -1, right = 0;  // causal
};

enum class StepKind {
  attend,     // run the kernel on `segments`: my rows of the ring against the keys of `part`
  send,       // post the block to `peer`
  recv,       // post a buffer for the block from `peer`
  accumulate  // add my contribution to the gradient of `part` that has arrived
};
enum class Phase { forward, backward };
enum class Field {
  key_value,          // keys and values of a part
  key_value_gradient  // gradients of the same
};

// A block is one field of one part of one ring; its tokens are ring.parts[part].
struct Step {
  StepKind kind;
  Phase phase;
  Field field;                    // send, recv, accumulate
  std::int32_t ring, part;        // indices into layout.rings and ring.parts
  std::int32_t hop;               // 0: my own part
  Rank peer;                      // send, recv
  std::int64_t rows;              // tokens of the block
  std::int32_t batch;             // send, recv: steps of one batch are posted together; -1 for work
  std::vector<std::int32_t> after;           // steps of this list that must be complete first
  std::vector<attention::Segment>
      segments;  // attend: query rows count from the ring's first row here, key rows from the part's
};

struct Schedule {
  Rank rank;
  std::vector<Step> forward, backward;  // posted in list order
  [[nodiscard]] std::int64_t visible_pairs() const;  // attended in one forward
};

[[nodiscard]] Schedule make_schedule(const Layout& layout, Rank rank, Window window);

// A rank's whole step: forward, then backward, of one micro-batch after the other. A phase starts when every message of the
// one before it is complete, because a walker frees its buffers then.
[[nodiscard]] std::vector<Step> make_program(std::span<const Schedule> micro_batches);

}  // namespace hetsp::sequence_parallel
