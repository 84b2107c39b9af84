// hetsp_ext._core: transfers between the layout of attention and equal tokens.
#include "hetsp/planner/remap.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/register.h"
#include "hetsp/base/error.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace hetsp::bindings {

using namespace planner;

void register_remap(nb::module_& m) {
  nb::class_<Remap>(m, "Remap", "Which rank sends how many tokens to which; made by hetsp_ext.remap.")
      .def_prop_ro(
          "targets", [](const Remap& r) { return r.targets; }, "[ranks] tokens of each rank afterwards")
      .def_prop_ro(
          "transfers",
          [](const Remap& r) {
            nb::list list;
            for (const Transfer& t : r.transfers) list.append(nb::make_tuple(t.from, t.to, t.tokens));
            return list;
          },
          "[(from, to, tokens), ...]; reversed they lead back")
      .def_ro("moved", &Remap::moved, "tokens sent")
      .def_ro("crossing", &Remap::crossing, "tokens sent between nodes")
      .def_ro("sum_seconds", &Remap::sum_seconds, "seconds of all transfers")
      .def_ro("worst_seconds", &Remap::worst_seconds, "seconds of the slowest sender or receiver")
      .def("__repr__", [](const Remap& r) {
        return concat("<hetsp_ext.Remap of ", r.targets.size(), " ranks: ", r.transfers.size(), " transfers, ", r.moved,
                      " tokens, ", r.crossing, " between nodes>");
      });
  m.def(
      "remap",
      [](const std::vector<std::int64_t>& tokens, const std::optional<std::vector<std::int64_t>>& targets,
         std::int32_t ranks_per_node, double intra, double inter) {
        const RemapLinks links{ranks_per_node, intra, inter};
        return remap(tokens, targets ? *targets : balanced_targets(tokens, links), links);
      },
      "tokens"_a, "targets"_a.none(), "ranks_per_node"_a, "intra"_a, "inter"_a);
}

}  // namespace hetsp::bindings
