// What happened when: the result of a simulation.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/simulator/task_graph.h"

namespace hetsp::simulator {

struct Span {  // a rank computes
  std::int32_t rank;
  Work work;
  std::int32_t micro_batch, group;
  double begin, end;  // seconds
};

struct Transfer {  // a group's messages travel
  std::int32_t micro_batch, group;
  double begin, end;  // seconds, start-up included
  double bytes;       // of one message
};

// At any time a rank computes, or it does not while messages of a group it is in travel (communication that nothing hides),
// or it waits: busy + communication + wait = makespan on each rank.
struct Timeline {
  double makespan = 0.0;                          // seconds
  std::vector<double> busy, communication, wait;  // [ranks] seconds
  std::vector<double> resource_bytes;             // [Machine::resources()] bytes that crossed
  std::vector<Span> spans;                        // by begin
  std::vector<Transfer> transfers;                // by end
};

// Fills communication and wait from spans, transfers and makespan. `members`: [micro-batch][group] ranks.
void account(Timeline& timeline, const std::vector<std::vector<std::vector<int>>>& members);

}  // namespace hetsp::simulator
