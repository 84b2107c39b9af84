// hetsp_ext._core: the planner's objects beside the cost model (cost_model.cc). Ranks and sequences are plain ints in Python,
// times are seconds, memory is tokens.
#include "hetsp/planner/planner.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cstdio>

#include "bindings/register.h"
#include "hetsp/base/error.h"
#include "hetsp/planner/describe.h"
#include "hetsp/planner/kind.h"
#include "hetsp/planner/plan_check.h"
#include "hetsp/planner/workload.h"
#include "hetsp/simulator/simulate.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace hetsp::bindings {

namespace {

using namespace planner;

constexpr const char* kCuts[] = {"whole", "contiguous", "zigzag", "balanced"};  // in the order of the enum
constexpr const char* kActivations[] = {"keep", "offload", "recompute"};

template <class Enum, std::size_t Count>
Enum enum_from(const char* what, const std::string& name, const char* const (&names)[Count]) {
  std::string allowed;
  for (std::size_t i = 0; i < Count; ++i) {
    if (name == names[i]) return static_cast<Enum>(i);
    allowed += std::string(i ? ", " : "") + names[i];
  }
  throw InvalidArgument(concat("plan: ", what, " \"", name, "\" is unknown; allowed: ", allowed));
}

template <class Index>
std::vector<std::int32_t> values(const std::vector<Index>& indices) {
  std::vector<std::int32_t> result;
  for (const auto index : indices) result.push_back(index.value());
  return result;
}

template <class Index>
std::vector<Index> indices(const nb::handle& list) {
  std::vector<Index> result;
  for (const auto value : nb::cast<std::vector<std::int32_t>>(list)) result.emplace_back(value);
  return result;
}

std::string hex_digest(const Plan& plan) {
  char text[17];
  std::snprintf(text, sizeof text, "%016" PRIx64, digest(plan));
  return text;
}

// A field of a dictionary that came from elsewhere.
nb::object field(const nb::dict& dict, const char* name) {
  require(dict.contains(name), "plan: the dictionary has no \"", name, "\"");
  return dict[name];
}

template <class T>
T field_as(const nb::dict& dict, const char* name) {
  const nb::object value = field(dict, name);
  T result{};
  require(nb::try_cast<T>(value, result), "plan: \"", name, "\" is ", nb::repr(value).c_str(), ", of the wrong type");
  return result;
}

// One that a dictionary written by hand may leave out.
template <class T>
void read_if_there(const nb::dict& dict, const char* name, T& value) {
  if (dict.contains(name)) value = field_as<T>(dict, name);
}

nb::dict to_dict(const Group& group) {
  nb::dict dict;
  dict["sequences"] = values(group.sequences);
  dict["ranks"] = values(group.ranks);
  dict["head_degree"] = group.strategy.head_degree;
  dict["ring_degree"] = group.strategy.ring_degree;
  dict["gather_kv"] = group.strategy.gather_kv;
  dict["cut"] = kCuts[static_cast<int>(group.cut)];
  dict["activations"] = kActivations[static_cast<int>(group.activations)];
  dict["offload_ratio"] = group.offload_ratio;
  return dict;
}

nb::dict to_dict(const Plan& plan) {
  nb::dict dict;
  dict["version"] = 1;
  dict["ranks"] = plan.ranks;
  dict["strategy"] = plan.strategy;
  dict["synchronisation"] = std::string(name_of(plan.synchronisation));
  dict["makespan"] = plan.makespan;
  dict["lower_bound"] = plan.lower_bound;
  dict["exclusive"] = plan.exclusive;
  dict["offloadable"] = plan.offloadable;
  dict["status"] = plan.status;
  dict["solve_seconds"] = plan.solve_seconds;
  dict["first_incumbent_seconds"] = plan.first_incumbent_seconds;
  dict["rank_seconds"] = plan.rank_seconds;
  dict["compute_seconds"] = plan.compute_seconds;
  nb::list sequences, micro_batches, micro_batch_seconds, placeholders;
  for (const auto& s : plan.sequences) {
    nb::list entry;
    entry.append(s.tokens), entry.append(s.visible_pairs), entry.append(s.fixed_cost);
    sequences.append(entry);
  }
  for (const auto& micro_batch : plan.micro_batches) {
    nb::list groups;
    for (const auto& group : micro_batch.groups) groups.append(to_dict(group));
    micro_batches.append(groups);
    nb::list seconds;
    seconds.append(micro_batch.makespan), seconds.append(micro_batch.lower_bound);
    micro_batch_seconds.append(seconds);
    nb::list placeholder;
    placeholder.append(values(micro_batch.placeholder.ranks)), placeholder.append(micro_batch.placeholder.seconds);
    placeholders.append(placeholder);
  }
  dict["sequences"] = sequences;
  dict["micro_batches"] = micro_batches;
  dict["placeholders"] = placeholders;
  dict["micro_batch_seconds"] = micro_batch_seconds;
  dict["digest"] = hex_digest(plan);
  return dict;
}

Group group_from(const nb::dict& dict) {
  Group group;
  for (const auto s : field_as<std::vector<std::int32_t>>(dict, "sequences")) group.sequences.emplace_back(s);
  for (const auto r : field_as<std::vector<std::int32_t>>(dict, "ranks")) group.ranks.emplace_back(r);
  group.strategy = {field_as<std::int32_t>(dict, "head_degree"), field_as<std::int32_t>(dict, "ring_degree"),
                    field_as<bool>(dict, "gather_kv")};
  group.cut = enum_from<Cut>("cut", field_as<std::string>(dict, "cut"), kCuts);
  group.activations = enum_from<Activations>("activations", field_as<std::string>(dict, "activations"), kActivations);
  read_if_there(dict, "offload_ratio", group.offload_ratio);
  return group;
}

// How the plan was found, and its micro-batches' predictions.
void read_times(const nb::dict& dict, Plan& plan) {
  read_if_there(dict, "exclusive", plan.exclusive);
  read_if_there(dict, "offloadable", plan.offloadable);
  read_if_there(dict, "status", plan.status);
  read_if_there(dict, "solve_seconds", plan.solve_seconds);
  read_if_there(dict, "first_incumbent_seconds", plan.first_incumbent_seconds);
  std::vector<std::vector<double>> seconds(plan.micro_batches.size(), {0.0, 0.0});
  read_if_there(dict, "micro_batch_seconds", seconds);
  require(seconds.size() == plan.micro_batches.size(), "plan: the dictionary has times of ", seconds.size(),
          " micro-batches for ", plan.micro_batches.size());
  for (std::size_t m = 0; m < seconds.size(); ++m) {
    require(seconds[m].size() == 2, "plan: the times of a micro-batch are ", seconds[m].size(),
            " numbers, must be [makespan, lower_bound]");
    plan.micro_batches[m].makespan = seconds[m][0], plan.micro_batches[m].lower_bound = seconds[m][1];
  }
}

// Of each micro-batch [ranks, seconds]; none in a dictionary that does not say.
void read_placeholders(const nb::dict& dict, Plan& plan) {
  if (!dict.contains("placeholders")) return;
  const auto entries = field_as<std::vector<nb::list>>(dict, "placeholders");
  require(entries.size() == plan.micro_batches.size(), "plan: the dictionary has placeholders of ", entries.size(),
          " micro-batches for ", plan.micro_batches.size());
  for (std::size_t m = 0; m < entries.size(); ++m) {
    Placeholder& placeholder = plan.micro_batches[m].placeholder;
    std::vector<std::int32_t> ranks;
    require(entries[m].size() == 2 && nb::try_cast(entries[m][0], ranks) && nb::try_cast(entries[m][1], placeholder.seconds),
            "plan: a placeholder is ", nb::repr(entries[m]).c_str(), ", must be [[ranks], seconds]");
    for (const auto rank : ranks) placeholder.ranks.emplace_back(rank);
  }
}

Plan from_dict(const nb::dict& dict) {
  const auto version = field_as<int>(dict, "version");
  require(version == 1, "plan: the dictionary has version ", version, ", this library reads 1");
  Plan plan;
  plan.ranks = field_as<std::int32_t>(dict, "ranks");
  plan.strategy = field_as<std::string>(dict, "strategy");
  plan.synchronisation = synchronisation_from(field_as<std::string>(dict, "synchronisation"));
  plan.makespan = field_as<double>(dict, "makespan");
  plan.lower_bound = field_as<double>(dict, "lower_bound");
  plan.rank_seconds = field_as<std::vector<double>>(dict, "rank_seconds");
  plan.compute_seconds = field_as<std::vector<double>>(dict, "compute_seconds");
  require(plan.ranks >= 1 && plan.rank_seconds.size() == static_cast<std::size_t>(plan.ranks) &&
              plan.compute_seconds.size() == plan.rank_seconds.size(),
          "plan: the dictionary has times of ", plan.rank_seconds.size(), " and ", plan.compute_seconds.size(), " ranks for ",
          plan.ranks);
  for (const auto& entry : field_as<std::vector<nb::list>>(dict, "sequences")) {
    Sequence sequence;
    require(entry.size() == 3 && nb::try_cast(entry[0], sequence.tokens) && nb::try_cast(entry[1], sequence.visible_pairs) &&
                nb::try_cast(entry[2], sequence.fixed_cost),
            "plan: a sequence is ", nb::repr(entry).c_str(), ", must be [tokens, visible_pairs, fixed_cost]");
    plan.sequences.push_back(sequence);
  }
  check(plan.sequences);
  for (const auto& groups : field_as<std::vector<std::vector<nb::dict>>>(dict, "micro_batches")) {
    MicroBatch& micro_batch = plan.micro_batches.emplace_back();
    for (const auto& group : groups) micro_batch.groups.push_back(group_from(group));
  }
  read_times(dict, plan);
  read_placeholders(dict, plan);
  if (!dict.contains("digest")) return plan;  // written by hand, not by to_dict()
  const auto expected = field_as<std::string>(dict, "digest");
  require(expected == hex_digest(plan), "plan: the dictionary says digest ", expected, ", its plan has ", hex_digest(plan));
  return plan;
}

// Seconds of the step as `simulate` in Python has them by default; through a pipeline of alike stages m micro-batches take
// (m + stages - 1) / m times as long.
Replay replay(const Plan& plan, const CostModel& cost, int ranks_per_node, bool overlap, int stages) {
  const auto count = static_cast<double>(std::max<std::size_t>(1, plan.micro_batches.size()));
  const auto machine = simulator::machine_of(cost, plan.ranks, ranks_per_node);
  const auto timeline = simulator::simulate(plan, cost, machine, {.overlap = overlap});
  Replay result{.seconds = timeline.makespan * (count + stages - 1) / count, .rank_seconds = timeline.busy};
  for (std::size_t rank = 0; rank < result.rank_seconds.size(); ++rank)
    result.rank_seconds[rank] += timeline.communication[rank];
  return result;
}

struct Cancellation {
  std::atomic<bool> flag{false};
};

void register_inputs(nb::module_& m) {
  nb::class_<Cluster>(m, "Cluster",
                      "The machine to plan for: ranks, ranks of a node, and memory of a rank in tokens of one micro-batch.")
      .def(
          "__init__",
          [](Cluster* self, std::int32_t ranks, std::int64_t tokens_per_rank, std::optional<std::int32_t> ranks_per_node) {
            require(!ranks_per_node || *ranks_per_node >= 1, "cluster: ranks_per_node is ", ranks_per_node.value_or(0),
                    ", must be at least 1");
            Cluster cluster{ranks, ranks_per_node.value_or(0), tokens_per_rank};
            check(cluster);
            new (self) Cluster(cluster);
          },
          "ranks"_a, "tokens_per_rank"_a, "ranks_per_node"_a = nb::none(),
          "ranks: of the data x sequence axis. tokens_per_rank: tokens that one rank can hold of one micro-batch.\n"
          "ranks_per_node: None for a single node. Raises InvalidArgument for a value below 1.")
      .def_ro("ranks", &Cluster::ranks)
      .def_ro("tokens_per_rank", &Cluster::tokens_per_rank)
      .def_prop_ro("ranks_per_node", [](const Cluster& c) { return c.ranks_per_node == 0 ? c.ranks : c.ranks_per_node; })
      .def("__repr__", [](const Cluster& c) {
        return concat("Cluster(ranks=", c.ranks, ", tokens_per_rank=", c.tokens_per_rank,
                      c.ranks_per_node ? concat(", ranks_per_node=", c.ranks_per_node) : "", ")");
      });

  nb::class_<Sequence>(m, "Sequence",
                       "One document: tokens, visible (query, key) pairs, and seconds once per rank that shares it.")
      .def(
          "__init__",
          [](Sequence* self, std::int64_t tokens, std::optional<std::int64_t> pairs, double fixed_cost) {
            const Sequence sequence{tokens, pairs ? *pairs : visible_pairs(tokens), fixed_cost};
            check(std::span(&sequence, 1));
            new (self) Sequence(sequence);
          },
          "tokens"_a, "visible_pairs"_a = nb::none(), "fixed_cost"_a = 0.0, "visible_pairs: None for a full causal mask.")
      .def_ro("tokens", &Sequence::tokens)
      .def_ro("visible_pairs", &Sequence::visible_pairs)
      .def_ro("fixed_cost", &Sequence::fixed_cost)
      .def("__repr__", [](const Sequence& s) {
        return concat("Sequence(tokens=", s.tokens, ", visible_pairs=", s.visible_pairs, ", fixed_cost=", s.fixed_cost, ")");
      });
}

void register_plan(nb::module_& m) {
  nb::class_<Strategy>(m, "Strategy")
      .def_ro("head_degree", &Strategy::head_degree)
      .def_ro("ring_degree", &Strategy::ring_degree)
      .def_ro("gather_kv", &Strategy::gather_kv);
  nb::class_<Group>(m, "Group", "Sequences that the same ranks share in one micro-batch.")
      .def_prop_ro(
          "sequences", [](const Group& g) { return values(g.sequences); }, "indices into Plan.sequences")
      .def_prop_ro(
          "ranks", [](const Group& g) { return values(g.ranks); }, "in the order of the ring")
      .def_prop_ro("degree", [](const Group& g) { return g.ranks.size(); })
      .def_ro("strategy", &Group::strategy)
      .def_prop_ro(
          "cut", [](const Group& g) { return kCuts[static_cast<int>(g.cut)]; }, "whole, contiguous, zigzag or balanced")
      .def_prop_ro(
          "kind", [](const Group& g) { return std::string(name_of(g.strategy)); }, "whole, ring, ulysses, gather or hybrid")
      .def_prop_ro("activations", [](const Group& g) { return kActivations[static_cast<int>(g.activations)]; })
      .def_ro("offload_ratio", &Group::offload_ratio, "of the activations that may leave the device; 0: all are kept");
  nb::class_<Placeholder>(m, "Placeholder",
                          "Ranks without sequences in a micro-batch that they take part in, as sharded parameters ask.")
      .def_prop_ro("ranks", [](const Placeholder& p) { return values(p.ranks); })
      .def_ro("seconds", &Placeholder::seconds, "predicted, on each of them, micro_batch_seconds not included");
  nb::class_<MicroBatch>(m, "MicroBatch", "Groups of a plan whose tokens a rank holds together.")
      .def_ro("placeholder", &MicroBatch::placeholder, "without ranks where none is idle, or parameters are replicated")
      .def_ro("groups", &MicroBatch::groups)
      .def_ro("makespan", &MicroBatch::makespan, "seconds of its slowest rank, micro_batch_seconds included")
      .def_ro("lower_bound", &MicroBatch::lower_bound, "seconds; its share of the plan's bound");
  nb::class_<Plan>(m, "Plan",
                   "Which ranks share each sequence of a step, micro-batch by micro-batch. Immutable; made by hetsp_ext.plan.")
      .def_ro("ranks", &Plan::ranks)
      .def_ro("sequences", &Plan::sequences, "in the caller's order")
      .def_ro("micro_batches", &Plan::micro_batches)
      .def_prop_ro("synchronisation", [](const Plan& p) { return std::string(name_of(p.synchronisation)); })
      .def_ro("strategy", &Plan::strategy)
      .def_ro("rank_seconds", &Plan::rank_seconds, "[ranks] seconds predicted for each rank, over its groups and micro-batches")
      .def_ro("compute_seconds", &Plan::compute_seconds,
              "[ranks] the part of rank_seconds that is not communication or start-up")
      .def_ro("makespan", &Plan::makespan, "seconds, predicted")
      .def_ro("lower_bound", &Plan::lower_bound, "seconds; no plan is faster under the cost model")
      .def_prop_ro("gap", &Plan::gap, "makespan / lower_bound - 1")
      .def_ro("exclusive", &Plan::exclusive, "whether a rank is in at most one group of a micro-batch")
      .def_ro("offloadable", &Plan::offloadable, "share of a token's memory that offload_ratio = 1 moves off the device")
      .def_ro("status", &Plan::status, "optimal (within 1e-6 of the bound), target (target_gap reached) or limit")
      .def_ro("solve_seconds", &Plan::solve_seconds, "seconds from the sequences to this plan")
      .def_ro("first_incumbent_seconds", &Plan::first_incumbent_seconds, "seconds to the first complete plan")
      .def_prop_ro(
          "balance", [](const Plan& p) { return balance(p.rank_seconds); },
          "most loaded rank over the mean, idle ranks included")
      .def_prop_ro(
          "lengths",
          [](const Plan& p) {
            std::vector<std::int64_t> lengths;
            for (const auto& sequence : p.sequences) lengths.push_back(sequence.tokens);
            return lengths;
          },
          "tokens of each sequence, in the caller's order")
      .def_prop_ro("digest", &hex_digest, "16 hex digits over everything that executing ranks depend on")
      .def("rank_tokens", &rank_tokens, "micro_batch"_a, "[ranks] tokens that each rank holds in that micro-batch")
      .def(
          "check", [](const Plan& p, const Cluster& c) { check(p, c); }, "cluster"_a,
          "Raises InvalidArgument naming the fault unless every sequence is held once and memory, ranks and cuts are legal.")
      .def("one_line", &one_line, "Sequences by degree: \"12x1 1x3\" is twelve on one rank each and one on three.")
      .def(
          "to_dict", [](const Plan& p) { return to_dict(p); }, "Plain numbers, strings, lists and dictionaries, fit for JSON.")
      .def(
          "to_json_line", [](const Plan& p) { return nb::module_::import_("json").attr("dumps")(to_dict(p)); },
          "to_dict() as one line of JSON, without the line's end: a line of plans.jsonl.")
      .def_static(
          "from_dict", &from_dict, "data"_a,
          "The plan that to_dict() described; raises InvalidArgument if its digest differs. One written by hand needs none.")
      .def("__getstate__", [](const Plan& p) { return to_dict(p); })
      .def("__setstate__", [](Plan& p, const nb::dict& state) { new (&p) Plan(from_dict(state)); })
      .def("__str__", &table)
      .def("__repr__", [](const Plan& p) {
        return concat("<hetsp_ext.Plan ", one_line(p), " on ", p.ranks, " ranks, digest ", hex_digest(p), ">");
      });
}

}  // namespace

void register_planner(nb::module_& m) {
  register_inputs(m);
  register_plan(m);
  m.def("visible_pairs", &visible_pairs, "tokens"_a, "window"_a = -1);
  m.def("strategy_names", &strategy_names);
  m.def("executable_names", &executable_names);
  m.def("synchronisation_names", &synchronisation_names);
  nb::class_<Cancellation>(m, "Cancellation", "Tells planning calls that were given it to end with the best plan they have.")
      .def(nb::init<>())
      .def("cancel", [](Cancellation& c) { c.flag.store(true); }, "From any thread.");
  m.def(
      "make_plan",
      [](const std::vector<Sequence>& sequences, const Cluster& cluster, const CostModel& cost, const std::string& strategy,
         const std::vector<std::string>& executable, const std::string& synchronisation, std::int64_t work_limit,
         double time_limit, std::uint64_t seed, bool exclusive, const std::string& degrees, std::int32_t max_degree,
         std::int32_t micro_batches, double target_gap, bool simulated, bool overlap, int stages,
         const Cancellation* cancellation) {
        PlanOptions options{.strategy = strategy,
                            .executable = executable,
                            .synchronisation = synchronisation_from(synchronisation),
                            .work_limit = work_limit,
                            .time_limit = time_limit,
                            .seed = seed,
                            .exclusive = exclusive,
                            .degrees = degrees,
                            .max_degree = max_degree,
                            .micro_batches = micro_batches,
                            .target_gap = target_gap,
                            .cancel = cancellation == nullptr ? nullptr : &cancellation->flag};
        if (simulated)
          options.replay = [&](const Plan& plan) { return replay(plan, cost, cluster.ranks_per_node, overlap, stages); };
        const nb::gil_scoped_release release;
        return make_plan(sequences, cluster, cost, options);
      },
      "sequences"_a, "cluster"_a, "cost_model"_a, nb::kw_only(), "strategy"_a, "executable"_a, "synchronisation"_a,
      "work_limit"_a, "time_limit"_a, "seed"_a, "exclusive"_a, "degrees"_a, "max_degree"_a, "micro_batches"_a, "target_gap"_a,
      "simulated"_a = false, "overlap"_a = true, "stages"_a = 1, "cancellation"_a.none());
}

}  // namespace hetsp::bindings
