#include "hetsp/sequence_parallel/schedule_check.h"

#include <algorithm>
#include <deque>
#include <map>

#include "hetsp/base/error.h"

namespace hetsp::sequence_parallel {

namespace {

using attention::Segment;

struct Rectangle {
  std::int64_t q_begin, q_end, k_begin, k_end;  // tokens of one sequence
};

// The piece that holds rows [begin, end) of a part, and the token at which they begin.
std::pair<SequenceIndex, std::int64_t> tokens_at(const std::vector<Piece>& part, std::int64_t begin, std::int64_t end) {
  std::int64_t row = 0;
  for (const auto& piece : part) {
    if (begin < row + piece.tokens()) {
      invariant(end <= row + piece.tokens(), "rows [", begin, ", ", end, ") run over the end of a piece at row ",
                row + piece.tokens());
      return {piece.sequence, piece.begin + (begin - row)};
    }
    row += piece.tokens();
  }
  throw BrokenInvariant(concat("rows [", begin, ", ", end, ") of a part of ", row, " rows"));
}

// The rectangle of one segment, after checking that the segment says what the layout says.
std::pair<SequenceIndex, Rectangle> rectangle_of(const Layout& layout, Rank rank, const Step& step, const Segment& segment,
                                                 Window window) {
  const auto& ring = layout.rings[step.ring];
  const auto [q_sequence, q_token] = tokens_at(ring.parts[layout.part_of(step.ring, rank)], segment.q_begin, segment.q_end);
  const auto [k_sequence, k_token] = tokens_at(ring.parts[step.part], segment.k_begin, segment.k_end);
  invariant(q_sequence == k_sequence, "rank ", rank.value(), " attends sequence ", q_sequence.value(), " to sequence ",
            k_sequence.value());
  invariant(
      segment.q_pos0 == q_token && segment.k_pos0 == k_token && segment.left == window.left && segment.right == window.right,
      "rank ", rank.value(), " gives sequence ", q_sequence.value(), " positions (", segment.q_pos0, ", ", segment.k_pos0,
      ") where the layout has (", q_token, ", ", k_token, ")");
  return {q_sequence, {q_token, q_token + segment.q_end - segment.q_begin, k_token, k_token + segment.k_end - segment.k_begin}};
}

// Sorted by first query row, only rectangles that begin before this one's last row can overlap it.
void check_disjoint(SequenceIndex sequence, std::vector<Rectangle>& rectangles) {
  std::sort(rectangles.begin(), rectangles.end(), [](const Rectangle& a, const Rectangle& b) { return a.q_begin < b.q_begin; });
  for (std::size_t i = 0; i < rectangles.size(); ++i)
    for (std::size_t j = i + 1; j < rectangles.size() && rectangles[j].q_begin < rectangles[i].q_end; ++j) {
      const Rectangle &a = rectangles[i], &b = rectangles[j];
      invariant(a.k_end <= b.k_begin || b.k_end <= a.k_begin, "sequence ", sequence.value(), ": queries from ", b.q_begin,
                " meet keys from ", std::max(a.k_begin, b.k_begin), " twice");
    }
}

void check_phase(const Layout& layout, std::span<const Schedule> schedules, Window window,
                 std::vector<Step> Schedule::* phase) {
  std::map<SequenceIndex, std::int64_t> tokens, pairs;
  for (const auto& ring : layout.rings)
    for (const auto& part : ring.parts)
      for (const auto& piece : part) tokens[piece.sequence] += piece.tokens();
  std::map<SequenceIndex, std::vector<Rectangle>> rectangles;
  for (const auto& schedule : schedules)
    for (const auto& step : schedule.*phase)
      for (const auto& segment : step.segments) {
        const auto [sequence, rectangle] = rectangle_of(layout, schedule.rank, step, segment, window);
        rectangles[sequence].push_back(rectangle);
        pairs[sequence] += visible_pairs(segment);
      }
  for (const auto& [sequence, length] : tokens) {
    check_disjoint(sequence, rectangles[sequence]);
    const std::int64_t all = attention::visible_pairs(Segment{0, length, 0, length, 0, 0, window.left, window.right});
    invariant(pairs[sequence] == all, "sequence ", sequence.value(), " of ", length, " tokens: ", pairs[sequence], " of ", all,
              " visible pairs are attended");
  }
}

// Executes the programs in the model of the header.
class Progress {
 public:
  explicit Progress(std::span<const std::vector<Step>> programs) : programs_(programs), ranks_(programs.size()) {
    for (std::size_t rank = 0; rank < programs.size(); ++rank)
      for (const auto& step : programs[rank])
        if (step.batch >= 0) ranks_[rank].open.resize(step.batch + 1), ++ranks_[rank].open[step.batch];
  }

  void run() {
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t rank = 0; rank < programs_.size(); ++rank)
        while (advance(static_cast<int>(rank))) moved = true;
    }
    for (std::size_t rank = 0; rank < programs_.size(); ++rank) check_finished(static_cast<int>(rank));
    for (const auto& [pair, queue] : queues_)
      invariant(queue.sends.empty() && queue.recvs.empty(), "rank ", pair.first, " has ", queue.sends.size(), " sends to rank ",
                pair.second, " without a receive, and ", queue.recvs.size(), " receives without a send");
  }

 private:
  struct Posted {
    int rank;
    std::size_t step;
  };
  struct Queue {
    std::deque<Posted> sends, recvs;
  };
  struct State {
    std::size_t next = 0;   // first step not started
    std::vector<int> open;  // by batch: posts not yet met by their peer
  };

  [[nodiscard]] bool ready(int rank, std::size_t at) const {
    const State& state = ranks_[rank];
    return std::all_of(programs_[rank][at].after.begin(), programs_[rank][at].after.end(), [&](int earlier) {
      const int batch = programs_[rank][earlier].batch;
      return static_cast<std::size_t>(earlier) < state.next && (batch < 0 || state.open[batch] == 0);
    });
  }

  // Starts the next piece of work of a rank, or its next batch; false if it has to wait.
  bool advance(int rank) {
    const auto& program = programs_[rank];
    State& state = ranks_[rank];
    if (state.next == program.size()) return false;
    std::size_t end = state.next + 1;
    while (program[state.next].batch >= 0 && end < program.size() && program[end].batch == program[state.next].batch) ++end;
    for (std::size_t at = state.next; at < end; ++at)
      if (!ready(rank, at)) return false;
    for (; state.next < end; ++state.next)
      if (program[state.next].batch >= 0) post(rank, state.next);
    return true;
  }

  void post(int rank, std::size_t at) {
    const Step& step = programs_[rank][at];
    const bool send = step.kind == StepKind::send;
    const int peer = step.peer.value();
    invariant(0 <= peer && peer < static_cast<int>(programs_.size()) && peer != rank, "rank ", rank, " step ", at,
              " names peer ", peer);
    Queue& queue = send ? queues_[{rank, peer}] : queues_[{peer, rank}];
    auto &own = send ? queue.sends : queue.recvs, &others = send ? queue.recvs : queue.sends;
    if (others.empty()) {
      own.push_back({rank, at});
      return;
    }
    const Posted other = others.front();
    others.pop_front();
    const Step& match = programs_[other.rank][other.step];
    invariant(step.field == match.field && step.ring == match.ring && step.part == match.part && step.rows == match.rows &&
                  step.phase == match.phase,
              "rank ", rank, " step ", at, " (ring ", step.ring, " part ", step.part, ") meets rank ", other.rank, " step ",
              other.step, " (ring ", match.ring, " part ", match.part, ")");
    --ranks_[rank].open[step.batch];
    --ranks_[other.rank].open[match.batch];
  }

  void check_finished(int rank) const {
    const State& state = ranks_[rank];
    if (state.next < programs_[rank].size()) {
      const Step& step = programs_[rank][state.next];
      throw BrokenInvariant(concat("rank ", rank, " is stuck at step ", state.next, " of ", programs_[rank].size(), " (ring ",
                                   step.ring, ", hop ", step.hop, ")"));
    }
    for (std::size_t batch = 0; batch < state.open.size(); ++batch)
      invariant(state.open[batch] == 0, "rank ", rank, " waits for ever for ", state.open[batch], " messages of batch ", batch);
  }

  const std::span<const std::vector<Step>> programs_;
  std::vector<State> ranks_;
  std::map<std::pair<int, int>, Queue> queues_;  // by (sender, receiver)
};

}  // namespace

void check_coverage(const Layout& layout, std::span<const Schedule> schedules, Window window) {
  check_phase(layout, schedules, window, &Schedule::forward);
  check_phase(layout, schedules, window, &Schedule::backward);
}

void check_progress(std::span<const std::vector<Step>> programs) { Progress(programs).run(); }

}  // namespace hetsp::sequence_parallel
