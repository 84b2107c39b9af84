// Ranks with their loads while sequences are put on them and taken off again: the state of the search in balance.h.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "hetsp/planner/assignment.h"
#include "hetsp/planner/cost_model.h"

namespace hetsp::planner {

// A place found for a sequence, not yet taken.
struct Spot {
  Place place;
  double height;  // seconds: load of its most loaded rank, the sequence included
};

// Invariants: load(r) is the sum of t_d over the sequences on r; no rank holds more than `capacity` tokens of a micro-batch
// (each ring member is charged the most that any member holds); order() lists the ranks by rising (load, number).
class Board {
 public:
  Board(const SequenceSeconds& seconds, std::vector<std::int64_t> tokens, int ranks, std::int64_t capacity, int micro_batches);

  // Where `sequence`, which must be off the board, goes best: the fewest ranks, at least `least_degree`, that end at or below
  // `target` seconds; else those that end lowest, more ranks only where that gains 0.1 %. The ranks are the least loaded
  // with room, the micro-batch is the one that ends lowest, at a tie the emptiest. Degrees far above the least are tried
  // in growing steps. None if no degree finds room.
  [[nodiscard]] std::optional<Spot> find(int sequence, int least_degree, double target);

  // Where `sequence` fits below `target` seconds with the least lost: ranks of equal load, filled to the brim. Of the windows
  // of neighbours in order() and a few degrees from least_degree on, the one with the least
  //   d t_d  +  sum over its ranks of (highest load - load)  +  tightness d (target - height)    [rank-seconds].
  // None if no window ends by `target`: then find().
  [[nodiscard]] std::optional<Spot> pack(int sequence, int least_degree, double target, double tightness);

  void place(int sequence, Place place);  // must be off the board and have room
  Place remove(int sequence);             // must be on it
  void clear();

  void begin();     // changes from here on can be undone
  void rollback();  // undoes them

  [[nodiscard]] double makespan() const { return load_[order_.back()]; }
  [[nodiscard]] double total() const { return total_; }  // rank-seconds of all sequences, communication included
  [[nodiscard]] double load(int rank) const { return load_[rank]; }
  [[nodiscard]] const std::vector<std::int32_t>& order() const { return order_; }
  [[nodiscard]] const std::vector<int>& members(int rank) const { return members_[rank]; }
  [[nodiscard]] const Place& at(int sequence) const { return places_[sequence]; }
  [[nodiscard]] const Assignment& places() const { return places_; }
  [[nodiscard]] int degree(int sequence) const { return static_cast<int>(places_[sequence].ranks.size()); }
  [[nodiscard]] bool has_room(int sequence, int degree, int micro_batch, int rank) const;
  [[nodiscard]] int ranks() const { return static_cast<int>(load_.size()); }
  [[nodiscard]] std::int64_t work() const { return work_; }  // visits of a rank so far
  void count_work(std::int64_t visits) { work_ += visits; }

 private:
  void add(int sequence, double sign);
  void shift(std::int32_t rank, double seconds);  // one rank's load and its place in order()
  // Into roomy_: at most `most` ranks with room and a load of at most `ceiling`, by falling load.
  void collect_roomy(std::int64_t held, int micro_batch, double ceiling, int most);
  void reorder(const std::vector<std::int32_t>& changed);
  // The degree-th rank with room, in order; -1 if there are fewer.
  [[nodiscard]] int last_rank(std::int64_t held, int degree, int micro_batch);

  const SequenceSeconds& seconds_;
  std::vector<std::int64_t> tokens_;  // [sequences]
  std::int64_t capacity_;
  std::vector<int> degrees_;          // tried by find(): all up to 64, then in steps of 2 %, the largest in any case
  std::vector<int> least_;            // [sequences] least degree that memory allows
  std::vector<double> load_;                        // [ranks]
  std::vector<std::vector<std::int64_t>> used_;     // [micro-batches][ranks] tokens
  std::vector<std::int64_t> filled_;                // [micro-batches] tokens
  std::vector<std::vector<int>> members_;           // [ranks] sequences, in no order
  std::vector<std::int32_t> order_;
  Assignment places_;                               // no ranks: off the board
  double total_ = 0.0;
  std::int64_t work_ = 0;
  bool recording_ = false;
  std::vector<std::pair<int, Place>> journal_;      // removed since begin()
  std::vector<bool> marked_;                        // [ranks] scratch
  std::vector<std::int32_t> kept_, moved_;          // scratch of reorder()
  std::vector<std::int32_t> roomy_;                 // scratch of pack()
};

}  // namespace hetsp::planner
