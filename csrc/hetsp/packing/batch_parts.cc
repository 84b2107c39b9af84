#include "hetsp/packing/batch_parts.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "hetsp/packing/batch_search.h"

namespace hetsp::packing {

namespace {

constexpr int kTogether = 6;                // micro-batches of a part
constexpr std::int64_t kVisits = 10;       // of each item in each mode of each micro-batch, by one search

double cost(const std::vector<Packing>& micro_batches, double fixed) {
  double sum = 0.0;
  for (const Packing& packing : micro_batches) sum += packing.makespan + fixed;
  return sum;
}

// Items of packings from numbers of a part to those of the whole.
void renumber(std::vector<Packing>& packings, const std::vector<std::int32_t>& items) {
  for (Packing& packing : packings)
    for (Bin& bin : packing.bins)
      for (auto& i : bin.items) i = items[i];
}

}  // namespace

BatchParts::BatchParts(const Instance& instance, double fixed_seconds, std::uint64_t seed)
    : instance_(instance), fixed_(fixed_seconds), random_(seed) {}

// known: a plan of these items, numbered as in `items`, or empty. most: micro-batches, 0: any number.
std::optional<std::vector<Packing>> BatchParts::plan(const std::vector<std::int32_t>& items, int most,
                                                     const std::vector<Packing>& known, Effort& effort) {
  Instance part = instance_;
  part.items.clear();
  for (const auto i : items) part.items.push_back(instance_.items[i]);
  BatchSearch search(part, fixed_, most, random_.next());
  if (!known.empty()) search.offer(known);
  if (!search.first()) return std::nullopt;
  Effort slice = effort.slice(kVisits * kTogether * std::ssize(items) * std::ssize(instance_.modes));
  search.improve(slice);
  effort.spend(slice.used());
  std::vector<Packing> planned = search.best();
  renumber(planned, items);
  return planned;
}

std::optional<std::vector<Packing>> BatchParts::deal(int fewest, Effort& effort) {
  const int parts = std::max(1, fewest / kTogether);
  std::vector<std::vector<std::int32_t>> dealt(parts);
  for (std::size_t i = 0; i < instance_.items.size(); ++i) {
    const int round = static_cast<int>(i) / parts, place = static_cast<int>(i) % parts;
    dealt[round % 2 == 0 ? place : parts - 1 - place].push_back(static_cast<std::int32_t>(i));
  }
  std::vector<Packing> all;
  for (const auto& items : dealt) {
    auto planned = plan(items, 0, {}, effort);
    if (!planned) return std::nullopt;
    std::move(planned->begin(), planned->end(), std::back_inserter(all));
  }
  return all;
}

bool BatchParts::improve(std::vector<Packing>& micro_batches, Effort& effort) {
  const int together = std::min(kTogether, static_cast<int>(micro_batches.size()));
  // The chosen ones to the end.
  for (int j = 0; j < together; ++j) {
    const auto end = static_cast<std::int32_t>(micro_batches.size()) - j;
    std::swap(micro_batches[random_.below(end)], micro_batches[end - 1]);
  }
  std::vector<Packing> known(micro_batches.end() - together, micro_batches.end());
  const double before = cost(known, fixed_);
  std::vector<std::int32_t> items;
  for (Packing& packing : known)
    for (Bin& bin : packing.bins)
      for (auto& i : bin.items) {
        items.push_back(i);
        i = static_cast<std::int32_t>(items.size()) - 1;
      }
  const auto planned = plan(items, together, known, effort);
  if (!planned || cost(*planned, fixed_) >= before * (1.0 - 1e-12)) return false;
  micro_batches.resize(micro_batches.size() - together);
  micro_batches.insert(micro_batches.end(), planned->begin(), planned->end());
  return true;
}

}  // namespace hetsp::packing
