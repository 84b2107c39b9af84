#include "hetsp/comm/engine.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "hetsp/base/error.h"
#include "hetsp/comm/endpoint.h"

namespace hetsp::comm {

namespace {

constexpr std::size_t kEagerFloor = 64;  // bytes that an eager message counts at least: what its header takes

}  // namespace

struct Engine::State : Endpoint {
  using Endpoint::Endpoint;
};

Engine::Engine(const Topology& topology, int rank, const EngineOptions& options, Transport& transport, Time now) {
  require(rank >= 0 && rank < topology.ranks(), "rank ", rank, " is not in a group of ", topology.ranks());
  require(options.chunk_bytes > 0, "chunk_bytes is 0, must be at least 1");
  require(options.rail_eager_bytes <= options.chunk_bytes, "rail_eager_bytes is ", options.rail_eager_bytes,
          ", must be no more than chunk_bytes, which is ", options.chunk_bytes);
  state_ = std::make_unique<State>(topology, rank, options, transport, now);
}

Engine::~Engine() = default;

void Engine::send(Operation operation, int peer, std::int64_t tag, std::span<const std::byte> bytes, std::uint16_t type) {
  State& state = *state_;
  state.begin(operation, true, peer);
  if (state.refused(operation, peer)) return;
  const auto to = static_cast<std::size_t>(peer);
  std::size_t& waiting = state.eager_waiting[to];
  const std::size_t counted = std::max(bytes.size(), kEagerFloor);
  const bool eager = bytes.size() <= state.eager_limit(peer) && waiting + counted <= state.options.eager_window &&
                     (bytes.empty() || !is_on_device(type));
  const std::size_t window = std::max<std::size_t>(2, state.options.message_window / state.options.chunk_bytes);
  auto message = std::make_unique<Outgoing>(eager ? 0 : bytes.size(), state.options.chunk_bytes, window);
  message->operation = operation;
  message->destination = peer;
  message->transfer = ++state.transfers[to];
  message->tag = tag;
  message->bytes = bytes;
  message->size = bytes.size();
  message->type = type;
  message->eager_bytes = eager ? counted : 0;
  message->spread = !eager && state.spreads(peer, bytes.size());
  waiting += message->eager_bytes;
  if (eager)
    ++state.counts.eager;
  else if (state.topology.same_node(state.rank, peer))
    ++state.counts.local;
  else
    ++(message->spread ? state.counts.spread : state.counts.direct);
  state.open.at(operation).transfer = message->transfer;
  const Header header{.flags = eager ? kEager : std::uint8_t{0}, .value = bytes.size(), .tag = tag, .type = type};
  const std::uint64_t transfer = message->transfer;
  state.out[to].emplace(transfer, std::move(message));
  state.reply(Kind::offer, peer, transfer, header, eager ? bytes : std::span<const std::byte>{});
}

void Engine::receive(Operation operation, int peer_or_any, std::int64_t tag, std::span<std::byte> bytes, std::uint16_t type) {
  State& state = *state_;
  state.begin(operation, false, peer_or_any);
  if (state.lost_rank >= 0 || state.left) {
    state.refused(operation, peer_or_any);
    return;
  }
  const Posted posted{operation, peer_or_any, tag, bytes, type};
  if (auto match = state.matcher.post(posted)) return state.meet(*match);
  // A message of a rank that has left may be here; a later one never comes.
  if (peer_or_any != any_source && state.gone(peer_or_any) && !state.leaving.contains(peer_or_any)) {
    state.matcher.withdraw(operation);
    state.refused(operation, peer_or_any);
  }
}

void Engine::send_given_up(int peer, std::int64_t tag, std::size_t bytes, std::uint16_t type) {
  State& state = *state_;
  state.require_peer(peer, true);
  if (state.lost_rank >= 0 || state.left || state.gone(peer)) return;
  state.reply(Kind::offer, peer, ++state.transfers[static_cast<std::size_t>(peer)],
              {.flags = kGivenUp, .value = bytes, .tag = tag, .type = type});
}

void Engine::cancel(Operation operation, const std::string& why, bool for_good) {
  State& state = *state_;
  const auto found = state.open.find(operation);
  if (found == state.open.end()) return;
  const State::Open known = found->second;
  const Outcome outcome{Outcome::Kind::aborted, why};
  if (known.sending) {
    state.reply(Kind::cancel, known.peer, known.transfer);
    return state.end_outgoing(known.peer, known.transfer, outcome);
  }
  if (const auto posted = state.matcher.withdraw(operation)) {
    if (for_good) state.matcher.refuse(*posted);
    return state.complete(operation, outcome);
  }
  state.reply(Kind::refuse, known.peer, known.transfer, {.flags = kEnded});
  state.end_incoming(known.peer, known.transfer, outcome);
}

int Engine::source_of(Operation operation) const {
  const auto found = state_->sources.find(operation);
  require(found != state_->sources.end(), "operation ", operation, " is no receive from any source that has met its message");
  const int source = found->second;
  state_->sources.erase(found);
  return source;
}

void Engine::on_frame(Link link, const Header& header, Arrival arrival, std::span<const std::byte> payload) {
  state_->on_frame(link, header, arrival, payload);
}

void Engine::on_sent(Token token) { state_->courier.sent(token); }

void Engine::on_stored(Token token) { state_->on_stored(token); }

void Engine::on_link_up(Link link, std::uint16_t generation) { state_->courier.connected(link, generation, state_->now); }

void Engine::on_link_broken(Link link, const std::string& why) {
  State& state = *state_;
  if (state.routes.is_gone(link.peer)) return;
  if (link.stage == Stage::rail) return state.courier.broken(link, state.now);
  state.lose(link.peer,
             concat(link.stage == Stage::local ? "local" : "control", " connection of rank ", state.rank, ": ", why));
}

void Engine::lose(int rank, const std::string& why) { state_->lose(rank, why); }

void Engine::leave() {
  if (state_->left && !state_->carries) return;
  cancel_all();
  state_->say_goodbye(false);
}

void Engine::retire() {
  if (state_->left) return;
  cancel_all();
  state_->say_goodbye(true);
}

void Engine::cancel_all() {
  std::vector<Operation> all;
  for (const auto& [operation, _] : state_->open) all.push_back(operation);
  for (const Operation operation : all) cancel(operation, "this rank left the group");
}

bool Engine::needed() const { return state_->needed(); }

void Engine::now(Time time) {
  state_->now = time;
  state_->courier.now(time);
}

void Engine::poll(Time now) { state_->poll(now); }

Time Engine::deadline() const { return state_->deadline(); }

bool Engine::idle() const {
  return state_->courier.idle() && state_->goodbyes.empty() && state_->stores.empty() && state_->open.empty();
}

Statistics Engine::statistics() const {
  Statistics all = state_->counts;
  state_->courier.count(all);
  return all;
}

}  // namespace hetsp::comm
