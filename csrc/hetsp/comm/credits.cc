#include "hetsp/comm/credits.h"

#include <algorithm>

namespace hetsp::comm {

Lender::Asker* Lender::find(int rank) {
  const auto asker = std::find_if(askers_.begin(), askers_.end(), [&](const Asker& known) { return known.rank == rank; });
  return asker == askers_.end() ? nullptr : &*asker;
}

void Lender::want(int asker, std::size_t chunks, bool home) {
  Asker* known = find(asker);
  if (known == nullptr) known = &askers_.emplace_back(Asker{.rank = asker, .home = home});
  known->wanted += chunks;
}

void Lender::withdraw(int asker) {
  if (Asker* known = find(asker)) known->wanted = 0;
}

void Lender::give_back(int asker, std::size_t chunks) {
  if (Asker* known = find(asker)) known->granted -= std::min(known->granted, chunks);
}

void Lender::arrived(int asker) { give_back(asker, 1); }

void Lender::forget(int asker) {
  std::erase_if(askers_, [&](const Asker& known) { return known.rank == asker; });
}

void Lender::clear() { askers_.clear(); }

std::optional<int> Lender::next(bool own, bool lend) {
  if (own && find(self) == nullptr) askers_.push_front(Asker{.rank = self, .home = true});
  for (const bool home : {true, false}) {
    if (!home && own) break;
    for (const Asker& asker : askers_) {
      if (asker.home != home) continue;
      if (asker.rank == self ? own : lend && asker.wanted > 0) return asker.rank;
    }
  }
  return std::nullopt;
}

void Lender::grant(int asker) {
  const auto known = std::find_if(askers_.begin(), askers_.end(), [&](const Asker& one) { return one.rank == asker; });
  if (known == askers_.end()) return;
  Asker turn = *known;
  askers_.erase(known);
  if (asker != self) {
    --turn.wanted;
    ++turn.granted;
  }
  lent_ = turn.home ? 0 : lent_ + 1;
  askers_.push_back(turn);
}

std::size_t Lender::lends(std::size_t first, std::size_t now) const { return first + lent_ - std::min(lent_, now); }

std::size_t Lender::granted() const {
  std::size_t sum = 0;
  for (const Asker& asker : askers_) sum += asker.granted;
  return sum;
}

bool Lender::wanted() const {
  return std::any_of(askers_.begin(), askers_.end(), [](const Asker& asker) { return asker.wanted > 0; });
}

std::size_t Purse::ask(std::size_t desire) {
  const std::size_t target = std::min(desire, kMostAsked);
  // Asked for in halves, so that one message serves several chunks.
  if (asked_ + credit_ >= target || (asked_ > 0 && 2 * (asked_ + credit_) > target)) return 0;
  const std::size_t more = target - asked_ - credit_;
  asked_ += more;
  return more;
}

bool Purse::withdraw() {
  const bool open = asked_ > 0;
  asked_ = 0;
  return open;
}

void Purse::granted(std::size_t chunks) {
  asked_ -= std::min(asked_, chunks);
  credit_ += chunks;
}

bool Purse::spend() {
  if (credit_ == 0) return false;
  --credit_;
  return true;
}

std::size_t Purse::give_back() {
  const std::size_t all = credit_;
  credit_ = 0;
  return all;
}

}  // namespace hetsp::comm
