#include "hetsp/planner/describe.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <numeric>
#include <vector>

#include "hetsp/base/error.h"
#include "hetsp/planner/plan_check.h"
#include "hetsp/planner/workload.h"

namespace hetsp::planner {

namespace {

constexpr std::size_t kGroups = 24, kLengths = 6, kRanks = 16;  // rows and items printed before "..."

std::string pad(const std::string& text, std::size_t width) {
  return text + std::string(text.size() < width ? width - text.size() : 0, ' ');
}

std::string number(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string seconds(double value) {
  if (value >= 1.0 || value == 0.0) return number("%.3f s", value);
  return value >= 1e-3 ? number("%.3f ms", value * 1e3) : number("%.3f us", value * 1e6);
}

std::string plural(std::size_t count, const char* noun) { return concat(count, " ", noun, count == 1 ? "" : "s"); }

// "0-3,7": runs of consecutive ranks.
std::string rank_runs(const std::vector<Rank>& ranks) {
  std::string text;
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t last = i;
    while (last + 1 < ranks.size() && ranks[last + 1].value() == ranks[last].value() + 1) ++last;
    text += concat(text.empty() ? "" : ",", ranks[i].value());
    if (last > i) text += concat("-", ranks[last].value());
    i = last + 1;
  }
  return text.size() <= 28 ? text : text.substr(0, 25) + "...";
}

std::string lengths_of(const Plan& plan, const Group& group) {
  std::vector<std::int64_t> lengths;
  for (const auto s : group.sequences) lengths.push_back(plan.sequences[s.value()].tokens);
  std::sort(lengths.begin(), lengths.end(), std::greater<>());
  std::string text;
  for (std::size_t i = 0; i < std::min(lengths.size(), kLengths); ++i) text += concat(i ? " " : "", lengths[i]);
  return lengths.size() > kLengths ? text + " ..." : text;
}

std::string groups_table(const Plan& plan, const MicroBatch& micro_batch) {
  std::string text = "  degree  ranks                         sequences     tokens  lengths\n";
  for (std::size_t g = 0; g < micro_batch.groups.size(); ++g) {
    if (g == kGroups) return text + concat("  ... and ", micro_batch.groups.size() - kGroups, " more groups\n");
    const Group& group = micro_batch.groups[g];
    std::int64_t tokens = 0;
    for (const auto s : group.sequences) tokens += plan.sequences[s.value()].tokens;
    const std::string count = std::to_string(group.sequences.size()), sum = std::to_string(tokens);
    text += "  " + pad(std::to_string(group.ranks.size()), 8) + pad(rank_runs(group.ranks), 30) +
            std::string(9 - std::min<std::size_t>(9, count.size()), ' ') + count +
            std::string(11 - std::min<std::size_t>(11, sum.size()), ' ') + sum + "  " + lengths_of(plan, group) + "\n";
  }
  return text;
}

std::string ranks_table(const Plan& plan) {
  std::string text = "  rank    seconds       compute       tokens\n";
  std::vector<std::int64_t> tokens(plan.ranks);
  for (std::size_t m = 0; m < plan.micro_batches.size(); ++m) {
    const auto held = rank_tokens(plan, static_cast<int>(m));
    for (std::int32_t r = 0; r < plan.ranks; ++r) tokens[r] += held[r];
  }
  const auto row = [&](const std::string& name, double total, double compute, std::int64_t held) {
    text += "  " + pad(name, 8) + pad(seconds(total), 14) + pad(seconds(compute), 14) + std::to_string(held) + "\n";
  };
  if (plan.rank_seconds.size() <= kRanks) {
    for (std::int32_t r = 0; r < plan.ranks; ++r)
      row(std::to_string(r), plan.rank_seconds[r], plan.compute_seconds[r], tokens[r]);
    return text;
  }
  const auto mean = [](const auto& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  };
  const auto [seconds_least, seconds_most] = std::minmax_element(plan.rank_seconds.begin(), plan.rank_seconds.end());
  const auto [compute_least, compute_most] = std::minmax_element(plan.compute_seconds.begin(), plan.compute_seconds.end());
  const auto [tokens_least, tokens_most] = std::minmax_element(tokens.begin(), tokens.end());
  row("least", *seconds_least, *compute_least, *tokens_least);
  row("mean", mean(plan.rank_seconds), mean(plan.compute_seconds), static_cast<std::int64_t>(mean(tokens)));
  row("most", *seconds_most, *compute_most, *tokens_most);
  return text;
}

}  // namespace

std::string one_line(const Plan& plan) {
  std::map<std::size_t, std::size_t> sequences;  // by degree
  for (const auto& micro_batch : plan.micro_batches)
    for (const auto& group : micro_batch.groups) sequences[group.ranks.size()] += group.sequences.size();
  std::string text;
  for (const auto& [degree, count] : sequences) text += concat(text.empty() ? "" : " ", count, "x", degree);
  return text;
}

std::string table(const Plan& plan) {
  std::string text =
      concat("plan ", plan.strategy, ": ", plural(plan.sequences.size(), "sequence"), ", ", total_tokens(plan.sequences),
             " tokens on ", plural(plan.ranks, "rank"), ", ", plan.micro_batches.size(),
             plan.micro_batches.size() == 1 ? " micro-batch" : " micro-batches", "; ", one_line(plan), "\n");
  text += "makespan " + seconds(plan.makespan) + ", lower bound " + seconds(plan.lower_bound) + ", gap " +
          number("%.2f %%", 100.0 * plan.gap()) + ", most loaded rank " + number("%.3f", balance(plan.rank_seconds)) +
          " x mean\n";
  for (std::size_t m = 0; m < plan.micro_batches.size(); ++m)
    text += concat("micro-batch ", m, "\n") + groups_table(plan, plan.micro_batches[m]);
  return text + "per rank\n" + ranks_table(plan);
}

}  // namespace hetsp::planner
