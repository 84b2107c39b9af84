#include "hetsp/comm/engine.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "hetsp/base/error.h"
#include "hetsp/comm/endpoint.h"
#include "hetsp/comm/report.h"

namespace hetsp::comm {

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
  state.operations.begin(operation, true, peer, state.now);
  if (!state.refused(operation, peer)) state.sending.begin(operation, peer, tag, bytes, type);
}

void Engine::receive(Operation operation, int peer_or_any, std::int64_t tag, std::span<std::byte> bytes, std::uint16_t type) {
  State& state = *state_;
  state.operations.begin(operation, false, peer_or_any, state.now);
  if (state.lost_rank >= 0 || state.left) {
    state.refused(operation, peer_or_any);
    return;
  }
  if (state.receiving.begin({operation, peer_or_any, tag, bytes, type})) return;
  // A message of a rank that has left may be here; a later one never comes.
  if (peer_or_any != any_source && state.gone(peer_or_any) && !state.leaving.contains(peer_or_any)) {
    state.receiving.withdraw(operation);
    state.refused(operation, peer_or_any);
  }
}

void Engine::send_given_up(int peer, std::int64_t tag, std::size_t bytes, std::uint16_t type) {
  State& state = *state_;
  state.operations.require_peer(peer, true);
  if (state.lost_rank < 0 && !state.left && !state.gone(peer)) state.sending.begin_given_up(peer, tag, bytes, type);
}

void Engine::cancel(Operation operation, const std::string& why, bool for_good) {
  State& state = *state_;
  const Operations::Open* const found = state.operations.find(operation);
  if (found == nullptr) return;
  const Operations::Open known = *found;
  const Outcome outcome{Outcome::Kind::aborted, why};
  if (known.sending)
    state.sending.cancel(known, outcome);
  else
    state.receiving.cancel(operation, known, outcome, for_good);
}

int Engine::source_of(Operation operation) const { return state_->receiving.take_source(operation); }

void Engine::on_frame(Link link, const Header& header, Arrival arrival, std::span<const std::byte> payload) {
  state_->on_frame(link, header, arrival, payload);
}

void Engine::on_sent(Token token) { state_->courier.sent(token); }

void Engine::on_stored(Token token) { state_->receiving.on_stored(token); }

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
  for (const Operation operation : state_->operations.all()) cancel(operation, "this rank left the group");
}

bool Engine::needed() const { return state_->needed(); }

void Engine::now(Time time) {
  state_->now = time;
  state_->courier.now(time);
}

void Engine::poll(Time now) { state_->poll(now); }

Time Engine::deadline() const { return state_->deadline(); }

bool Engine::idle() const {
  return state_->courier.idle() && state_->goodbyes.empty() && state_->receiving.idle() && state_->operations.empty();
}

Statistics Engine::statistics() const {
  Statistics all = state_->counts;
  state_->courier.count(all);
  return all;
}

std::string Engine::report() const { return Report::of(*state_); }

}  // namespace hetsp::comm
