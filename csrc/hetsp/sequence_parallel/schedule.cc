#include "hetsp/sequence_parallel/schedule.h"

#include <algorithm>
#include <initializer_list>

#include "hetsp/base/error.h"

namespace hetsp::sequence_parallel {

namespace {

using attention::Segment;

// Segments of the query pieces against the key pieces of the same sequences; those in which nothing is visible are left out.
std::vector<Segment> segments_between(const std::vector<Piece>& queries, const std::vector<Piece>& keys, Window window) {
  std::vector<Segment> segments;
  std::int64_t q_row = 0;
  for (const auto& q : queries) {
    std::int64_t k_row = 0;
    for (const auto& k : keys) {
      const bool too_early = window.left >= 0 && k.end - 1 < q.begin - window.left;  // even the last key, for the first query
      const bool too_late = window.right >= 0 && k.begin > q.end - 1 + window.right;
      if (q.sequence == k.sequence && !too_early && !too_late)
        segments.push_back({q_row, q_row + q.tokens(), k_row, k_row + k.tokens(), q.begin, k.begin, window.left, window.right});
      k_row += k.tokens();
    }
    q_row += q.tokens();
  }
  return segments;
}

class Builder {
 public:
  Builder(const Layout& layout, Rank rank, Window window, Phase phase)
      : layout_(layout),
        rank_(rank),
        window_(window),
        phase_(phase),
        rings_(layout.rings_of(rank)),
        arrived_(layout.rings.size()) {
    for (int ring : rings_) hops_ = std::max(hops_, layout_.rings[ring].size());
  }

  std::vector<Step> build() {
    for (int ring : rings_) pass_on(ring, 0, Field::key_value, nothing);
    for (int hop = 0; hop < hops_; ++hop)
      for (int ring : rings_)
        if (hop < layout_.rings[ring].size()) visit(ring, hop);
    if (phase_ == Phase::backward)
      for (int ring : rings_)
        if (const int size = layout_.rings[ring].size(); size > 1) accumulate(ring, size, nothing, arrived_[ring].gradients);
    number_batches();
    return std::move(steps_);
  }

 private:
  static constexpr int nothing = -1;  // no step to wait for

  struct Arrived {  // the receives posted last for a ring: steps, or nothing for an empty block
    int keys = nothing, gradients = nothing;
  };

  void visit(int ring, int hop) {
    const int keys = arrived_[ring].keys;
    if (hop > 0) pass_on(ring, hop, Field::key_value, keys);
    const int attended = attend(ring, hop, keys);
    if (phase_ == Phase::forward || layout_.rings[ring].size() == 1) return;
    const int gradient = hop == 0 ? attended : accumulate(ring, hop, attended, arrived_[ring].gradients);
    pass_on(ring, hop, Field::key_value_gradient, gradient);
  }

  [[nodiscard]] int part_at(int ring, int hop) const {
    const int size = layout_.rings[ring].size();
    return (layout_.part_of(ring, rank_) - hop + size) % size;
  }

  int add(Step step, std::initializer_list<int> after) {
    for (int earlier : after)
      if (earlier != nothing) step.after.push_back(earlier);
    steps_.push_back(std::move(step));
    return static_cast<int>(steps_.size()) - 1;
  }

  // A step of this ring at `hop`, on the block that lies here then.
  [[nodiscard]] Step step(StepKind kind, Field field, int ring, int hop) const {
    const int part = part_at(ring, hop);
    return {kind, phase_, field, ring, part, hop, rank_, layout_.rings[ring].tokens(part), -1, {}, {}};
  }

  // Sends the block held at `hop` to the next rank and posts the buffer for the one that comes after it. Keys stop one hop
  // before they would be home again; gradients go all the way. Empty blocks are no messages.
  void pass_on(int ring, int hop, Field field, int ready) {
    const auto& ranks = layout_.rings[ring].ranks;
    const int size = static_cast<int>(ranks.size()), me = layout_.part_of(ring, rank_);
    if (hop >= (field == Field::key_value ? size - 1 : size)) return;
    Step out = step(StepKind::send, field, ring, hop), in = step(StepKind::recv, field, ring, hop + 1);
    out.peer = ranks[(me + 1) % size], in.peer = ranks[(me + size - 1) % size];
    if (out.rows > 0) add(std::move(out), {ready});
    const int posted = in.rows > 0 ? add(std::move(in), {}) : nothing;
    (field == Field::key_value ? arrived_[ring].keys : arrived_[ring].gradients) = posted;
  }

  // Neighbouring posts go out together, unless one of them waits for another.
  void number_batches() {
    int batch = -1, first = 0;
    for (int at = 0; at < static_cast<int>(steps_.size()); ++at) {
      Step& post = steps_[at];
      if (post.kind != StepKind::send && post.kind != StepKind::recv) continue;
      const bool follows = at > 0 && steps_[at - 1].batch >= 0;
      const bool waits = std::any_of(post.after.begin(), post.after.end(), [&](int earlier) { return earlier >= first; });
      if (!follows || waits) ++batch, first = at;
      post.batch = batch;
    }
  }

  int attend(int ring, int hop, int keys) {
    Step work = step(StepKind::attend, Field::key_value, ring, hop);
    const auto& parts = layout_.rings[ring].parts;
    work.segments = segments_between(parts[part_at(ring, 0)], parts[work.part], window_);
    return work.segments.empty() ? nothing : add(std::move(work), {keys});
  }

  int accumulate(int ring, int hop, int attended, int arrived) {
    Step sum = step(StepKind::accumulate, Field::key_value_gradient, ring, hop);
    return sum.rows == 0 ? nothing : add(std::move(sum), {attended, arrived});
  }

  const Layout& layout_;
  const Rank rank_;
  const Window window_;
  const Phase phase_;
  const std::vector<int> rings_;
  int hops_ = 0;
  std::vector<Arrived> arrived_;  // by ring
  std::vector<Step> steps_;
};

}  // namespace

std::int64_t Schedule::visible_pairs() const {
  std::int64_t pairs = 0;
  for (const auto& step : forward)
    for (const auto& segment : step.segments) pairs += attention::visible_pairs(segment);
  return pairs;
}

Schedule make_schedule(const Layout& layout, Rank rank, Window window) {
  require(0 <= rank.value() && rank.value() < layout.ranks, "schedule: rank ", rank.value(), " of ", layout.ranks);
  require(window.left >= -1 && window.right >= -1, "schedule: window (", window.left, ", ", window.right,
          "); each must be at least -1");
  return {rank, Builder(layout, rank, window, Phase::forward).build(), Builder(layout, rank, window, Phase::backward).build()};
}

std::vector<Step> make_program(std::span<const Schedule> micro_batches) {
  std::vector<Step> program;
  std::vector<std::int32_t> messages;  // of the phase before
  int batches = 0;
  const auto append = [&](const std::vector<Step>& phase) {
    const int first = static_cast<int>(program.size()), first_batch = batches;
    std::vector<std::int32_t> posted;
    for (Step step : phase) {
      for (auto& earlier : step.after) earlier += first;
      if (static_cast<int>(program.size()) == first) step.after.insert(step.after.end(), messages.begin(), messages.end());
      if (step.batch >= 0) {
        step.batch += first_batch;
        batches = step.batch + 1;
        posted.push_back(static_cast<std::int32_t>(program.size()));
      }
      program.push_back(std::move(step));
    }
    if (!phase.empty()) messages = std::move(posted);
  };
  for (const auto& schedule : micro_batches) append(schedule.forward), append(schedule.backward);
  return program;
}

}  // namespace hetsp::sequence_parallel
