#include "hetsp/planner/strategies/flexsp.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "hetsp/base/error.h"
#include "hetsp/packing/area_bound.h"
#include "hetsp/packing/item_types.h"
#include "hetsp/packing/random.h"
#include "hetsp/packing/search.h"

namespace hetsp::planner {

namespace {

constexpr std::size_t kBuckets = 16;
constexpr std::int64_t kWork = 1000;  // of the search for one micro-batch, per sequence
constexpr std::size_t kSequences = 2000;  // from which on it grows no more

// One row of the programme: next[i] = min over j < i of last[j] + waste of the bucket (j, i].
class BucketRow {
 public:
  BucketRow(const std::vector<std::int64_t>& lengths, const std::vector<std::int64_t>& sums,
            const std::vector<std::int64_t>& last)
      : next(last.size(), kNone), from(last.size(), 0), lengths_(lengths), sums_(sums), last_(last) {
    solve(1, last.size(), 0, last.size() - 1);
  }
  static constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::max() / 4;
  std::vector<std::int64_t> next;
  std::vector<std::size_t> from;

 private:
  // Rows [begin, end), whose best j lies in [low, high].
  void solve(std::size_t begin, std::size_t end, std::size_t low, std::size_t high) {
    if (begin >= end) return;
    const std::size_t i = begin + (end - begin) / 2;
    for (std::size_t j = low; j <= std::min(high, i - 1); ++j) {
      const std::int64_t waste = lengths_[i - 1] * static_cast<std::int64_t>(i - j) - (sums_[i] - sums_[j]);
      if (last_[j] + waste < next[i]) next[i] = last_[j] + waste, from[i] = j;
    }
    solve(begin, i, low, from[i]);
    solve(i + 1, end, from[i], high);
  }
  const std::vector<std::int64_t>&lengths_, &sums_, &last_;
};

// The chunk's groups by search, lengths rounded up to their bucket; false where the search finds no room.
bool solve_chunk(const Task& task, const std::vector<Modes::Mode>& used, packing::Instance instance,
                 const std::vector<int>& chunk, std::vector<DraftGroup>& groups) {
  std::vector<int> rising(chunk.rbegin(), chunk.rend());
  std::vector<std::int64_t> lengths;
  for (const int s : rising) lengths.push_back(task.sequences[s].tokens);
  instance.items.clear();
  packing::Random random(task.options.seed);
  std::size_t begin = 0;
  for (const std::size_t end : bucket_ends(lengths, task.cluster.ranks * task.cluster.tokens_per_rank)) {
    const Sequence& longest_of_bucket = task.sequences[rising[end - 1]];
    for (; begin < end; ++begin) {
      instance.items.push_back({longest_of_bucket.tokens, static_cast<double>(longest_of_bucket.visible_pairs)});
      std::swap(rising[begin], rising[begin + random.below(static_cast<std::int64_t>(end - begin))]);
    }
  }
  packing::Search search(instance, task.options.seed);
  if (!search.first()) return false;
  packing::Effort effort(kWork * static_cast<std::int64_t>(std::min(chunk.size(), kSequences)), 0.0, task.options.cancel);
  search.improve(effort, packing::AreaBound(instance, packing::make_types(instance.items)).makespan() * (1.0 + 1e-6));
  for (const auto& bin : search.best().bins) {
    auto& group = groups.emplace_back(DraftGroup{.kind = used[bin.mode].kind, .degree = used[bin.mode].degree});
    for (const auto i : bin.items) group.sequences.push_back(rising[i]);
  }
  return true;
}

// Idle ranks join the smallest groups, which double, while a doubled group is allowed and no slower.
void use_all_ranks(const Task& task, std::vector<DraftGroup>& groups) {
  std::int64_t idle = task.cluster.ranks;
  for (const auto& group : groups) idle -= group.degree;
  for (bool grown = true; grown && idle > 0;) {
    grown = false;
    std::stable_sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) { return a.degree < b.degree; });
    for (DraftGroup& group : groups) {
      DraftGroup wider = group;
      wider.degree *= 2;
      if (group.degree > idle || task.modes.find(wider.kind, wider.degree) == nullptr) continue;
      if (group_seconds(task, wider) > slowest_seconds(task, groups)) continue;
      idle -= group.degree;
      group = std::move(wider);
      grown = true;
      break;
    }
  }
}

}  // namespace

std::vector<std::size_t> bucket_ends(const std::vector<std::int64_t>& lengths, std::int64_t room) {
  const std::size_t count = lengths.size();
  std::vector<std::int64_t> sums(count + 1, 0);
  std::partial_sum(lengths.begin(), lengths.end(), sums.begin() + 1);
  std::vector<std::int64_t> least(count + 1, BucketRow::kNone);
  least[0] = 0;
  std::vector<std::vector<std::size_t>> from;
  for (std::size_t buckets = 1; buckets <= count; ++buckets) {
    BucketRow row(lengths, sums, least);
    least = std::move(row.next);
    from.push_back(std::move(row.from));
    const bool enough = sums[count] + least[count] <= (sums[count] + room) / 2 || least[count] == 0;
    if (buckets >= std::min(kBuckets, count) && enough) break;
  }
  std::vector<std::size_t> ends;
  std::size_t end = count;
  for (auto row = from.rbegin(); row != from.rend() && end > 0; ++row) {
    ends.push_back(end);
    end = (*row)[end];
  }
  std::reverse(ends.begin(), ends.end());
  return ends;
}

Draft draft_flexsp(const Task& task) {
  std::vector<Modes::Mode> all, used;
  packing::Instance instance = task.modes.instance(task.sequences, all);
  instance.modes.clear();
  for (const int degree : task.modes.degrees()) {
    const bool wanted = (degree & (degree - 1)) == 0 && (degree > 1 || task.cluster.ranks == 1);
    const auto* mode = wanted ? sequence_parallel_mode(task, degree) : nullptr;
    if (mode == nullptr) continue;
    const double fixed = task.sequences.empty() ? 0.0 : task.sequences.front().fixed_cost;
    instance.modes.push_back(
        {degree, task.modes.room(degree), mode->rates.per_pair, mode->rates.per_token, mode->rates.per_sequence + fixed});
    used.push_back(*mode);
  }
  require(!used.empty(),
          "plan: strategy \"flexsp\" needs groups of a power of two ranks from 2 on, which the executable kinds, "
          "the degrees or the model exclude");
  Timed best = best_count(task, [&](const std::vector<int>& chunk, std::vector<DraftGroup>& groups) {
    if (!solve_chunk(task, used, instance, chunk, groups)) return false;
    use_all_ranks(task, groups);
    return true;
  });
  if (best.draft.micro_batches.empty())
    throw PlanInfeasible(concat("plan: strategy \"flexsp\" finds no room for ", task.sequences.size(), " sequences in ",
                                most_micro_batches(task), " micro-batches of ", task.cluster.ranks, " ranks with room for ",
                                task.cluster.tokens_per_rank, " tokens each"));
  return std::move(best.draft);
}

}  // namespace hetsp::planner
