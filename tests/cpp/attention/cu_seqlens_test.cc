#include "hetsp/attention/cu_seqlens.h"

#include <vector>

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp::attention;
using hetsp::InvalidArgument;

namespace {

template <class Int>
std::vector<Segment> convert(const std::vector<Int>& q, const std::vector<Int>& k, std::int64_t total, std::int64_t max_seqlen,
                             std::int64_t left = -1, std::int64_t right = 0) {
  std::vector<Segment> segments(q.size() - 1);
  cu_seqlens_to_segments({q.data(), k.data(), sizeof(Int) == 8, static_cast<std::int64_t>(q.size()) - 1, total, total,
                          max_seqlen, max_seqlen, left, right},
                         segments.data());
  return segments;
}
using I32 = std::vector<std::int32_t>;
using I64 = std::vector<std::int64_t>;

}  // namespace

TEST(bottom_right_aligned) {
  const auto segments = convert<std::int32_t>({0, 2, 2, 7}, {0, 5, 6, 6}, 10, 5);
  CHECK_EQ(segments.size(), 3u);
  CHECK_EQ(segments[0].q_pos0, 3);  // 5 keys - 2 queries
  CHECK_EQ(visible_keys(segments[0], 0).end, 4);
  CHECK_EQ(visible_keys(segments[0], 1).end, 5);
  CHECK_EQ(segments[2].q_pos0, -5);
  CHECK_EQ(visible_pairs(segments[2]), 0);
}

TEST(both_integer_types_agree) {
  const auto a = convert<std::int32_t>({0, 4, 9}, {0, 3, 3}, 9, 5), b = convert<std::int64_t>({0, 4, 9}, {0, 3, 3}, 9, 5);
  for (std::size_t i = 0; i < 2; ++i) CHECK(a[i].q_end == b[i].q_end && a[i].k_end == b[i].k_end && a[i].q_pos0 == b[i].q_pos0);
}

TEST(only_what_is_used_takes_part) {
  const I32 q{0, 4, 6}, k{0, 8, 10}, used_q{3, 0}, used_k{5, 2};
  std::vector<Segment> segments(2);
  const auto use = [&](const I32& rows, const I32& keys, std::int64_t longest) {
    cu_seqlens_to_segments({q.data(), k.data(), false, 2, 6, 10, longest, 8, -1, 0, rows.data(), keys.data()}, segments.data());
  };
  use(used_q, used_k, 3);
  CHECK(segments[0].q_begin == 0 && segments[0].q_end == 3 && segments[0].k_begin == 0 && segments[0].k_end == 5);
  CHECK_EQ(segments[0].q_pos0, 2);  // 5 keys - 3 queries
  CHECK(segments[1].q_begin == 4 && segments[1].q_end == 4 && segments[1].k_begin == 8 && segments[1].k_end == 10);
  CHECK_THROWS(InvalidArgument, "seqused_q[1] is 3, must be in [0, 2], the length of sequence 1 in q", use({3, 3}, used_k, 4));
  CHECK_THROWS(InvalidArgument, "seqused_k[0] is -1, must be in [0, 8]", use(used_q, {-1, 0}, 4));
  CHECK_THROWS(InvalidArgument, "max_seqlen_q is 2, but sequence 0 has 3 tokens in q", use(used_q, used_k, 2));
}

TEST(no_sequences) { CHECK(convert<std::int32_t>({0}, {0}, 0, 0).empty()); }

TEST(each_fault_names_index_and_value) {
  CHECK_THROWS(InvalidArgument, "cu_seqlens_q[0] is 3, must be 0", convert(I32{3, 4}, I32{0, 1}, 9, 9));
  CHECK_THROWS(InvalidArgument, "cu_seqlens_k[0] is -1, must be 0", convert(I64{0, 4}, I64{-1, 1}, 9, 9));
  CHECK_THROWS(InvalidArgument, "cu_seqlens_q[2] is 4, below cu_seqlens_q[1] = 5", convert(I32{0, 5, 4}, I32{0, 1, 2}, 9, 9));
  CHECK_THROWS(InvalidArgument, "cu_seqlens_k[2] is 10, beyond the 9 rows of k", convert(I32{0, 5, 9}, I32{0, 1, 10}, 9, 9));
  CHECK_THROWS(InvalidArgument, "max_seqlen_q is 4, but sequence 1 has 5 tokens in q",
               convert(I32{0, 4, 9}, I32{0, 1, 2}, 9, 4));
  CHECK_THROWS(InvalidArgument, "window_size[0] is -2", convert(I32{0, 4}, I32{0, 4}, 9, 9, -2));
  CHECK_THROWS(InvalidArgument, "window_size[1] is -3", convert(I32{0, 4}, I32{0, 4}, 9, 9, -1, -3));
}

TEST_MAIN()
