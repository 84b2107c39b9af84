// hetsp_ext._core: the shape of a model, the links of a cluster, what a sequence costs, and presets of all three. Seconds,
// tokens, bytes.
#include "hetsp/planner/cost_model.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/register.h"
#include "hetsp/base/error.h"
#include "hetsp/planner/offload.h"
#include "hetsp/planner/planner.h"
#include "hetsp/planner/presets.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace hetsp::bindings {

namespace {

using namespace planner;

void register_shape(nb::module_& m) {
  nb::class_<ModelShape>(m, "ModelShape",
                         "A decoder of the Llama family: gated MLP, grouped-query attention, output projection. Layers attend "
                         "to everything, to a\n"
                         "window, or to nothing.")
      .def(
          "__init__",
          [](ModelShape* self, std::int32_t layers, std::int64_t hidden, std::int64_t intermediate, std::int32_t heads,
             std::int32_t kv_heads, std::int32_t head_dim, std::int64_t vocabulary, std::int32_t bytes,
             std::int32_t gradient_bytes, std::int32_t windowed_layers, std::int64_t window,
             std::int32_t attentionless_layers) {
            new (self) ModelShape{layers,     hidden, intermediate,   heads,           kv_heads, head_dim,
                                  vocabulary, bytes,  gradient_bytes, windowed_layers, window,   attentionless_layers};
          },
          nb::kw_only(), "layers"_a, "hidden"_a, "intermediate"_a, "heads"_a, "kv_heads"_a, "head_dim"_a, "vocabulary"_a,
          "bytes"_a, "gradient_bytes"_a = 4, "windowed_layers"_a = 0, "window"_a = 0, "attentionless_layers"_a = 0,
          "bytes, gradient_bytes: of an element of keys and values, and of their gradients, as the ring sends them.\n"
          "windowed_layers, attentionless_layers: of the layers; window: keys before a query's own, in tokens.")
      .def_ro("layers", &ModelShape::layers)
      .def_ro("hidden", &ModelShape::hidden)
      .def_ro("intermediate", &ModelShape::intermediate)
      .def_ro("heads", &ModelShape::heads)
      .def_ro("kv_heads", &ModelShape::kv_heads)
      .def_ro("head_dim", &ModelShape::head_dim)
      .def_ro("vocabulary", &ModelShape::vocabulary)
      .def_ro("bytes", &ModelShape::bytes)
      .def_ro("gradient_bytes", &ModelShape::gradient_bytes)
      .def_ro("windowed_layers", &ModelShape::windowed_layers)
      .def_ro("window", &ModelShape::window)
      .def_ro("attentionless_layers", &ModelShape::attentionless_layers)
      .def_prop_ro(
          "weights", [](const ModelShape& s) { return weights(s); }, "without the embedding table")
      .def(
          "activation_bytes_per_token",
          [](const ModelShape& s, bool recompute) { return activation_bytes_per_token(s, recompute); }, "recompute"_a = false,
          "Bytes that a token keeps from forward to backward; with recompute, of the layers' inputs and one layer.");

  nb::class_<Network>(m, "Network",
                      "Links of a cluster: a rank's to the ranks of its node, and the NICs that a node's ranks share.")
      .def(
          "__init__",
          [](Network* self, std::pair<double, double> intra, std::pair<double, double> inter, std::int32_t nics) {
            const Network network{{intra.first, intra.second}, {inter.first, inter.second}, nics};
            check(network);
            new (self) Network(network);
          },
          "intra_node"_a, "inter_node"_a, "nics_per_node"_a = 0,
          "intra_node, inter_node: (bytes per second in one direction, seconds of start-up), of a rank and of a NIC.\n"
          "nics_per_node: 0 for one a rank. Raises InvalidArgument for a rate not above 0 or a negative start-up.")
      .def_prop_ro("intra_node",
                   [](const Network& n) { return std::pair(n.intra_node.bytes_per_second, n.intra_node.start_seconds); })
      .def_prop_ro("inter_node",
                   [](const Network& n) { return std::pair(n.inter_node.bytes_per_second, n.inter_node.start_seconds); })
      .def_ro("nics_per_node", &Network::nics_per_node);

  nb::class_<GroupCost>(
      m, "GroupCost",
      "Seconds on each rank of a group, forward and backward: per_pair x visible pairs + per_token x tokens +\n"
      "per_sequence for each sequence; communication_per_token and _per_sequence are parts of them.")
      .def_ro("per_pair", &GroupCost::per_pair)
      .def_ro("per_token", &GroupCost::per_token)
      .def_ro("per_sequence", &GroupCost::per_sequence)
      .def_ro("communication_per_token", &GroupCost::communication_per_token)
      .def_ro("communication_per_sequence", &GroupCost::communication_per_sequence);
}

void register_cost(nb::module_& m) {
  nb::class_<CostModel>(m, "CostModel",
                        "Seconds of a sequence on each of the ranks that share it; docs/planner.md has the formula.")
      .def(
          "__init__",
          [](CostModel* self, double pair, double token, const std::vector<std::pair<std::int32_t, double>>& links, double hop,
             double micro_batch, double placeholder) {
            CostModel cost{pair, token, {}, hop, micro_batch, placeholder};
            for (const auto& [degree, seconds] : links) cost.links.push_back({degree, seconds});
            check(cost);
            new (self) CostModel(std::move(cost));
          },
          "seconds_per_pair"_a, "seconds_per_token"_a, "links"_a = std::vector<std::pair<std::int32_t, double>>{},
          "hop_seconds"_a = 0.0, "micro_batch_seconds"_a = 0.0, "placeholder_seconds"_a = 0.0,
          "links: [(degree, seconds per token), ...] with ascending degrees from 2, linear between them; [] for free links.\n"
          "placeholder_seconds: of a rank without sequences in a micro-batch, where parameters are sharded.\n"
          "All in seconds of forward + backward, at least 0. Raises InvalidArgument naming what is not.")
      .def_ro("seconds_per_pair", &CostModel::seconds_per_pair)
      .def_ro("seconds_per_token", &CostModel::seconds_per_token)
      .def_ro("hop_seconds", &CostModel::hop_seconds)
      .def_ro("micro_batch_seconds", &CostModel::micro_batch_seconds)
      .def_ro("placeholder_seconds", &CostModel::placeholder_seconds)
      .def_prop_ro("links",
                   [](const CostModel& cost) {
                     std::vector<std::pair<std::int32_t, double>> links;
                     for (const auto& link : cost.links) links.emplace_back(link.degree, link.seconds_per_token);
                     return links;
                   })
      .def("compute_seconds", &CostModel::compute_seconds, "sequence"_a,
           "Seconds of the whole sequence on one rank, without communication.")
      .def("seconds", &CostModel::seconds, "sequence"_a, "degree"_a, "Seconds on each of `degree` ranks.")
      .def_prop_ro(
          "shape", [](const CostModel& cost) { return cost.shape; }, "ModelShape, or None for a table")
      .def_prop_ro(
          "network", [](const CostModel& cost) { return cost.network; }, "Network, or None for a table")
      .def_ro("recompute", &CostModel::recompute, "the forward runs again in the backward")
      .def_prop_ro("max_head_degree", &CostModel::max_head_degree, "ranks that can split the heads; 2**31 - 1 for a table")
      .def(
          "group_cost",
          [](const CostModel& cost, int head_degree, int ring_degree, bool gather_kv, std::optional<int> ranks_per_node) {
            require(head_degree >= 1 && ring_degree >= 1, "group_cost: head_degree is ", head_degree, " and ring_degree ",
                    ring_degree, ", both must be at least 1");
            return cost.group_cost({head_degree, ring_degree, gather_kv}, head_degree * ring_degree,
                                   ranks_per_node.value_or(0));
          },
          nb::kw_only(), "head_degree"_a = 1, "ring_degree"_a = 1, "gather_kv"_a = false, "ranks_per_node"_a = nb::none(),
          "GroupCost of head_degree x ring_degree neighbouring ranks, the first of them a node's first; a table knows only "
          "the\n"
          "degree. ranks_per_node: None for one node. Raises InvalidArgument for more than max_head_degree.");
}

void register_presets(nb::module_& m) {
  nb::class_<Preset>(m, "Preset", "A published or assumed setting: cost model, nodes and memory; see docs/cost_model.md.")
      .def_ro("name", &Preset::name)
      .def_ro("description", &Preset::description)
      .def_ro("cost_model", &Preset::cost)
      .def_ro("ranks_per_node", &Preset::ranks_per_node)
      .def_prop_ro(
          "synchronisation", [](const Preset& p) { return std::string(name_of(p.synchronisation)); },
          "layer where its system shards parameters, step where it replicates them")
      .def_ro("executable", &Preset::executable, "kinds of group; of two that cost the same, the first: its system's own")
      .def_ro("overlaps", &Preset::overlaps, "whether computation may hide the hops of its rings")
      .def_ro("squared_pairs", &Preset::squared_pairs, "whether its seconds_per_pair counts tokens**2 of a sequence")
      .def("cluster", &Preset::cluster, "ranks"_a, "max_length"_a,
           "Cluster of so many ranks, with the tokens that fit beside a model of that context (tokens). Raises PlanInfeasible\n"
           "where the model's state alone is too large.")
      .def(
          "tokens_per_rank",
          [](const Preset& preset, std::int32_t ranks, std::int64_t max_length) {
            return preset.cluster(ranks, max_length).tokens_per_rank;
          },
          "ranks"_a, "max_length"_a, "cluster(ranks, max_length).tokens_per_rank")
      .def(
          "sequences", [](const Preset& preset, const std::vector<std::int64_t>& lengths) { return preset.workload(lengths); },
          "lengths"_a, "Sequences of so many tokens each, with pairs counted as the preset's cost model wants them.")
      .def("__repr__", [](const Preset& preset) { return concat("<hetsp_ext.Preset ", preset.name, ">"); });
  m.def(
      "choose_offload",
      [](std::int32_t layers, double seconds, double bytes, double room, double bytes_per_second) {
        const Offload chosen = choose_offload({layers, seconds, bytes, room, bytes_per_second});
        return std::pair(chosen.ratio, chosen.ranks);
      },
      "layers"_a, "seconds"_a, "bytes"_a, "room"_a, "bytes_per_second"_a);
  m.def("preset", [](const std::string& name) { return preset(name); }, "name"_a);
  m.def("presets", &presets);
}

}  // namespace

void register_cost_model(nb::module_& m) {
  register_shape(m);
  register_cost(m);
  register_presets(m);
  m.def(
      "cost_model_on_network",
      [](const ModelShape& shape, double attention_flops, double linear_flops, const Network& network,
         std::optional<int> ranks_per_node, bool recompute) {
        return cost_model_on_network(shape, {attention_flops, linear_flops}, network, ranks_per_node.value_or(0), recompute);
      },
      "shape"_a, "attention_flops"_a, "linear_flops"_a, "network"_a, "ranks_per_node"_a = nb::none(), "recompute"_a = false);
  m.def("cost_model_from_model", &cost_model_from_model, "shape"_a, "attention_flops"_a, "linear_flops"_a,
        "link_bytes_per_second"_a, "hop_seconds"_a = 0.0);
}

}  // namespace hetsp::bindings
