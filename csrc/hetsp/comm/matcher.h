// Which receive gets which message. As in torch.distributed and MPI: the messages of one pair and tag meet the receives of that
// source and tag in the order in which both were posted; a receive from any source takes what arrived first. Offers travel by
// several ways, so they are put back into the order of their transfer numbers, which count all messages of a pair, before they
// are matched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hetsp/comm/transport.h"

namespace hetsp::comm {

constexpr int any_source = -1;

struct Posted {  // a receive
  Operation operation = 0;  // 0: it was given up for good; the message that meets it is refused
  int peer = any_source;
  std::int64_t tag = 0;
  std::span<std::byte> bytes = {};
  std::uint16_t type = 0;
};

struct Offered {  // a message
  int source = 0;
  std::uint64_t transfer = 0;  // 1, 2, ... among those of its pair
  std::int64_t tag = 0;
  std::uint64_t bytes = 0;
  std::uint16_t type = 0;
  bool eager = false;  // `payload` is all of it
  bool canceled = false;
  std::vector<std::byte> payload = {};
};

class Matcher {
 public:
  using Match = std::pair<Offered, Posted>;

  explicit Matcher(int ranks) : next_(static_cast<std::size_t>(ranks), 1), early_(static_cast<std::size_t>(ranks)) {}

  // Matches that the offer makes possible, its own and those of later ones that waited for it. An offer seen before makes none.
  std::vector<Match> arrive(Offered offer);
  // The message that the receive gets at once, if one waits. Else it is kept.
  std::optional<Match> post(const Posted& receive);

  [[nodiscard]] bool seen(int source, std::uint64_t transfer) const;
  void cancel(int source, std::uint64_t transfer);  // whoever receives it shall learn that it was canceled
  std::optional<Posted> withdraw(Operation operation);
  void refuse(const Posted& withdrawn);  // a message that would have met it is to be refused: that is nobody's receive
  std::vector<Posted> withdraw_all();
  std::vector<Posted> withdraw_from(int source);  // those that name this source
  [[nodiscard]] bool empty() const { return receives_.empty(); }

 private:
  struct Tag {
    std::deque<Posted> receives;  // as posted
    std::deque<Offered> offers;  // as put in order; one of the two is empty, but for receives of other sources
  };
  std::optional<Match> match(Offered& offer);

  std::vector<std::uint64_t> next_;  // [ranks] the transfer whose turn it is
  std::vector<std::map<std::uint64_t, Offered>> early_;  // [ranks] offers that came before their turn
  std::unordered_map<std::int64_t, Tag> tags_;  // no entry holds two empty queues
  std::unordered_map<Operation, std::int64_t> receives_;  // tags of receives that wait
};

}  // namespace hetsp::comm
