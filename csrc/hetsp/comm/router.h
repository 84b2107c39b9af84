// Which chunk crosses which rail, and when.
//
// Rails pull: whichever has room takes the next chunk of the messages that may use it, in turns, so a fast rail carries more
// than a slow one without anybody's estimate. A rank's own rails pull for themselves; those of its neighbours pull by granting
// credit (credits.h). At the tail of a message a rail with room takes a second copy of a chunk that is late elsewhere. Before
// that, when fewer chunks are left than would fill all rails evenly, a rail takes no more than its share, so that all end
// together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "hetsp/comm/courier.h"
#include "hetsp/comm/credits.h"
#include "hetsp/comm/outgoing.h"
#include "hetsp/comm/route_table.h"
#include "hetsp/comm/statistics.h"
#include "hetsp/comm/topology.h"

namespace hetsp::comm {

class Router {
 public:
  Router(const Topology& topology, int rank, std::size_t chunk_bytes, RouteTable& routes, Courier& courier,
         Statistics& statistics);

  void add(Outgoing& message);     // accepted: its chunks may go
  void remove(Outgoing& message);  // ended
  void received(Outgoing& message, std::uint32_t chunk, Time now);
  void returned(Outgoing& message, std::uint32_t chunk, int rail);

  // Frames between the ranks of a node, or the ends of a rail.
  void on_want(const Header& header);
  void on_grant(const Header& header);
  void on_rail(const Header& header, Time now);
  void relayed(const Header& chunk, int asker);       // a granted chunk is here
  void changed(const Courier::Change& change);        // a rail of this rank
  void gone(int rank);

  void pump(Time now);
  [[nodiscard]] Time deadline(Time now) const;

 private:
  friend class Report;
  using Key = std::pair<int, int>;  // node, rail
  struct Queue {                    // messages with chunks that wait, to one node
    std::deque<Outgoing*> direct, spread;
    bool direct_turn = true;
  };
  using Pick = std::pair<Outgoing*, std::uint32_t>;

  void enqueue(Outgoing& message);
  std::optional<Pick> take_from(std::deque<Outgoing*>& queue, int rail, Time now);
  std::optional<Pick> next(int node, int rail, Time now);
  [[nodiscard]] bool takes_direct(int node, int rail) const;
  [[nodiscard]] std::size_t waiting(int node, int rail) const;  // chunks for the rail, no more than matter
  // Whether the rail, with `depth` chunks under way, should take one more rather than leave it to the others.
  [[nodiscard]] bool takes(int node, int rail, std::size_t depth) const;
  [[nodiscard]] double soonest(int node,
                               int rail) const;  // seconds until a chunk sent now over the rail is confirmed; 0: not known
  std::optional<Pick> late(int node, int rail, Time now) const;
  void copy(const Pick& pick, int rail, Time now);  // one under way goes on `rail` too
  void send(const Pick& pick, Link link, int rail);
  void pump_own(int node, int rail, Time now);
  void pump_lent(int node, int rail, Time now);
  void pump_local(Time now);
  void give_back_all(int node, int rail);
  void tell_node(int node, int rail, bool up);

  const Topology& topology_;
  int rank_, node_;
  std::size_t chunk_bytes_;
  RouteTable& routes_;
  Courier& courier_;
  Statistics& statistics_;
  std::map<int, Queue> queues_;               // [node]
  std::map<int, std::set<Outgoing*>> spread_;  // [node] messages that may use every rail, until they end
  std::map<int, std::set<Outgoing*>> active_;  // [node] all, until they end
  std::map<int, std::deque<Outgoing*>> local_;  // [rank of this node]
  std::map<Key, Lender> lenders_;
  std::map<Key, Purse> purses_;
  struct Delivery {  // seconds from sending a chunk over a rail to its confirmation
    double usual = 0, best = 0;
  };
  std::map<Key, Delivery> deliveries_;
  std::map<Key, std::size_t> under_way_;  // chunks of this rank's messages
};

}  // namespace hetsp::comm
