// The chain of pieces.h as one launch walks it: its links, and where they tell each other how far they are.
//
// C++17: this header is also compiled by nvcc.
#pragma once

#include <cstdint>

#include "hetsp/attention/pieces.h"

namespace hetsp::attention::cuda {

static_assert(most_pieces <= 16, "four bits each in a word of 64");

struct Chain {
  ForwardParams link[most_pieces];
  const std::uint32_t* ready[most_pieces];
  std::uint32_t epoch[most_pieces];
  std::int32_t count;
  std::uint32_t may_pass_over;  // a bit a link
  std::uint64_t* done;          // [tiles * heads], 0 at first: which links of a tile and head are over, see chain.cuh
  std::int32_t* late;           // [1], 0 at first: 1 + a piece that nobody waits for any more
  std::uint64_t patience_ns;
};

// Where the pieces begin and end on the axis of all keys.
struct PieceRows {
  std::int64_t begin[most_pieces], rows[most_pieces];
  int count;
};

inline PieceRows rows_of(const PiecesParams& params) {
  PieceRows result{};
  result.count = params.count;
  std::int64_t begin = 0;
  for (int i = 0; i < params.count; ++i) {
    result.begin[i] = begin, result.rows[i] = params.pieces[i].rows;
    begin += params.pieces[i].rows;
  }
  return result;
}

// `cut`: [count][segment_count], the segments cut to each piece. `done` may be null where one block does all links of a tile.
inline Chain chain_of(const PiecesParams& params, const Segment* cut, const View& between, std::uint64_t* done) {
  Chain chain{};
  for (int i = 0; i < params.count; ++i) {
    chain.link[i] = link_of(params, i, cut + i * params.call.segment_count, between);
    chain.ready[i] = params.pieces[i].ready, chain.epoch[i] = params.pieces[i].epoch;
    if (may_pass_over(params, i)) chain.may_pass_over |= 1u << i;
  }
  chain.count = params.count, chain.done = done, chain.late = params.late;
  chain.patience_ns = static_cast<std::uint64_t>(params.patience_ns);
  return chain;
}

// The same with links that are all alike, but for their keys: each joins what it finds in `kept`, of the accumulate type, and
// in the call's lse, and leaves its result there. launch_begin() puts the seed there, launch_end() makes the call's out of it.
// Kernels whose registers have no room for where the rows of a link go take this.
inline Chain even_chain_of(const PiecesParams& params, const Segment* cut, const View& kept, std::uint64_t* done) {
  PiecesParams even = params;
  even.call.seed_out = {kept.data, kept.token_stride, kept.head_stride}, even.call.seed_lse = params.call.lse;
  even.call.out = kept, even.call.out_is_acc = true, even.call.sink = nullptr;
  Chain chain = chain_of(even, cut, kept, done);
  chain.may_pass_over = (1u << params.count) - 1;
  return chain;
}

// Before the chain: the segments, cut to each piece. Behind it: NaN everywhere, if a piece was late.
void launch_cut(const PiecesParams& params, Segment* cut, void* stream);
void launch_poison(const PiecesParams& params, void* stream);

// Before and behind an even chain; launch_end() poisons too.
void launch_begin(const PiecesParams& params, const View& kept, void* stream);
void launch_end(const PiecesParams& params, const View& kept, void* stream);

}  // namespace hetsp::attention::cuda
