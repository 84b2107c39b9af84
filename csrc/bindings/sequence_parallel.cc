#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <tuple>

#include "bindings/register.h"
#include "hetsp/base/error.h"
#include "hetsp/sequence_parallel/layout.h"
#include "hetsp/sequence_parallel/schedule.h"
#include "hetsp/sequence_parallel/schedule_check.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace hetsp::bindings {

namespace {

using namespace sequence_parallel;

using PieceTuple = std::tuple<std::int32_t, std::int64_t, std::int64_t>;  // sequence, begin, end

std::vector<PieceTuple> as_tuples(const std::vector<Piece>& pieces) {
  std::vector<PieceTuple> tuples;
  for (const auto& piece : pieces) tuples.emplace_back(piece.sequence.value(), piece.begin, piece.end);
  return tuples;
}

std::vector<std::array<std::int64_t, 8>> as_rows(const std::vector<attention::Segment>& segments) {
  std::vector<std::array<std::int64_t, 8>> rows;
  for (const auto& s : segments) rows.push_back({s.q_begin, s.q_end, s.k_begin, s.k_end, s.q_pos0, s.k_pos0, s.left, s.right});
  return rows;
}

std::vector<std::int32_t> as_integers(const std::vector<Rank>& ranks) {
  std::vector<std::int32_t> values;
  for (const auto rank : ranks) values.push_back(rank.value());
  return values;
}

Rank checked_rank(const Layout& layout, int rank) {
  require(0 <= rank && rank < layout.ranks, "rank ", rank, " of ", layout.ranks);
  return Rank(rank);
}

// Proves every micro-batch covered and the whole step free of deadlock.
void check_step(const std::vector<Layout>& layouts, std::int64_t left, std::int64_t right) {
  const Window window{left, right};
  const int ranks = layouts.empty() ? 0 : layouts.front().ranks;
  std::vector<std::vector<Schedule>> by_rank(ranks);
  for (const auto& layout : layouts) {
    std::vector<Schedule> schedules;
    for (int rank = 0; rank < ranks; ++rank) schedules.push_back(make_schedule(layout, Rank(rank), window));
    check_coverage(layout, schedules, window);
    for (int rank = 0; rank < ranks; ++rank) by_rank[rank].push_back(std::move(schedules[rank]));
  }
  std::vector<std::vector<Step>> programs;
  for (const auto& schedules : by_rank) programs.push_back(make_program(schedules));
  check_progress(programs);
}

void register_layout(nb::module_& m) {
  nb::class_<Ring>(m, "Ring", "Ranks that share the attention of some sequences; parts[i] is held by ranks[i].")
      .def_prop_ro("ranks", [](const Ring& ring) { return as_integers(ring.ranks); })
      .def_prop_ro("parts", [](const Ring& ring) {
        std::vector<std::vector<PieceTuple>> parts;
        for (const auto& part : ring.parts) parts.push_back(as_tuples(part));
        return parts;
      });
  nb::class_<Layout>(m, "Layout", "Which rank holds which tokens of one micro-batch, in which order.")
      .def_ro("ranks", &Layout::ranks)
      .def_ro("rings", &Layout::rings)
      .def(
          "rings_of", [](const Layout& layout, int rank) { return layout.rings_of(checked_rank(layout, rank)); }, "rank"_a)
      .def(
          "pieces_of", [](const Layout& layout, int rank) { return as_tuples(layout.pieces_of(checked_rank(layout, rank))); },
          "rank"_a, "(sequence, begin, end) of each piece that the rank holds, in row order")
      .def(
          "tokens_of", [](const Layout& layout, int rank) { return layout.tokens_of(checked_rank(layout, rank)); }, "rank"_a)
      .def(
          "part_tokens", [](const Layout& layout, int ring, int part) { return layout.rings.at(ring).tokens(part); }, "ring"_a,
          "part"_a)
      .def(
          "part_of", [](const Layout& layout, int ring, int rank) { return layout.part_of(ring, checked_rank(layout, rank)); },
          "ring"_a, "rank"_a)
      .def(
          "row_begin",
          [](const Layout& layout, int ring, int rank) { return layout.row_begin(ring, checked_rank(layout, rank)); }, "ring"_a,
          "rank"_a);
  m.def("make_layout", &make_layout, "plan"_a, "micro_batch"_a, "alignment"_a = 1);
}

void register_schedule(nb::module_& m) {
  nb::enum_<StepKind>(m, "StepKind")
      .value("attend", StepKind::attend)
      .value("send", StepKind::send)
      .value("recv", StepKind::recv)
      .value("accumulate", StepKind::accumulate);
  nb::enum_<Field>(m, "Field").value("key_value", Field::key_value).value("key_value_gradient", Field::key_value_gradient);
  nb::class_<Step>(m, "Step", "One step of a rank's schedule; see csrc/hetsp/sequence_parallel/schedule.h.")
      .def_ro("kind", &Step::kind)
      .def_ro("field", &Step::field)
      .def_ro("ring", &Step::ring)
      .def_ro("part", &Step::part)
      .def_ro("hop", &Step::hop)
      .def_prop_ro("peer", [](const Step& step) { return step.peer.value(); })
      .def_ro("rows", &Step::rows)
      .def_ro("batch", &Step::batch)
      .def_ro("after", &Step::after)
      .def_prop_ro("segments", [](const Step& step) { return as_rows(step.segments); });
  nb::class_<Schedule>(m, "Schedule", "What one rank does for the attention of one micro-batch.")
      .def_ro("forward", &Schedule::forward)
      .def_ro("backward", &Schedule::backward)
      .def_prop_ro("visible_pairs", &Schedule::visible_pairs);
  m.def(
      "make_schedule",
      [](const Layout& layout, int rank, std::int64_t left, std::int64_t right) {
        return make_schedule(layout, checked_rank(layout, rank), {left, right});
      },
      "layout"_a, "rank"_a, "left"_a = -1, "right"_a = 0);
  m.def("check_step", &check_step, "layouts"_a, "left"_a = -1, "right"_a = 0, nb::call_guard<nb::gil_scoped_release>(),
        "Proves that the schedules of all ranks cover each visible pair once and cannot deadlock; raises RuntimeError if not.");
}

}  // namespace

void register_sequence_parallel(nb::module_& m) {
  register_layout(m);
  register_schedule(m);
}

}  // namespace hetsp::bindings
