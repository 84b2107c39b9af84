// hetsp_ext._core: replays a plan on a described cluster. Seconds and bytes; ranks are plain ints.
#include "hetsp/simulator/simulate.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <numeric>
#include <tuple>

#include "bindings/register.h"
#include "hetsp/base/error.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace hetsp::bindings {

namespace {

using namespace simulator;

constexpr const char* kWork[] = {"linear", "attention", "fixed"};  // in the order of the enum

Routing routing_from(const std::string& name) {
  if (name == "own-nic") return Routing::own_nic;
  if (name == "all-nics") return Routing::all_nics;
  require(name == "all-nics-in-turn", "simulate: routing \"", name,
          "\" is unknown; allowed: own-nic, all-nics, all-nics-in-turn");
  return Routing::all_nics_in_turn;
}

}  // namespace

void register_simulator(nb::module_& m) {
  nb::class_<Timeline>(
      m, "Timeline",
      "What happened when. On each rank busy + communication + wait = makespan: it computes, messages of one of\n"
      "its groups travel and nothing hides them, or it waits. Made by hetsp_ext.simulate.")
      .def_ro("makespan", &Timeline::makespan, "seconds")
      .def_ro("busy", &Timeline::busy, "[ranks] seconds of computation")
      .def_ro("communication", &Timeline::communication, "[ranks] seconds of communication that no computation hides")
      .def_ro("wait", &Timeline::wait, "[ranks] seconds")
      .def_prop_ro(
          "network_bytes",
          [](const Timeline& t) { return std::accumulate(t.resource_bytes.begin(), t.resource_bytes.end(), 0.0) / 2; },
          "bytes that left a rank for its node, or a NIC for another one")
      .def_prop_ro(
          "spans",
          [](const Timeline& t) {
            std::vector<std::tuple<int, std::string, int, int, double, double>> spans;
            for (const auto& s : t.spans)
              spans.emplace_back(s.rank, kWork[static_cast<int>(s.work)], s.micro_batch, s.group, s.begin, s.end);
            return spans;
          },
          "[(rank, \"linear\", \"attention\" or \"fixed\", micro-batch, group or -1, begin, end)], seconds")
      .def_prop_ro(
          "transfers",
          [](const Timeline& t) {
            std::vector<std::tuple<int, int, double, double, double>> transfers;
            for (const auto& s : t.transfers) transfers.emplace_back(s.micro_batch, s.group, s.begin, s.end, s.bytes);
            return transfers;
          },
          "[(micro-batch, group, begin, end, bytes of one message)], seconds with start-up; a table's delays have 0 bytes");
  m.def(
      "simulate",
      [](const planner::Plan& plan, const planner::CostModel& cost, std::optional<int> ranks_per_node,
         const std::optional<planner::Network>& network, bool overlap, bool contention, bool packed,
         const std::string& routing) {
        Machine machine = machine_of(cost, plan.ranks, ranks_per_node.value_or(0));
        if (network) machine.network = *network;
        const Options options{overlap, contention, packed, routing_from(routing)};
        const nb::gil_scoped_release release;
        return simulate(plan, cost, machine, options);
      },
      "plan"_a, "cost_model"_a, nb::kw_only(), "ranks_per_node"_a = nb::none(), "network"_a = nb::none(), "overlap"_a = true,
      "contention"_a = true, "packed"_a = true, "routing"_a = "own-nic");
}

}  // namespace hetsp::bindings
