// The operations of this rank's users that are not complete, and what they are called in messages to people.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "hetsp/comm/matcher.h"
#include "hetsp/comm/route_table.h"
#include "hetsp/comm/topology.h"
#include "hetsp/comm/transport.h"

namespace hetsp::comm {

class Operations {
 public:
  struct Open {
    bool sending = false;
    int peer = 0;  // or any_source
    std::uint64_t transfer = 0;  // 0: a receive that has met nothing
    Time since = 0;
  };

  Operations(const Topology& topology, int rank, const RouteTable& routes, Transport& transport)
      : topology_(topology), rank_(rank), routes_(routes), transport_(transport) {}

  // Of a name that is not open, with a rank that is there.
  void begin(Operation operation, bool sending, int peer, Time now);
  void require_peer(int peer, bool sending) const;
  void complete(Operation operation, const Outcome& outcome);  // if it is open
  [[nodiscard]] Open* find(Operation operation);  // null where it is not open
  [[nodiscard]] std::vector<Operation> all() const;
  [[nodiscard]] const auto& open() const { return open_; }
  [[nodiscard]] bool empty() const { return open_.empty(); }

  // "receiving from rank 4, transfer 7, rail 0". `rail`: that it used last; -1: none yet, it would be the one of its own.
  [[nodiscard]] std::string describe(const Open& operation, int rail) const;
  [[nodiscard]] Outcome peer_lost(const std::string& text, Operation operation, int rail) const;

 private:
  const Topology& topology_;
  int rank_;
  const RouteTable& routes_;
  Transport& transport_;
  std::unordered_map<Operation, Open> open_;
};

}  // namespace hetsp::comm
