#include "hetsp/planner/replay_search.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "hetsp/base/error.h"
#include "hetsp/packing/random.h"
#include "hetsp/planner/named_drafts.h"

namespace hetsp::planner {

namespace {

constexpr int kTries = 24;            // pairs of sequences looked at for one proposal
constexpr int kFruitless = 400;       // replays in a row without gain that end the search
constexpr double kChangesOfKind = 0.15;
constexpr double kRounding = 1e-12;  // relative: seconds this close are equal
constexpr double kSpare = 1e-4;  // of the slowest group's seconds: less is no time to spare

constexpr std::int64_t visits(std::int64_t sequences, std::int64_t ranks) { return 64 * (sequences + ranks); }

Kind kind_of(const Strategy& strategy) {
  if (strategy.head_degree > 1) return Kind::ulysses;
  if (strategy.ring_degree > 1) return strategy.gather_kv ? Kind::gather : Kind::ring;
  return Kind::whole;
}

class ReplaySearch {
 public:
  ReplaySearch(const Task& task, const Plan& start) : task_(task), random_(task.options.seed) {
    const bool chained = is_chained(start);
    for (const MicroBatch& micro_batch : start.micro_batches) {
      if (parts_.empty() || !chained) parts_.emplace_back();
      for (const Group& group : micro_batch.groups) parts_.back().groups.push_back(draft_group(group));
    }
  }

  void run(packing::Effort& effort) {
    effort_ = &effort;
    for (Part& part : parts_)
      if (!replay(part)) return;
    for (int fruitless = 0; fruitless < kFruitless && !effort.spent();) fruitless = step() ? 0 : fruitless + 1;
  }

  [[nodiscard]] Draft draft() && {
    Draft draft;
    for (Part& part : parts_) draft.micro_batches.push_back(std::move(part.groups));
    return draft;
  }

 private:
  // A micro-batch, or all of a chained step.
  struct Part {
    std::vector<DraftGroup> groups{};  // in order, on their ranks
    double seconds = 0.0;
    std::vector<double> loads{};  // [groups] of its most loaded rank
    double highest = 0.0;         // of all loads
    int slowest = 0;              // groups with that load
  };
  struct Place {
    std::size_t part, group;
  };

  static DraftGroup draft_group(const Group& group) {
    DraftGroup result{
        .kind = kind_of(group.strategy), .degree = static_cast<int>(group.ranks.size()), .offload_ratio = group.offload_ratio};
    for (const auto s : group.sequences) result.sequences.push_back(s.value());
    for (const auto rank : group.ranks) result.ranks.push_back(rank.value());
    return result;
  }

  // Fills seconds and loads; false where the effort is spent.
  bool replay(Part& part) {
    std::vector<Sequence> sequences;
    Draft draft;
    auto& groups = draft.micro_batches.emplace_back(part.groups);
    for (DraftGroup& group : groups) {
      for (int& s : group.sequences) {
        sequences.push_back(task_.sequences[s]);
        s = static_cast<int>(std::ssize(sequences)) - 1;
      }
    }
    part.loads.assign(part.groups.size(), 0.0);
    part.seconds = part.highest = 0.0;
    part.slowest = 0;
    if (sequences.empty()) return true;
    const Plan plan = price({sequences, task_.cluster, task_.cost, task_.options, task_.modes}, std::move(draft));
    const Replay replayed = task_.options.replay(plan);
    require(std::ssize(replayed.rank_seconds) == task_.cluster.ranks, "plan: the replay says what ",
            replayed.rank_seconds.size(), " ranks work, the cluster has ", task_.cluster.ranks);
    part.seconds = replayed.seconds;
    for (std::size_t g = 0; g < part.groups.size(); ++g) {
      for (const auto rank : part.groups[g].ranks) part.loads[g] = std::max(part.loads[g], replayed.rank_seconds[rank]);
      part.highest = std::max(part.highest, part.loads[g]);
    }
    const auto slowest = [&](double load) { return load >= part.highest * (1.0 - kSpare); };
    part.slowest = static_cast<int>(std::count_if(part.loads.begin(), part.loads.end(), slowest));
    return effort_->spend(visits(std::ssize(sequences), task_.cluster.ranks));
  }

  [[nodiscard]] DraftGroup& at(Place place) { return parts_[place.part].groups[place.group]; }
  [[nodiscard]] double spare(Place place) const { return parts_[place.part].highest - parts_[place.part].loads[place.group]; }
  [[nodiscard]] const Modes::Mode& mode_of(const DraftGroup& group) const {
    const auto* mode = task_.modes.find(group.kind, group.degree);
    invariant(mode != nullptr, "a group of kind ", name_of(group.kind), " on ", group.degree, " ranks has no mode");
    return *mode;
  }
  // Seconds that a sequence adds to a group: start-ups are the group's.
  [[nodiscard]] double adds(const DraftGroup& group, int s) const {
    const Rates& rates = mode_of(group).rates;
    const Sequence& sequence = task_.sequences[s];
    return rates.per_pair * static_cast<double>(sequence.visible_pairs) +
           rates.per_token * static_cast<double>(sequence.tokens) + sequence.fixed_cost;
  }
  [[nodiscard]] std::int64_t left(const DraftGroup& group) const {
    std::int64_t tokens = task_.modes.room(group.degree);
    for (const int s : group.sequences) tokens -= task_.sequences[s].tokens;
    return tokens;
  }

  // One of the groups that decide how long their part takes.
  std::optional<Place> slowest_group() {
    const auto p = static_cast<std::size_t>(random_.below(std::ssize(parts_)));
    std::vector<Place> found;
    for (std::size_t g = 0; g < parts_[p].groups.size(); ++g)
      if (const Place place{p, g};
          spare(place) <= kSpare * parts_[p].highest && !at(place).sequences.empty() && at(place).offload_ratio == 0.0)
        found.push_back(place);
    if (found.empty()) return std::nullopt;
    return found[random_.below(std::ssize(found))];
  }
  std::optional<Place> spare_group() {
    std::vector<Place> found;
    for (std::size_t p = 0; p < parts_.size(); ++p)
      for (std::size_t g = 0; g < parts_[p].groups.size(); ++g)
        if (const Place place{p, g}; spare(place) > kSpare * parts_[p].highest && at(place).offload_ratio == 0.0)
          found.push_back(place);
    if (found.empty()) return std::nullopt;
    return found[random_.below(std::ssize(found))];
  }

  // Faster, or as fast with fewer groups that decide: several tied ones are eased one by one.
  static bool better(const Part& now, const Part& before) {
    if (now.seconds < before.seconds * (1.0 - kRounding)) return true;
    return now.seconds <= before.seconds * (1.0 + kRounding) && now.slowest < before.slowest;
  }
  static Part sum(const Part& a, const Part& b) { return {.seconds = a.seconds + b.seconds, .slowest = a.slowest + b.slowest}; }

  bool step() {
    const auto from = slowest_group();
    if (!from) return false;
    if (at(*from).degree > 1 && random_.chance(kChangesOfKind)) return change_kind(*from);
    const auto to = spare_group();
    return to && exchange(*from, *to);
  }

  bool change_kind(Place place) {
    DraftGroup& group = at(place);
    std::vector<Kind> others;
    for (const Kind kind : {Kind::ring, Kind::ulysses, Kind::gather})
      if (kind != group.kind && task_.modes.find(kind, group.degree) != nullptr) others.push_back(kind);
    if (others.empty()) return false;
    Part before = parts_[place.part];
    group.kind = others[random_.below(std::ssize(others))];
    const bool kept = replay(parts_[place.part]) && better(parts_[place.part], before);
    if (!kept) parts_[place.part] = std::move(before);
    return kept;
  }

  bool exchange(Place from, Place to) {
    auto& source = at(from).sequences;
    auto& target = at(to).sequences;
    const std::int64_t source_left = left(at(from)), target_left = left(at(to));
    for (int tries = 0; tries < kTries; ++tries) {
      const auto i = static_cast<std::size_t>(random_.below(std::ssize(source)));
      const auto j = static_cast<std::size_t>(random_.below(std::ssize(target) + 1));  // the last: none comes back
      const bool back = j < target.size();
      const std::int64_t moved = task_.sequences[source[i]].tokens - (back ? task_.sequences[target[j]].tokens : 0);
      if (moved > target_left || -moved > source_left) continue;
      const double eased = adds(at(from), source[i]) - (back ? adds(at(from), target[j]) : 0.0);
      const double added = adds(at(to), source[i]) - (back ? adds(at(to), target[j]) : 0.0);
      if (eased <= 0.0 || added >= spare(to)) continue;
      return apply(from, to, i, back ? std::optional(j) : std::nullopt);
    }
    return false;
  }

  bool apply(Place from, Place to, std::size_t i, std::optional<std::size_t> back) {
    const bool same = from.part == to.part;
    Part source = parts_[from.part], target = parts_[to.part];
    auto& giving = at(from).sequences;
    auto& taking = at(to).sequences;
    if (back) {
      std::swap(giving[i], taking[*back]);
    } else {
      taking.push_back(giving[i]);
      giving.erase(giving.begin() + static_cast<std::ptrdiff_t>(i));
    }
    bool kept = replay(parts_[from.part]);
    if (kept && !same) kept = replay(parts_[to.part]);
    kept = kept &&
           (same ? better(parts_[from.part], source) : better(sum(parts_[from.part], parts_[to.part]), sum(source, target)));
    if (!kept) {
      parts_[from.part] = std::move(source);
      if (!same) parts_[to.part] = std::move(target);
    }
    return kept;
  }

  const Task& task_;
  packing::Random random_;
  packing::Effort* effort_ = nullptr;
  std::vector<Part> parts_;
};

}  // namespace

Draft search_by_replay(const Task& task, const Plan& start, packing::Effort& effort) {
  ReplaySearch search(task, start);
  search.run(effort);
  return std::move(search).draft();
}

std::int64_t work_of_replay(const Task& task) { return visits(std::ssize(task.sequences), task.cluster.ranks); }

}  // namespace hetsp::planner
