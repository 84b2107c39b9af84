// The messages that a rank sends: from their offer until their destination says that all of it is there (fin), or that it will
// not have it (refuse), or this rank gives them up (cancel).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "hetsp/comm/outgoing.h"
#include "hetsp/comm/self.h"

namespace hetsp::comm {

constexpr std::uint8_t kEager = 1, kGivenUp = 2;  // of Kind::offer: the payload is all of it; there is no such message any more
constexpr std::uint8_t kWrongSize = 1, kWrongType = 2, kEnded = 3;  // of Kind::refuse

class Sending {
 public:
  explicit Sending(Self& self);

  void begin(Operation operation, int peer, std::int64_t tag, std::span<const std::byte> bytes, std::uint16_t type);
  void begin_given_up(int peer, std::int64_t tag, std::size_t bytes, std::uint16_t type);
  void cancel(const Operations::Open& known, const Outcome& outcome);

  bool on_accept(const Header& header);  // true: its chunks may go from now on
  void on_refuse(const Header& header);
  void on_received(const Header& header, std::span<const std::byte> payload);
  void on_fin(const Header& header);
  void on_returned(std::int64_t peer, std::uint64_t transfer, std::uint32_t chunk,
                   int rail);  // a chunk that a rail has not delivered

  void fail_with(int peer, const std::string& text);  // all messages to this rank
  void fail_large(int peer, const std::string& text);  // those that only rails can carry; the peer lives, and is told

  [[nodiscard]] const Outgoing* find(int peer, std::uint64_t transfer) const;  // null where it is over

 private:
  [[nodiscard]] std::size_t eager_limit(int peer) const;  // the largest message to it that travels inside its offer
  [[nodiscard]] bool spreads(int peer, std::size_t bytes) const;
  void end(int peer, std::uint64_t transfer, const Outcome& outcome);

  Self& self_;
  std::vector<std::uint64_t> transfers_;  // [ranks] messages sent to each
  std::vector<std::size_t> eager_waiting_;  // [ranks] bytes of eager messages that each has not received
  std::vector<std::map<std::uint64_t, std::unique_ptr<Outgoing>>> out_;  // [ranks] by transfer
};

}  // namespace hetsp::comm
