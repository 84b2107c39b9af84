// A step of chains from decisions: which kind of group each sequence takes, and in which order they are placed.
//
// With replicated parameters ranks wait only for those they share a group with (is_chained, plan.h), so a step is a schedule of
// multiprocessor tasks (Drozdowski, EJOR 94, 1996): a group takes d ranks at once, and the makespan is the end of the last. The
// builder is a list schedule in the order of LPT (Graham, SIAM J. Appl. Math. 17, 1969):
//
//   shared sequences  wide groups first, long ones first: onto the d ranks that are free first, inside as few nodes as they
//                     need, or into the group before on the same ranks where that ends earlier and has room
//   whole sequences   longest first: into the gaps that wide groups left, each the tightest that holds it; else onto the rank
//                     that is free first, into a micro-batch with room there or a new one
//
// Each micro-batch of a rank holds at most its room, counted exactly, and pays micro_batch_seconds.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/planner/strategies/task.h"

namespace hetsp::planner {

class ChainBuilder {
 public:
  explicit ChainBuilder(const Task& task);

  // What is decided of a sequence.
  struct Decision {
    const Modes::Mode* mode = nullptr;  // with room for it
    double offload_ratio = 0.0;  // above 0: it has a group, and a micro-batch, of its own
    double priority = 0.0;  // added to the logarithm of its time by which shared sequences are ordered
  };

  // Seconds of the longest chain. [sequences]
  double build(const std::vector<Decision>& decisions);

  // The last build: one list of groups in the order in which ranks do them, which serialise (draft.h) cuts into micro-batches.
  [[nodiscard]] Draft draft() const;
  [[nodiscard]] std::int64_t visits() const { return visits_; }  // of a rank, group or gap by all builds so far

 private:
  struct Group {
    const Modes::Mode* mode;
    std::vector<std::int32_t> ranks;
    std::vector<int> sequences;
    std::int64_t left;  // tokens
    double end;  // seconds, micro_batch_seconds included
    double offload_ratio;
  };
  struct Pack {
    std::int64_t left;  // tokens
    std::vector<int> sequences;
  };
  struct Gap {  // of a rank before a group
    std::int32_t rank;
    std::size_t group;
    double left;  // seconds
    std::vector<Pack> packs;
  };
  struct Node {
    std::int32_t begin, end;
  };

  void place_shared(int s, const Decision& decision);
  void place_whole(int s, double seconds);
  bool fill_gap(int s, double seconds);
  double choose_ranks(int degree);  // into chosen_; the time at which they are free
  double choose_in_node(int degree, Node node);
  [[nodiscard]] double add_to_packs(std::vector<Pack>& packs, int s, double seconds, double most) const;

  const Task& task_;
  std::vector<Node> nodes_;
  double fixed_;
  std::vector<double> free_at_;  // [ranks]
  std::vector<Group> groups_;
  std::vector<Gap> gaps_;
  std::vector<std::pair<double, std::size_t>> gap_order_;  // (seconds left, gap), ascending
  std::vector<std::vector<Pack>> tails_;  // [ranks] micro-batches of whole sequences after all groups
  std::vector<std::pair<double, std::int32_t>> heap_;  // (free at, rank), least first
  std::vector<std::int32_t> chosen_, scratch_;
  std::int64_t visits_ = 0;
};

}  // namespace hetsp::planner
