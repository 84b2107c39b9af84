// Messages that a group of ranks sends at the same time, as one flow over many links.
#pragma once

#include <span>
#include <vector>

#include "hetsp/simulator/machine.h"

namespace hetsp::simulator {

struct Use {
  int resource;
  double weight;  // bytes on this resource per byte of the bundle
};

// The members of a group move in lockstep: their equal messages are one flow of `bytes`, which loads each link with as many
// bytes as messages (or parts of messages) cross it. So a hop of a ring over 1024 ranks is one flow, not 1024.
struct Bundle {
  double bytes = 0.0;          // of one message
  double start_seconds = 0.0;  // before the first byte
  std::vector<Use> uses;       // each resource once
};

// Where messages that leave the node go: over the sender's own NIC, or in equal parts over all NICs of the node, dispatched
// to and combined from the ranks beside them (Zeppelin, arXiv 2509.21841). The three legs run as a pipeline of small chunks, or
// in turn, each when the one before has moved everything.
enum class Routing { own_nic, all_nics, all_nics_in_turn };

// Bundles of a group with `ranks` in the order of the ring; `bytes` of each message.

// Every rank sends to the one `stride` further in the list, the last ones to the first: a hop of a ring. The flows follow each
// other: one, or three legs in turn.
[[nodiscard]] std::vector<Bundle> ring_hop(const Machine& machine, std::span<const int> ranks, int stride, double bytes,
                                           Routing routing);

// Runs of `size` ranks exchange all to all; `bytes` go to each peer. Two flows at once, which share no link: peers inside and
// outside the node. A flow without messages is left out. All ranks send over their own NICs, so that none idles anyhow.
[[nodiscard]] std::vector<Bundle> all_to_all(const Machine& machine, std::span<const int> ranks, int size, double bytes);

// Every rank receives `bytes` in all from the others, over rings that use all NICs of the group's ranks.
[[nodiscard]] Bundle all_gather(const Machine& machine, std::span<const int> ranks, double bytes);

}  // namespace hetsp::simulator
