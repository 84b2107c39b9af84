// The order in which a tile of query rows meets its keys: segment by segment in list order, in each from the last visible
// key tile to the first, so that the tiles which a causal mask cuts come first. Key tiles are counted from the segment's first
// key: how a row's sum is grouped does not depend on what shares its tile. The producer walks; what the consumers have to know
// of a step travels in shared memory beside its keys.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/segment_index.cuh"
#include "hetsp/attention/cuda/tile_list.h"

// Accumulators live in registers only where everything that is given them is inlined.
#if defined(__CUDACC__)
#define HETSP_INLINE __device__ __forceinline__
#else
#define HETSP_INLINE inline
#endif

namespace hetsp::attention::cuda::hopper {

constexpr int group_rows = 64;     // query rows of a consumer warpgroup
constexpr int consumer_groups = 2;
constexpr std::int32_t most_tokens = 1 << 30;  // of a tensor: coordinates and their differences are 32-bit
static_assert(group_rows * consumer_groups == tile_rows, "the consumers cover a tile");

enum Visible : std::int32_t { see_none, see_some, see_all };

// One key tile against the query rows of one segment. Row i of the query tile sees key columns
// [max(0, i + left), min(end, i + right)) of the tile if member_begin <= i < member_end, and none otherwise.
struct alignas(16) KeyStep {
  std::int32_t left, right, end;
  std::int32_t member_begin, member_end;
  std::int32_t visible;     // two bits a warpgroup: what its rows see of the tile, at most
  std::int32_t is_last;     // of its query tile
  std::int32_t clear_from;  // strangers(), for who clears them by the step; not described

  __device__ std::int32_t visible_to(int group) const { return visible >> (2 * group) & 3; }
};
static_assert(sizeof(KeyStep) == 32, "two 16-byte loads");

// What KeyWalk asks of a call; a chain has an overload of its own.
template <class Params>
__device__ inline const Params& walked_params(const Params& params) {
  return params;  // NOLINT(bugprone-return-const-ref-from-parameter): KeyWalk keeps no temporary
}

// One thread walks, with few registers to spare: whatever can be had again from the parameters is not kept.
template <int Keys, class Params = ForwardParams>
class KeyWalk {
 public:
  __device__ KeyWalk(const Params& params, const Tile& tile)
      : params_(params), row0_(static_cast<std::int32_t>(tile.row0)), rows_(tile.rows), next_(tile.first), last_(tile.last) {}

  // To the next step that some row of the tile sees; false: there is none.
  __device__ bool advance() {
    for (;;) {
      key_ -= Keys;
      while (key_ < low_) {
        if (next_ > last_) return false;
        open(next_++);
      }
      visible_ = look(0) | look(1) << 2;
      if (visible_ != 0) return true;
    }
  }

  [[nodiscard]] __device__ std::int32_t token() const { return key_; }  // the row of k and v where the step begins

  // Rows of V from here on belong to others; Keys: none do. Behind the tensor the copy engine writes zeros.
  [[nodiscard]] __device__ std::int32_t strangers() const {
    return k_end_ < walked_params(params_).shape.total_k ? end() : Keys;
  }

  __device__ void describe(KeyStep& step) const {
    step.left = left(), step.right = right(), step.end = end();
    step.member_begin = member_begin_, step.member_end = member_end_;
    step.visible = visible_;
  }

 private:
  // Cuts to +-most_tokens, beyond which no row of a tensor is; so sums of a row, a distance and a row fit 32 bits.
  __device__ static std::int32_t near(std::int64_t distance) {
    return static_cast<std::int32_t>(
        smaller<std::int64_t>(larger<std::int64_t>(distance, -most_tokens), std::int64_t{most_tokens}));
  }
  __device__ static std::int32_t cut(std::int64_t row, std::int64_t total) {
    return static_cast<std::int32_t>(smaller<std::int64_t>(larger<std::int64_t>(row, 0), total));
  }

  // Sets key_ and low_ to the last and first key tile that the tile's rows see of the segment, if any. segment.h in 32 bits:
  // row i sees keys [max(k_begin, i + from), min(k_end, i + to)), of what clamped() leaves of the segment.
  __device__ void open(std::int32_t index) {
    const Segment& segment = walked_params(params_).segments[index];
    const std::int32_t first = larger(row0_, cut(segment.q_begin, walked_params(params_).shape.total_q)),
                       past = smaller(row0_ + rows_, cut(segment.q_end, walked_params(params_).shape.total_q));
    const std::int64_t shift = segment.q_pos0 - segment.q_begin - (segment.k_pos0 - segment.k_begin);
    const std::int32_t from = segment.left < 0 ? -most_tokens : near(shift - segment.left);
    const std::int32_t to = segment.right < 0 ? most_tokens : near(shift + segment.right + 1);
    const std::int32_t k_begin = cut(segment.k_begin, walked_params(params_).shape.total_k),
                       k_end = cut(segment.k_end, walked_params(params_).shape.total_k);
    const std::int32_t begin = larger(k_begin, first + from), stop = smaller(k_end, past - 1 + to);
    if (first >= past || begin >= stop) return;
    low_ = k_begin + (begin - k_begin) / Keys * Keys;
    key_ = k_begin + (stop - 1 - k_begin) / Keys * Keys;
    k_end_ = k_end, left_ = row0_ + from, right_ = row0_ + to;
    member_begin_ = first - row0_, member_end_ = past - row0_;
  }

  [[nodiscard]] __device__ std::int32_t left() const { return left_ - key_; }
  [[nodiscard]] __device__ std::int32_t right() const { return right_ - key_; }
  [[nodiscard]] __device__ std::int32_t end() const { return smaller(k_end_ - key_, Keys); }

  [[nodiscard]] __device__ std::int32_t look(int group) const {
    const std::int32_t row = group * group_rows, past = smaller(row + group_rows, rows_);  // rows that will be written
    const std::int32_t first = larger(row, member_begin_), last = smaller(past, member_end_) - 1;
    const std::int32_t stop = smaller(end(), last + right());
    if (first > last || first + left() >= stop || stop <= 0) return see_none;
    const bool whole =
        member_begin_ <= row && past <= member_end_ && last + left() <= 0 && smaller(end(), first + right()) >= Keys;
    return whole ? see_all : see_some;
  }

  const Params& params_;
  std::int32_t row0_, rows_, next_, last_;  // segments next_ .. last_ are still to come
  std::int32_t key_ = 0, low_ = 1;          // key tiles key_, key_ - Keys, ..., low_ of the open segment are
  std::int32_t k_end_ = 0, left_ = 0, right_ = 0, member_begin_ = 0, member_end_ = 0, visible_ = 0;
};

}  // namespace hetsp::attention::cuda::hopper
