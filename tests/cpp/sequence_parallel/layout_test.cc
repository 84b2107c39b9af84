#include "hetsp/sequence_parallel/layout.h"

#include <map>

#include "hetsp/base/error.h"
#include "sequence_parallel/plans.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::sequence_parallel;

TEST(rings_first_then_whole_sequences) {
  const auto plan = plans::plan(
      3, {5, 12, 7}, {{{plans::group({0}, {Rank(2)}), plans::group({1}, {Rank(2), Rank(0)}), plans::group({2}, {Rank(2)})}}});
  const Layout layout = make_layout(plan, 0);
  CHECK_EQ(layout.rings.size(), 2u);
  CHECK((layout.pieces_of(Rank(2)) ==
         std::vector<Piece>{
             {SequenceIndex(1), 0, 3}, {SequenceIndex(1), 9, 12}, {SequenceIndex(0), 0, 5}, {SequenceIndex(2), 0, 7}}));
  CHECK((layout.pieces_of(Rank(0)) == std::vector<Piece>{{SequenceIndex(1), 3, 9}}));
  CHECK(layout.pieces_of(Rank(1)).empty());
  CHECK_EQ(layout.row_begin(1, Rank(2)), 6);
  CHECK_EQ(layout.tokens_of(Rank(2)), 18);
}

TEST(random_plans_hold_every_token_once) {
  for (int seed = 0; seed < 300; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    const auto plan = plans::random_plan(random);
    std::map<int, std::vector<int>> seen;
    for (int sequence = 0; sequence < static_cast<int>(plan.sequences.size()); ++sequence)
      seen[sequence].resize(plan.sequences[sequence].tokens);
    for (int micro_batch = 0; micro_batch < static_cast<int>(plan.micro_batches.size()); ++micro_batch) {
      const Layout layout = make_layout(plan, micro_batch);
      for (int rank = 0; rank < plan.ranks; ++rank) {
        std::int64_t rows = 0;
        for (const auto& piece : layout.pieces_of(Rank(rank))) {
          for (auto token = piece.begin; token < piece.end; ++token) ++seen[piece.sequence.value()][token];
          rows += piece.tokens();
        }
        CHECK_EQ(rows, layout.tokens_of(Rank(rank)));
      }
    }
    for (const auto& [sequence, counts] : seen)
      for (int count : counts) CHECK_EQ(count, 1);
  }
}

TEST(bad_values_are_named) {
  const auto plan = plans::plan(1, {}, {{}});
  CHECK_THROWS(InvalidArgument, "micro-batch 1 of a plan of 1", make_layout(plan, 1));
}

TEST_MAIN()
