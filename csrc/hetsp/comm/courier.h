// Every frame that this rank puts on a wire, and who answers for it.
//
// A small frame is in the custody of one rank after another: it is kept until the next one has it (a local connection took it,
// or the other end of a rail or control link acknowledged it), and goes another way when its link falls silent. So it arrives
// at least once while any way lives, and what it says must bear being said twice. A chunk is not kept: if its rail goes down
// under it, its source is told. Chunks wait here only where they were granted room, or for a local connection.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hetsp/comm/rail.h"
#include "hetsp/comm/route_table.h"
#include "hetsp/comm/statistics.h"
#include "hetsp/comm/topology.h"
#include "hetsp/comm/transport.h"

namespace hetsp::comm {

class Courier {
 public:
  struct Options {
    std::uint64_t job = 0;
    std::size_t chunk_bytes = 0;
    std::size_t control_bytes = 0;  // the largest payload that may cross a control link
  };
  struct Change {  // of a rail that this rank owns
    int node = 0, rail = 0;
    bool up = false;
    bool reconnecting = false;  // the other end must be told to do so too
  };

  Courier(const Topology& topology, int rank, const Options& options, RouteTable& routes, Transport& transport, Time now);

  void now(Time time) { now_ = time; }
  void post(const Header& header, std::span<const std::byte> payload = {});  // a small frame, to header.destination
  void pass(const Header& header, std::span<const std::byte> payload);       // one that belongs to somebody else
  void chunk(Link link, const Header& header, std::span<const std::byte> payload);  // of this rank's own message
  void relay(const Header& header, Arrival arrival);  // of somebody else's; the arrival is released when it has gone

  [[nodiscard]] bool local_room(int peer) const;
  [[nodiscard]] Rail* rail(int node, int index);  // null where this rank does not own it
  [[nodiscard]] std::size_t waiting(int node, int index) const;  // relayed chunks that wait for the rail

  Rail::Arrived arrive(Link link, const Header& header, std::span<const std::byte> payload, Time now);
  void sent(Token token);
  void connected(Link link, std::uint16_t generation, Time now);
  void broken(Link link, Time now);
  void told_broken(int node, int rail, Time now);  // by the other end
  void forget(int rank);  // nothing goes to it, or through it, any more

  void poll(Time now);
  [[nodiscard]] Time deadline() const;
  [[nodiscard]] bool idle() const;              // nobody waits for anything that is kept here
  [[nodiscard]] bool owes(int destination) const;  // small frames for it are kept here

  std::vector<Header> take_returned();  // chunks that came back from a rail that went down
  std::vector<Change> take_changes();

  void count(Statistics& into) const;

 private:
  friend class Report;
  struct Frame {
    Header header;
    std::vector<std::byte> payload;  // of a small frame
    Arrival arrival = 0;
    Link link;
    bool small = false, on_wire = false, done = false;
  };
  struct Local {
    std::size_t on_wire = 0;  // bytes of chunks
    std::deque<std::pair<Header, Arrival>> waiting;
  };
  struct Trunk {  // a rail or control link
    Link link;
    int node = 0;
    Rail rail;
    std::deque<std::pair<Header, Arrival>> waiting;
  };
  void route(Frame frame);
  void put(Link link, Frame frame);
  void start(Link link, const Header& header, Arrival arrival);
  void finished(std::uint64_t name);
  void gather(Trunk& trunk, Time now);
  Trunk* trunk(Link link);

  const Topology& topology_;
  int rank_, node_;
  Options options_;
  RouteTable& routes_;
  Transport& transport_;
  Time now_, retry_ = 0;
  std::uint64_t names_ = 0;
  std::unordered_map<std::uint64_t, Frame> frames_;  // on a wire, by name, which is their token too
  std::map<int, Local> locals_;                      // [peer]
  std::map<int, Trunk> controls_;                    // [peer]
  std::map<std::pair<int, int>, Trunk> rails_;       // [node, rail]
  std::vector<Frame> stranded_;                      // small frames without a living way
  std::vector<Header> returned_;
  std::vector<Change> changes_;
};

}  // namespace hetsp::comm
