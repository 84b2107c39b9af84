#include "hetsp/planner/named_drafts.h"

#include <array>
#include <utility>

#include "hetsp/base/error.h"
#include "hetsp/planner/plan_check.h"
#include "hetsp/planner/strategies/bytescale.h"
#include "hetsp/planner/strategies/dhp.h"
#include "hetsp/planner/strategies/flexsp.h"
#include "hetsp/planner/strategies/homogeneous.h"
#include "hetsp/planner/strategies/megatron.h"
#include "hetsp/planner/strategies/zeppelin.h"

namespace hetsp::planner {

namespace {

constexpr std::array kDrafts = {
    NamedDraft{"static", draft_static},
    NamedDraft{"data-parallel", draft_data_parallel},
    NamedDraft{"adaptive", draft_adaptive},
    NamedDraft{"te-cp", draft_te_cp},
    NamedDraft{"llama-cp", draft_llama_cp},
    NamedDraft{"megatron-static", draft_megatron_static},
    NamedDraft{"megatron-dynamic", draft_megatron_dynamic, 4096},
    NamedDraft{"dhp", draft_dhp, 4096},
    NamedDraft{"flexsp", draft_flexsp, 1024, true},
    NamedDraft{"bytescale-naive", draft_bytescale_naive, 4096},
    NamedDraft{"bytescale", draft_bytescale_dp, 4096},
    NamedDraft{"bytescale-pp", draft_bytescale_pp, 4096},
    NamedDraft{"zeppelin", draft_zeppelin, 4096},
};

}  // namespace

std::span<const NamedDraft> named_drafts() { return kDrafts; }

const std::vector<std::string>& draft_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    for (const auto& draft : kDrafts) list.emplace_back(draft.name);
    return list;
  }();
  return names;
}

Draft make_draft(std::string_view strategy, const Task& task) {
  for (const auto& draft : kDrafts)
    if (strategy == draft.name) return draft.make(task);
  throw BrokenInvariant(concat("strategy \"", strategy, "\" makes no draft"));
}

Plan price(const Task& task, Draft draft, bool shared) {
  if (!shared) draft = serialise(std::move(draft), task.cluster.ranks);
  Plan plan = make_plan(task.sequences, std::move(draft), task.cluster, task.options.synchronisation);
  plan.exclusive = !shared;
  plan.offloadable = task.cluster.host.offloadable();
  predict(plan, task.cost, task.cluster.ranks_per_node);
  return plan;
}

}  // namespace hetsp::planner
