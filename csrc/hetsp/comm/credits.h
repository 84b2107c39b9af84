// Room on a rail, lent by its owner to the other ranks of its node.
//
// A source that has chunks for a rail of somebody else asks for room (Kind::want); the owner grants one chunk at a time (Kind::
// grant) while its window has room that its own messages do not need, round robin among those who ask. So a rail whose owner is
// busy is never lent, with every rail busy all traffic goes direct, and a relay never holds more than it has granted. Both ends
// count the same things because the node's own connections lose and reorder nothing.
//
// A rail that its owner has used is lent slowly, as TCP opens its window (slow start, RFC 5681): a chunk, and one more for each
// that is through. Of equal messages that begin together one is always first, and all its neighbours' windows would otherwise
// be full of it when they begin a moment later.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

namespace hetsp::comm {

// At the owner, for one rail.
class Lender {
 public:
  static constexpr int self = -1;

  // `home`: the rail is the asker's own way out too (more ranks than NICs), so it takes turns with the owner.
  void want(int asker, std::size_t chunks, bool home);
  void withdraw(int asker);  // wants no more; keeps what it was granted
  void give_back(int asker, std::size_t chunks);  // granted and not needed
  void arrived(int asker);  // a granted chunk is here
  void forget(int asker);  // it has left
  void clear();  // the rail is down: all that was granted is void

  // Whose turn it is: `self` only if `own` messages wait, an asker from another rail only if none do.
  [[nodiscard]] std::optional<int> next(bool own, bool lend);
  void grant(int asker);

  // How many chunks of askers from other rails may be granted or on the wire when `now` of them are; `first` to begin with.
  [[nodiscard]] std::size_t lends(std::size_t first, std::size_t now) const;

  [[nodiscard]] std::size_t granted() const;  // chunks granted and not here yet
  [[nodiscard]] bool wanted() const;

 private:
  struct Asker {
    int rank = self;
    bool home = false;
    std::size_t wanted = 0, granted = 0;
  };
  Asker* find(int rank);
  std::deque<Asker> askers_;  // in the order of their turns
  std::size_t lent_ = 0;  // chunks granted to askers from other rails since one of those at home had a turn
};

// At the source, for one rail of somebody else.
class Purse {
 public:
  // What to ask for so that up to `desire` chunks are asked for or granted: 0 where enough is on its way.
  [[nodiscard]] std::size_t ask(std::size_t desire);
  [[nodiscard]] bool withdraw();  // whether there is something to withdraw; nothing is asked for afterwards
  void granted(std::size_t chunks);
  [[nodiscard]] std::size_t credit() const { return credit_; }
  [[nodiscard]] std::size_t asked() const { return asked_; }
  bool spend();  // one chunk; false without credit
  [[nodiscard]] std::size_t give_back();  // all credit
  void clear() { asked_ = credit_ = 0; }

 private:
  static constexpr std::size_t kMostAsked = 16;  // chunks: enough for the longest turn-around, little to withdraw
  std::size_t asked_ = 0, credit_ = 0;
};

}  // namespace hetsp::comm
