#include "hetsp/planner/modes.h"

#include <cmath>

#include "hetsp/base/error.h"
#include "hetsp/planner/presets.h"
#include "hetsp/planner/workload.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

PlanOptions with(std::vector<std::string> executable, std::string degrees = "any", int max_degree = 0) {
  PlanOptions options;
  options.executable = std::move(executable), options.degrees = std::move(degrees), options.max_degree = max_degree;
  return options;
}

const CostModel kTable{.seconds_per_pair = 1e-3, .seconds_per_token = 1.0, .links = {{2, 0.5}, {4, 0.9}}, .hop_seconds = 0.1};

}  // namespace

TEST(a_table_costs_what_the_cost_model_says_and_keeps_one_kind_a_degree) {
  const auto sequences = make_workload(std::vector<std::int64_t>{7, 100, 0, 33});
  const Modes modes(kTable, {6, 0, 40}, with({"whole", "ulysses", "ring"}));
  CHECK_EQ(modes.degrees().size(), 6u);
  std::vector<Modes::Mode> used;
  const auto instance = modes.instance(sequences, used);
  packing::check(instance);
  CHECK_EQ(instance.modes.size(), 6u);
  for (std::size_t m = 0; m < used.size(); ++m) {
    CHECK(used[m].kind == (used[m].degree == 1 ? Kind::whole : Kind::ulysses));
    CHECK_EQ(instance.modes[m].room, 40 * used[m].degree);
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      const double expected = kTable.seconds(sequences[s], used[m].degree);
      CHECK(std::abs(instance.modes[m].seconds(instance.items[s]) - expected) <= 1e-12 * expected);
      CHECK(std::abs(Modes::seconds(used[m], sequences[s]) - expected) <= 1e-12 * expected);
    }
  }
}

TEST(degrees_are_what_was_asked_for) {
  CHECK(Modes(kTable, {12, 0, 10}, with({"whole", "ring"}, "pow2")).degrees() == (std::vector<int>{1, 2, 4, 8}));
  CHECK(Modes(kTable, {12, 0, 10}, with({"whole", "ring"}, "any", 3)).degrees() == (std::vector<int>{1, 2, 3}));
  CHECK(Modes(kTable, {12, 0, 10}, with({"whole"})).degrees() == std::vector<int>{1});
  CHECK_EQ(Modes(kTable, {5000, 0, 10}, with({"whole", "ring"}, "pow2")).max_degree(), kMaxDegree);
  CHECK_THROWS(InvalidArgument, "degrees \"odd\"", Modes(kTable, {2, 0, 1}, with({"whole"}, "odd")));
  CHECK_THROWS(InvalidArgument, "max_degree is 3", Modes(kTable, {2, 0, 1}, with({"whole"}, "any", 3)));
}

TEST(a_shape_limits_ulysses_to_its_heads) {
  const Preset& llama = preset("llama-7b");  // 32 heads
  const Modes modes(llama.cost, {64, 8, 1000}, with({"whole", "ulysses", "ring"}, "pow2"));
  CHECK(modes.find(Kind::ulysses, 32) != nullptr);
  CHECK(modes.find(Kind::ulysses, 64) == nullptr);
  CHECK(modes.find(Kind::ring, 64) != nullptr);
  CHECK(modes.find(Kind::ulysses, 1) == modes.find(Kind::ring, 1));
}

TEST(more_nodes_than_needed_cost_more) {
  const Preset& llama = preset("llama-7b");
  const Strategy ring = strategy_of(Kind::ring, 4);
  const auto inside = rates_of(llama.cost, ring, 4, 8, 1), across = rates_of(llama.cost, ring, 4, 8, 2);
  CHECK(across->per_token > inside->per_token);
  CHECK(std::abs(across->compute_per_token - inside->compute_per_token) <= 1e-12 * inside->compute_per_token);
}

TEST(least_degree_is_by_memory_of_the_group) {
  const Modes modes(kTable, {12, 0, 10}, with({"whole", "ring"}, "pow2"));
  CHECK_EQ(modes.least_degree(0), 1);
  CHECK_EQ(modes.least_degree(40), 4);
  CHECK_EQ(modes.least_degree(41), 8);
  CHECK_EQ(modes.least_degree(81), 0);
}

TEST(unequal_fixed_costs_are_refused) {
  std::vector<Sequence> sequences = make_workload(std::vector<std::int64_t>{7, 100});
  sequences[1].fixed_cost = 2.0;
  std::vector<Modes::Mode> used;
  CHECK_THROWS(InvalidArgument, "sequence 1 has a fixed cost of 2",
               (void)Modes(kTable, {2, 0, 100}, with({"whole"})).instance(sequences, used));
}

TEST_MAIN()
