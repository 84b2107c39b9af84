#include "hetsp/attention/pieces.h"

#include <random>

#include "attention/random_segments.h"
#include "support/check.h"

using namespace hetsp::attention;

TEST(flags_count_up_and_wrap) {
  CHECK(has_arrived(5, 5) && has_arrived(6, 5) && !has_arrived(4, 5));
  CHECK(has_arrived(0, 0xffffffffu) && has_arrived(2, 0xfffffff0u) && !has_arrived(0xffffffffu, 0));
  CHECK(has_arrived(0x7fffffffu, 0) && !has_arrived(0x80000000u, 0));
}

// Every key of the axis is seen by the rows that saw it, in the one piece that holds it.
TEST(a_cut_segment_shows_each_key_to_whom_the_whole_did) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    const std::int64_t total = 40;
    for (const Segment& whole : attention_test::random_segments(random, total, 4))
      for (std::int64_t begin = 0; begin < total;) {
        const auto rows = static_cast<std::int64_t>(random() % 15);
        const Segment cut = cut_to_piece(whole, begin, rows);
        CHECK(0 <= cut.k_begin && cut.k_begin <= cut.k_end && cut.k_end <= rows);
        for (std::int64_t row = whole.q_begin; row < whole.q_end; ++row) {
          const RowRange all = visible_keys(whole, row), here = visible_keys(cut, row);
          for (std::int64_t key = 0; key < rows; ++key) {
            const bool was = all.begin <= begin + key && begin + key < all.end;
            CHECK_EQ(here.begin <= key && key < here.end, was);
          }
        }
        begin += rows;
      }
  }
}

TEST(links_begin_with_the_seed_and_end_with_the_sink) {
  float out[1], sum[1], seed[1], sink[1], lse[1], seed_lse[1];
  const KeyPiece pieces[3] = {{{out, 1, 1}, {out, 2, 2}, 4, nullptr, 0}, {{sum, 3, 3}, {sum, 4, 4}, 5, nullptr, 0}, {}};
  PiecesParams params{};
  params.call.shape.total_k = 9;
  params.call.sink = sink, params.call.seed_out = {seed, 7, 8}, params.call.seed_lse = seed_lse;
  params.call.out = {out, 1, 1}, params.call.lse = lse;
  params.pieces = pieces, params.count = 3;
  const View between{sum, 5, 6};
  CHECK(needs_memory_between(params));
  const ForwardParams first = link_of(params, 0, nullptr, between), second = link_of(params, 1, nullptr, between),
                      last = link_of(params, 2, nullptr, between);
  CHECK(first.seed_out.data == seed && first.seed_lse == seed_lse && first.sink == nullptr);
  CHECK(first.out.data == sum && first.out_is_acc && first.lse == lse && first.k.token_stride == 1);
  CHECK(second.seed_out.data == sum && second.seed_out.head_stride == 6 && second.seed_lse == lse);
  CHECK(second.out.data == sum && second.shape.total_k == 5 && second.v.head_stride == 4);
  CHECK(last.seed_out.data == sum && last.sink == sink && last.out.data == out && !last.out_is_acc);
  CHECK(!may_pass_over(params, 0) && may_pass_over(params, 1) && !may_pass_over(params, 2));
  params.call.out_is_acc = true;
  CHECK(!needs_memory_between(params) && !may_pass_over(params, 2));  // the sink is still to be joined
  CHECK(link_of(params, 1, nullptr, {}).seed_out.data == out);
  params.call.sink = nullptr;
  CHECK(may_pass_over(params, 2));
  params.count = 1;
  CHECK(!may_pass_over(params, 0));
}

TEST_MAIN()
