// The messages that a rank receives: an offer that meets a receive is answered accept (its chunks may come), fin (it was inside
// the offer) or refuse; what has been stored is told in bundles (received), the end once (fin), which alone ends the message at
// its source.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hetsp/comm/incoming.h"
#include "hetsp/comm/matcher.h"
#include "hetsp/comm/self.h"

namespace hetsp::comm {

class Receiving {
 public:
  // Transfers that were canceled before their offer came: so many of each rank at most, the next ones. What is dropped is
  // canceled again when it is accepted.
  static constexpr std::size_t kCanceledEarly = 1024;

  explicit Receiving(Self& self);

  bool begin(const Posted& receive);  // true: it has met its message
  // Ends it as `outcome`; on the other side too, if it has met a message. `for_good`: the message that it would meet is
  // refused.
  void cancel(Operation operation, const Operations::Open& known, const Outcome& outcome, bool for_good);
  bool withdraw(Operation operation);  // true: it had met nothing, and is posted no more
  [[nodiscard]] int take_source(Operation operation);  // of a receive from any source that is complete

  void on_offer(const Header& header, std::span<const std::byte> payload);
  void on_cancel(const Header& header);
  void on_chunk(const Header& header, Arrival arrival);  // releases it
  void on_stored(Token token);

  void tell(Time now);  // what is due of what has been stored
  [[nodiscard]] Time deadline() const;

  void fail_with(int peer, const std::string& text);  // messages of this rank, and receives that name it
  void fail_posted(int peer, const std::string& text);  // receives that have met nothing and name this rank, or any_source
  void fail_posted(const std::string& text);  // all that have met nothing

  [[nodiscard]] bool idle() const { return stores_.empty(); }  // no copy is under way
  [[nodiscard]] const Incoming* find(int peer, std::uint64_t transfer) const;  // null where it is over
  [[nodiscard]] const std::set<std::uint64_t>& canceled_early(int source) const;

 private:
  struct Store {
    Arrival arrival = 0;
    int source = 0;
    std::uint64_t transfer = 0;
    std::uint32_t chunk = 0;
  };

  void meet(Matcher::Match& match);
  // The user's memory is touched until the last copy into it has ended.
  void end(int peer, std::uint64_t transfer, const Outcome& outcome);
  void fail(const std::vector<Posted>& withdrawn, const std::string& text);

  Self& self_;
  Matcher matcher_;
  std::vector<std::map<std::uint64_t, Incoming>> in_;  // [ranks] by transfer
  std::unordered_map<Operation, int> sources_;  // of receives from any source that are complete
  std::unordered_map<Token, Store> stores_;
  Token stores_begun_ = 0;
  std::set<std::pair<int, std::uint64_t>> to_tell_;  // incoming messages with chunks not told
  std::vector<std::set<std::uint64_t>> canceled_early_;  // [ranks]
};

}  // namespace hetsp::comm
