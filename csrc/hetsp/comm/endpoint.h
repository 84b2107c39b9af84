// One rank's end of every message: what its engine knows, and what it answers to the frames of others.
//
// An offer names a message; the receive that meets it answers accept (its chunks may come), fin (it was inside the offer) or
// refuse; what has been stored is told in bundles (received), the end once (fin), which alone ends the message at its source.
// All of these bear being said twice. A rank that is lost ends everything, with the first cause that anybody saw; a rank that
// said goodbye ends only what is open with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hetsp/comm/courier.h"
#include "hetsp/comm/engine.h"
#include "hetsp/comm/incoming.h"
#include "hetsp/comm/matcher.h"
#include "hetsp/comm/outgoing.h"
#include "hetsp/comm/route_table.h"
#include "hetsp/comm/router.h"

namespace hetsp::comm {

constexpr std::uint8_t kEager = 1, kGivenUp = 2;  // of Kind::offer: the payload is all of it; there is no such message any more
constexpr std::uint8_t kRetires = 1;  // of Kind::goodbye: goes on carrying
constexpr std::uint8_t kWrongSize = 1, kWrongType = 2, kEnded = 3;  // of Kind::refuse

struct Endpoint {
  struct Open {
    bool sending = false;
    int peer = 0;  // or any_source
    std::uint64_t transfer = 0;  // 0: a receive that has met nothing
  };
  struct Store {
    Arrival arrival = 0;
    int source = 0;
    std::uint64_t transfer = 0;
    std::uint32_t chunk = 0;
  };

  const Topology topology;
  const int rank;
  const EngineOptions options;
  Transport& transport;
  Time now;
  Statistics counts;
  RouteTable routes;
  Courier courier;
  Router router;
  Matcher matcher;

  std::vector<std::uint64_t> transfers;  // [ranks] messages sent to each
  std::vector<std::size_t> eager_waiting;  // [ranks] bytes of eager messages that each has not received
  std::vector<std::map<std::uint64_t, std::unique_ptr<Outgoing>>> out;  // [ranks] by transfer
  std::vector<std::map<std::uint64_t, Incoming>> in;  // [ranks] by transfer
  std::unordered_map<Operation, Open> open;
  std::unordered_map<Operation, int> sources;  // of receives from any source that are complete
  std::unordered_map<Token, Store> stores;
  Token stores_begun = 0;
  std::set<std::pair<int, std::uint64_t>> to_tell;  // incoming messages with chunks not told
  // [ranks] Transfers that were canceled before their offer came. So many of each rank at most, the next ones: what is dropped
  // is canceled again when it is accepted.
  std::vector<std::set<std::uint64_t>> canceled_early;
  static constexpr std::size_t kCanceledEarly = 1024;
  std::map<int, Time> leaving;  // ranks that said goodbye: when what is open with them fails
  std::set<int> goodbyes;  // to be said
  std::set<int> retired;  // ranks that have no messages any more, and still carry those of others
  int leaving_last = -1;  // rank that said goodbye last
  bool left = false;  // this rank has no messages any more,
  bool carries = false;  // ... and still carries
  int lost_rank = -1;
  std::string lost_text;  // begins "rank N"

  Endpoint(const Topology& of, int self, const EngineOptions& given, Transport& wires, Time start);

  [[nodiscard]] std::string describe(const Open& operation, int rail) const;
  void complete(Operation operation, const Outcome& outcome);
  void end_outgoing(int peer, std::uint64_t transfer, const Outcome& outcome);
  // The user's memory is touched until the last copy into it has ended.
  void end_incoming(int peer, std::uint64_t transfer, const Outcome& outcome);
  void reply(Kind kind, int peer, std::uint64_t transfer, Header header = {}, std::span<const std::byte> payload = {});
  void meet(Matcher::Match& match);
  void on_offer(const Header& header, std::span<const std::byte> payload);
  void on_accept(const Header& header);
  void on_refuse(const Header& header);
  void on_cancel(const Header& header);
  void on_received(const Header& header, std::span<const std::byte> payload);
  void on_chunk(const Header& header, Arrival arrival);
  void on_stored(Token token);
  void tell(Time time);
  void on_returned(const Header& header);
  void deliver(const Header& header, Arrival arrival, std::span<const std::byte> payload);
  [[nodiscard]] bool foreign(const Header& header) const;
  void on_frame(Link link, const Header& header, Arrival arrival, std::span<const std::byte> payload);
  [[nodiscard]] Outcome peer_lost(const std::string& text, Operation operation, int rail) const;
  void fail_with(int peer, const std::string& text);
  void fail_all(const std::string& text);
  void forget(int peer);
  void lose(int peer, const std::string& why);
  void on_goodbye(int peer, bool retires);
  [[nodiscard]] bool gone(int peer) const { return routes.is_gone(peer) || retired.contains(peer); }  // for messages
  void say_goodbye(bool retires);
  [[nodiscard]] bool needed() const;
  // Ends what nobody is left to carry, or to send.
  void fail_stranded();
  static std::string left_text(int peer);
  // An operation that cannot begin ends at once: true.
  bool refused(Operation operation, int peer);
  void require_peer(int peer, bool sending) const;
  void begin(Operation operation, bool sending, int peer);
  [[nodiscard]] std::size_t eager_limit(int peer) const;  // the largest message to it that travels inside its offer
  [[nodiscard]] bool spreads(int peer, std::size_t bytes) const;
  void poll(Time time);
  [[nodiscard]] Time deadline() const;
};

}  // namespace hetsp::comm
