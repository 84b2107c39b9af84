// One rank's end of every message: it hands frames to those who answer them, and keeps who is lost, has left, or leaves.
//
// What is said to a peer's endpoint bears being said twice. A rank that is lost ends everything, with the first cause that
// anybody saw; a rank that said goodbye ends only what is open with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>

#include "hetsp/comm/receiving.h"
#include "hetsp/comm/self.h"
#include "hetsp/comm/sending.h"

namespace hetsp::comm {

constexpr std::uint8_t kRetires = 1;  // of Kind::goodbye: goes on carrying

struct Endpoint : Self {
  Sending sending;
  Receiving receiving;

  std::map<int, Time> leaving;  // ranks that said goodbye: when what is open with them fails
  std::set<int> goodbyes;  // to be said
  std::set<int> retired;  // ranks that have no messages any more, and still carry those of others
  int leaving_last = -1;  // rank that said goodbye last
  bool left = false;  // this rank has no messages any more,
  bool carries = false;  // ... and still carries
  int lost_rank = -1;
  std::string lost_text;  // begins "rank N"

  Endpoint(const Topology& of, int self, const EngineOptions& given, Transport& wires, Time start);

  void on_frame(Link link, const Header& header, Arrival arrival, std::span<const std::byte> payload);
  void deliver(const Header& header, Arrival arrival, std::span<const std::byte> payload);
  void on_accept(const Header& header);
  [[nodiscard]] bool foreign(const Header& header) const;
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
  void poll(Time time);
  [[nodiscard]] Time deadline() const;
};

}  // namespace hetsp::comm
