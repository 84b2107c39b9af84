// hetsp_ext._core: the shape of a model and what a sequence costs. Seconds, tokens, bytes.
#include "hetsp/planner/cost_model.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include "bindings/register.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace hetsp::bindings {

namespace {

using namespace planner;

void register_shape(nb::module_& m) {
  nb::class_<ModelShape>(m, "ModelShape",
                         "A decoder of the Llama family: gated MLP, grouped-query attention, output projection.")
      .def(
          "__init__",
          [](ModelShape* self, std::int32_t layers, std::int64_t hidden, std::int64_t intermediate, std::int32_t heads,
             std::int32_t kv_heads, std::int32_t head_dim, std::int64_t vocabulary, std::int32_t bytes,
             std::int32_t gradient_bytes) {
            new (self) ModelShape{layers, hidden, intermediate, heads, kv_heads, head_dim, vocabulary, bytes, gradient_bytes};
          },
          nb::kw_only(), "layers"_a, "hidden"_a, "intermediate"_a, "heads"_a, "kv_heads"_a, "head_dim"_a, "vocabulary"_a,
          "bytes"_a, "gradient_bytes"_a = 4,
          "bytes, gradient_bytes: of an element of keys and values, and of their gradients, as the ring sends them.")
      .def_ro("layers", &ModelShape::layers)
      .def_ro("hidden", &ModelShape::hidden)
      .def_ro("intermediate", &ModelShape::intermediate)
      .def_ro("heads", &ModelShape::heads)
      .def_ro("kv_heads", &ModelShape::kv_heads)
      .def_ro("head_dim", &ModelShape::head_dim)
      .def_ro("vocabulary", &ModelShape::vocabulary)
      .def_ro("bytes", &ModelShape::bytes)
      .def_ro("gradient_bytes", &ModelShape::gradient_bytes);
}

void register_cost(nb::module_& m) {
  nb::class_<CostModel>(m, "CostModel",
                        "Seconds of a sequence on each of the ranks that share it; docs/planner.md has the formula.")
      .def(
          "__init__",
          [](CostModel* self, double pair, double token, const std::vector<std::pair<std::int32_t, double>>& links, double hop,
             double micro_batch) {
            CostModel cost{pair, token, {}, hop, micro_batch};
            for (const auto& [degree, seconds] : links) cost.links.push_back({degree, seconds});
            check(cost);
            new (self) CostModel(std::move(cost));
          },
          "seconds_per_pair"_a, "seconds_per_token"_a, "links"_a = std::vector<std::pair<std::int32_t, double>>{},
          "hop_seconds"_a = 0.0, "micro_batch_seconds"_a = 0.0,
          "links: [(degree, seconds per token), ...] with ascending degrees from 2, linear between them; [] for free links.\n"
          "All in seconds of forward + backward, at least 0. Raises InvalidArgument naming what is not.")
      .def_ro("seconds_per_pair", &CostModel::seconds_per_pair)
      .def_ro("seconds_per_token", &CostModel::seconds_per_token)
      .def_ro("hop_seconds", &CostModel::hop_seconds)
      .def_ro("micro_batch_seconds", &CostModel::micro_batch_seconds)
      .def_prop_ro("links",
                   [](const CostModel& cost) {
                     std::vector<std::pair<std::int32_t, double>> links;
                     for (const auto& link : cost.links) links.emplace_back(link.degree, link.seconds_per_token);
                     return links;
                   })
      .def("compute_seconds", &CostModel::compute_seconds, "sequence"_a,
           "Seconds of the whole sequence on one rank, without communication.")
      .def("seconds", &CostModel::seconds, "sequence"_a, "degree"_a, "Seconds on each of `degree` ranks.");
}

}  // namespace

void register_cost_model(nb::module_& m) {
  register_shape(m);
  register_cost(m);
  m.def("cost_model_from_model", &cost_model_from_model, "shape"_a, "attention_flops"_a, "linear_flops"_a,
        "link_bytes_per_second"_a, "hop_seconds"_a = 0.0);
}

}  // namespace hetsp::bindings
