#include "hetsp/comm/receiving.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>
#include <utility>

#include "hetsp/base/error.h"
#include "hetsp/comm/sending.h"

namespace hetsp::comm {

namespace {

constexpr std::size_t kTellChunks = 16;  // stored chunks that are told to the source together
constexpr Time kTellDelay = 5'000'000;  // or after this time

}  // namespace

Receiving::Receiving(Self& self)
    : self_(self),
      matcher_(self.topology.ranks()),
      in_(static_cast<std::size_t>(self.topology.ranks())),
      canceled_early_(static_cast<std::size_t>(self.topology.ranks())) {}

bool Receiving::begin(const Posted& receive) {
  auto match = matcher_.post(receive);
  if (match) meet(*match);
  return match.has_value();
}

void Receiving::cancel(Operation operation, const Operations::Open& known, const Outcome& outcome, bool for_good) {
  if (const auto posted = matcher_.withdraw(operation)) {
    if (for_good) matcher_.refuse(*posted);
    return self_.operations.complete(operation, outcome);
  }
  const int peer = known.peer;
  const std::uint64_t transfer = known.transfer;
  self_.reply(Kind::refuse, peer, transfer, {.flags = kEnded});
  end(peer, transfer, outcome);
}

bool Receiving::withdraw(Operation operation) { return matcher_.withdraw(operation).has_value(); }

int Receiving::take_source(Operation operation) {
  const auto found = sources_.find(operation);
  require(found != sources_.end(), "operation ", operation, " is no receive from any source that has met its message");
  const int source = found->second;
  sources_.erase(found);
  return source;
}

const Incoming* Receiving::find(int peer, std::uint64_t transfer) const {
  const auto& messages = in_[static_cast<std::size_t>(peer)];
  const auto found = messages.find(transfer);
  return found == messages.end() ? nullptr : &found->second;
}

const std::set<std::uint64_t>& Receiving::canceled_early(int source) const {
  return canceled_early_.at(static_cast<std::size_t>(source));
}

void Receiving::end(int peer, std::uint64_t transfer, const Outcome& outcome) {
  auto& messages = in_[static_cast<std::size_t>(peer)];
  const auto found = messages.find(transfer);
  if (found == messages.end()) return;
  Incoming& message = found->second;
  to_tell_.erase({peer, transfer});
  if (!message.ended) message.outcome = outcome;
  message.ended = true;
  if (message.storing > 0) return;
  const Operation operation = message.operation;
  const Outcome result = message.outcome;
  messages.erase(found);
  if (result.kind == Outcome::Kind::done) ++self_.counts.messages_received;
  self_.operations.complete(operation, result);
}

void Receiving::meet(Matcher::Match& match) {
  auto& [offer, receive] = match;
  if (receive.operation == 0) {
    if (!offer.canceled) self_.reply(Kind::refuse, offer.source, offer.transfer, {.flags = kEnded});
    return;
  }
  Operations::Open* const opened = self_.operations.find(receive.operation);
  if (opened == nullptr) return;
  opened->transfer = offer.transfer;
  if (receive.peer == any_source) {
    opened->peer = offer.source;
    sources_[receive.operation] = offer.source;
  }
  const auto complete = [&, operation = receive.operation](const Outcome& outcome) {
    self_.operations.complete(operation, outcome);
  };
  const std::string which = concat("transfer ", offer.transfer, " from rank ", offer.source, " to rank ", self_.rank);
  if (offer.canceled) return complete({Outcome::Kind::aborted, concat(which, " was aborted by rank ", offer.source)});
  if (offer.bytes != receive.bytes.size()) {
    self_.reply(Kind::refuse, offer.source, offer.transfer, {.flags = kWrongSize, .value = receive.bytes.size()});
    return complete({Outcome::Kind::invalid, concat(which, " has ", offer.bytes, " bytes, its receive ", receive.bytes.size(),
                                                    ": they must be equal")});
  }
  if (offer.type != receive.type) {
    self_.reply(Kind::refuse, offer.source, offer.transfer, {.flags = kWrongType, .type = receive.type});
    return complete({Outcome::Kind::invalid, concat(which, " has elements of type code ", offer.type,
                                                    ", its receive of type code ", receive.type, ": they must be equal")});
  }
  if (offer.eager || offer.bytes == 0) {
    if (!offer.payload.empty()) std::memcpy(receive.bytes.data(), offer.payload.data(), offer.payload.size());
    self_.reply(Kind::fin, offer.source, offer.transfer);
    ++self_.counts.messages_received;
    return complete({});
  }
  in_[static_cast<std::size_t>(offer.source)].emplace(offer.transfer, Incoming(offer, receive, self_.options.chunk_bytes));
  self_.reply(Kind::accept, offer.source, offer.transfer);
}

void Receiving::on_offer(const Header& header, std::span<const std::byte> payload) {
  if (matcher_.seen(header.source, header.transfer)) {
    ++self_.counts.duplicates_dropped;
    return;
  }
  Offered offer{.source = header.source,
                .transfer = header.transfer,
                .tag = header.tag,
                .bytes = header.value,
                .type = header.type,
                .eager = (header.flags & kEager) != 0,
                .canceled = canceled_early_[header.source].erase(header.transfer) > 0 || (header.flags & kGivenUp) != 0,
                .payload = {payload.begin(), payload.end()}};
  // Not of ours, the sender never makes one: of another size, or one that a CPU would copy into a device's memory.
  if (offer.payload.size() != (offer.eager ? offer.bytes : 0) || (!offer.payload.empty() && is_on_device(offer.type))) return;
  for (Matcher::Match& match : matcher_.arrive(std::move(offer))) meet(match);
}

void Receiving::on_cancel(const Header& header) {
  if (in_[header.source].contains(header.transfer))
    return end(header.source, header.transfer,
               {Outcome::Kind::aborted, concat("transfer ", header.transfer, " from rank ", header.source, " to rank ",
                                               self_.rank, " was aborted by rank ", header.source)});
  if (matcher_.seen(header.source, header.transfer))
    matcher_.cancel(header.source, header.transfer);
  else
    canceled_early_[header.source].insert(header.transfer);
  if (auto& early = canceled_early_[header.source]; early.size() > kCanceledEarly) early.erase(std::prev(early.end()));
}

void Receiving::on_chunk(const Header& header, Arrival arrival) {
  const auto found = in_[header.source].find(header.transfer);
  std::byte* where = found == in_[header.source].end() || arrival == 0 ? nullptr : found->second.begin(header);
  if (where == nullptr) {
    ++self_.counts.duplicates_dropped;
    if (arrival != 0) self_.transport.release(arrival);
    return;
  }
  found->second.last_rail = header.rail;
  const Token token = ++stores_begun_;
  stores_.emplace(token, Store{arrival, header.source, header.transfer, header.chunk});
  self_.transport.store(arrival, where, token);
}

void Receiving::on_stored(Token token) {
  const auto begun = stores_.find(token);
  if (begun == stores_.end()) return;
  const Store store = begun->second;
  stores_.erase(begun);
  self_.transport.release(store.arrival);
  const auto found = in_[static_cast<std::size_t>(store.source)].find(store.transfer);
  if (found == in_[static_cast<std::size_t>(store.source)].end()) return;
  Incoming& message = found->second;
  if (message.fresh.empty()) message.told = self_.now;
  message.stored(store.chunk);
  if (message.ended) return end(store.source, store.transfer, message.outcome);
  if (message.complete()) {
    self_.reply(Kind::fin, store.source, store.transfer);
    return end(store.source, store.transfer, {});
  }
  to_tell_.insert({store.source, store.transfer});
}

void Receiving::tell(Time now) {
  for (auto key = to_tell_.begin(); key != to_tell_.end();) {
    Incoming& message = in_[static_cast<std::size_t>(key->first)].at(key->second);
    if (message.fresh.size() < kTellChunks && now - message.told < kTellDelay) {
      ++key;
      continue;
    }
    self_.reply(Kind::received, key->first, key->second, {}, std::as_bytes(std::span(message.fresh)));
    message.fresh.clear();
    key = to_tell_.erase(key);
  }
}

Time Receiving::deadline() const {
  Time first = std::numeric_limits<Time>::max();
  for (const auto& [peer, transfer] : to_tell_)
    first = std::min(first, in_[static_cast<std::size_t>(peer)].at(transfer).told + kTellDelay);
  return first;
}

void Receiving::fail_with(int peer, const std::string& text) {
  const auto& messages = in_[static_cast<std::size_t>(peer)];
  std::vector<std::uint64_t> transfers;
  for (const auto& [transfer, _] : messages) transfers.push_back(transfer);
  for (const std::uint64_t transfer : transfers) {
    const Incoming& message = messages.at(transfer);
    end(peer, transfer, self_.operations.peer_lost(text, message.operation, message.last_rail));
  }
  fail_posted(peer, text);
}

void Receiving::fail_posted(int peer, const std::string& text) { fail(matcher_.withdraw_from(peer), text); }

void Receiving::fail_posted(const std::string& text) { fail(matcher_.withdraw_all(), text); }

void Receiving::fail(const std::vector<Posted>& withdrawn, const std::string& text) {
  for (const Posted& receive : withdrawn)
    self_.operations.complete(receive.operation, self_.operations.peer_lost(text, receive.operation, -1));
}

}  // namespace hetsp::comm
