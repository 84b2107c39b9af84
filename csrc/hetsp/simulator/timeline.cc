#include "hetsp/simulator/timeline.h"

#include <algorithm>
#include <utility>

namespace hetsp::simulator {

namespace {

using Interval = std::pair<double, double>;

// Seconds of the union of `travels` outside the disjoint `spans`; both sorted by begin.
double exposed(const std::vector<Interval>& travels, const std::vector<Interval>& spans) {
  double total = 0.0, reached = 0.0;  // everything before `reached` is counted
  std::size_t next = 0;
  for (const auto& [begin, end] : travels) {
    double from = std::max(begin, reached);
    while (from < end) {
      while (next < spans.size() && spans[next].second <= from) ++next;
      if (next < spans.size() && spans[next].first <= from) {
        from = spans[next].second;
        continue;
      }
      const double to = next < spans.size() ? std::min(end, spans[next].first) : end;
      total += to - from;
      from = to;
    }
    reached = std::max(reached, end);
  }
  return total;
}

}  // namespace

void account(Timeline& timeline, const std::vector<std::vector<std::vector<int>>>& members) {
  const std::size_t ranks = timeline.busy.size();
  std::vector<std::vector<Interval>> travels(ranks), spans(ranks);
  for (const auto& transfer : timeline.transfers) {
    for (const int rank : members[transfer.micro_batch][transfer.group])
      travels[rank].emplace_back(transfer.begin, transfer.end);
  }
  for (const auto& span : timeline.spans) spans[span.rank].emplace_back(span.begin, span.end);
  timeline.communication.assign(ranks, 0.0);
  timeline.wait.assign(ranks, 0.0);
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    std::sort(travels[rank].begin(), travels[rank].end());
    std::sort(spans[rank].begin(), spans[rank].end());
    timeline.communication[rank] = exposed(travels[rank], spans[rank]);
    timeline.wait[rank] = std::max(0.0, timeline.makespan - timeline.busy[rank] - timeline.communication[rank]);
  }
}

}  // namespace hetsp::simulator
