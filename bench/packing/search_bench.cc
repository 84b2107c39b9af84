// Packings of one micro-batch and of whole batches: seconds to the first, and how good they are after some milliseconds.
//
//   python -m bench.packing.instances > instances.txt && packing_search_bench instances.txt [1 | 2 | any]
//
// Degrees are the powers of two from 1 (default) or 2, or any. Values are FlexSP's: makespan plus fixed seconds, summed over
// micro-batches. A batch is compared with the sorted consecutive cut, each of its parts searched for as long: the gain.
// One core, one seed; the clock decides how far a search comes, so values differ a little from run to run.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <limits>

#include "flexsp_case.h"
#include "hetsp/packing/batch_search.h"
#include "hetsp/packing/search.h"
#include "hetsp/packing/sorted_cut.h"

namespace {

using namespace hetsp::packing;
using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}
Effort clock_effort(double milliseconds) { return Effort(std::numeric_limits<std::int64_t>::max(), 1e-3 * milliseconds); }

void micro_batch(const flexsp::Case& given, flexsp::Degrees degrees) {
  const Instance instance = given.instance(degrees);
  const auto start = Clock::now();
  Search search(instance, 0);
  if (!search.first()) {
    std::printf("%-16s no packing found\n", given.name.c_str());
    return;
  }
  std::printf("%-16s %6zu on %5d  first %7.2f ms %8.4f s", given.name.c_str(), given.lengths.size(), given.ranks,
              milliseconds_since(start), search.best().makespan + given.fixed_seconds());
  double before = 0.0;
  for (const double mark : {10.0, 50.0, 300.0, 1000.0}) {
    Effort effort = clock_effort(mark - before);
    search.improve(effort);
    std::printf("  %4.0f ms %8.4f", mark, search.best().makespan + given.fixed_seconds());
    before = mark;
  }
  std::printf("\n");
}

// The best of the sorted cuts into `fewest` to `fewest` + 4 parts, each part searched for an equal share; infinite: none.
double sorted_cuts(const flexsp::Case& given, const Instance& instance, int fewest, double milliseconds) {
  const Order order(instance);
  double best = std::numeric_limits<double>::infinity();
  for (int parts = fewest; parts < fewest + 5; ++parts) {
    Instance part = order.instance;
    std::int32_t begin = 0;
    double sum = 0.0;
    for (const auto end : sorted_cut(order.instance, parts)) {
      part.items.assign(order.instance.items.begin() + begin, order.instance.items.begin() + end);
      begin = end;
      if (part.items.empty()) continue;
      Search search(part, 0);
      Effort effort = clock_effort(milliseconds / (5.0 * parts));
      search.improve(effort);
      sum += search.found() ? search.best().makespan + given.fixed_seconds() : std::numeric_limits<double>::infinity();
    }
    best = std::min(best, sum);
  }
  return best;
}

void batch(const flexsp::Case& given, flexsp::Degrees degrees) {
  const Instance instance = given.instance(degrees);
  const auto start = Clock::now();
  BatchSearch search(instance, given.fixed_seconds(), 0, 0);
  if (!search.first()) {
    std::printf("%-16s no packings found\n", given.name.c_str());
    return;
  }
  std::printf("%-16s %6zu on %5d  first %7.2f ms %8.4f s", given.name.c_str(), given.lengths.size(), given.ranks,
              milliseconds_since(start), search.seconds());
  double before = 0.0;
  for (const double mark : {50.0, 500.0}) {
    Effort effort = clock_effort(mark - before);
    search.improve(effort);
    std::printf("  %4.0f ms %8.4f", mark, search.seconds());
    before = mark;
  }
  const auto fewest = static_cast<int>(std::ceil(total_tokens(instance) / most_room(instance)));
  const double sorted = sorted_cuts(given, instance, std::max(1, fewest), 500.0);
  std::printf("  in %zu micro-batches; sorted cut %8.4f, gain %5.2f %%\n", search.best().size(), sorted,
              100.0 * (sorted / search.seconds() - 1.0));
}

}  // namespace

int main(int argc, char** argv) {
  const char* degrees = argc > 2 ? argv[2] : "1";
  const bool any = std::strcmp(degrees, "any") == 0, from_2 = std::strcmp(degrees, "2") == 0;
  if (argc < 2 || argc > 3 || (!any && !from_2 && std::strcmp(degrees, "1") != 0)) {
    std::fprintf(stderr, "usage: %s INSTANCES [1 | 2 | any]\n", argv[0]);
    return 2;
  }
  try {
    for (const auto& given : flexsp::read(argv[1]))
      (given.kind == "batch" ? batch : micro_batch)(given, any      ? flexsp::Degrees::any
                                                           : from_2 ? flexsp::Degrees::from_2
                                                                    : flexsp::Degrees::from_1);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
