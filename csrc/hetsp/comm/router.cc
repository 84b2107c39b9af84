#include "hetsp/comm/router.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hetsp/base/ceil_div.h"

namespace hetsp::comm {

namespace {

constexpr std::uint8_t kWithdraw = 1, kGiveBack = 2;   // of Kind::want
constexpr std::uint8_t kUp = 1, kOtherEnd = 2;         // of Kind::rail
constexpr std::size_t kEnough = 256;  // chunks that wait: more make no difference
constexpr std::size_t kDepth = 2;     // chunks under way that keep a rail busy
constexpr double kTurnAround = 6e-3;                   // seconds from a grant to its chunk, on a busy node
constexpr double kUnknown = 0.1;  // seconds before a chunk is late while nothing has been measured
constexpr std::uint16_t kMostCopies = 6;               // of a chunk, by lateness
constexpr Time kTick = 5'000'000;                      // between looks at what is late

double seconds(Time time) { return static_cast<double>(time) * 1e-9; }

}  // namespace

Router::Router(const Topology& topology, int rank, std::size_t chunk_bytes, RouteTable& routes, Courier& courier,
               Statistics& statistics)
    : topology_(topology),
      rank_(rank),
      node_(topology.node_of(rank)),
      chunk_bytes_(chunk_bytes),
      routes_(routes),
      courier_(courier),
      statistics_(statistics) {
  for (int node = 0; node < topology.nodes(); ++node) {
    if (node == node_) continue;
    for (int rail = 0; rail < topology.rails(node_, node); ++rail) {
      if (routes.owns(node, rail))
        lenders_[{node, rail}];
      else
        purses_[{node, rail}];
    }
  }
}

void Router::add(Outgoing& message) {
  const int node = topology_.node_of(message.destination);
  active_[node].insert(&message);
  if (message.spread) spread_[node].insert(&message);
  enqueue(message);
}

void Router::enqueue(Outgoing& message) {
  if (message.queued || message.waiting() == 0) return;
  message.queued = true;
  const int node = topology_.node_of(message.destination);
  if (node == node_)
    local_[message.destination].push_back(&message);
  else
    (message.spread ? queues_[node].spread : queues_[node].direct).push_back(&message);
}

void Router::remove(Outgoing& message) {
  const int node = topology_.node_of(message.destination);
  active_[node].erase(&message);
  spread_[node].erase(&message);
  for (const auto& [_, flight] : message.flights())
    if (flight.rail != local_rail) --under_way_[{node, flight.rail}];
  if (!message.queued) return;
  if (node == node_)
    std::erase(local_[message.destination], &message);
  else
    std::erase(message.spread ? queues_[node].spread : queues_[node].direct, &message);
  message.queued = false;
}

void Router::received(Outgoing& message, std::uint32_t chunk, Time now) {
  const auto flight = message.arrived(chunk);
  if (flight && flight->rail != local_rail) {
    const Key key{topology_.node_of(message.destination), flight->rail};
    --under_way_[key];
    if (flight->attempts == 1) {
      Delivery& delivery = deliveries_[key];
      const double sample = seconds(now - flight->sent);
      delivery.usual = delivery.usual == 0 ? sample : 0.75 * delivery.usual + 0.25 * sample;
      // The best of late: it creeps up, so that one lucky chunk is forgotten after some dozens.
      delivery.best = delivery.best == 0 ? sample : std::min(1.02 * delivery.best, sample);
    }
  }
  enqueue(message);
}

void Router::returned(Outgoing& message, std::uint32_t chunk, int rail) {
  if (!message.give_back(chunk, rail)) return;
  --under_way_[{topology_.node_of(message.destination), rail}];
  enqueue(message);
}

void Router::give_back_all(int node, int rail) {
  for (Outgoing* message : active_[node]) {
    const std::size_t back = message->give_back_all(rail);
    under_way_[{node, rail}] -= back;
    if (back > 0) enqueue(*message);
  }
}

void Router::on_want(const Header& header) {
  const auto lender = lenders_.find({static_cast<int>(header.value), header.rail});
  if (lender == lenders_.end()) return;
  if (header.flags == kWithdraw) return lender->second.withdraw(header.source);
  if (header.flags == kGiveBack) return lender->second.give_back(header.source, header.chunk);
  const bool home = routes_.home_of(header.source, static_cast<int>(header.value)) == header.rail;
  lender->second.want(header.source, header.chunk, home);
}

void Router::on_grant(const Header& header) {
  const auto purse = purses_.find({static_cast<int>(header.value), header.rail});
  if (purse != purses_.end()) purse->second.granted(header.chunk);
}

void Router::relayed(const Header& chunk, int asker) {
  const auto lender = lenders_.find({topology_.node_of(chunk.destination), chunk.rail});
  if (lender != lenders_.end()) lender->second.arrived(asker);
}

void Router::tell_node(int node, int rail, bool up) {
  for (const int rank : topology_.node(node_).ranks) {
    if (rank == rank_ || routes_.is_gone(rank)) continue;
    courier_.post({.kind = Kind::rail,
                   .flags = up ? kUp : std::uint8_t{0},
                   .value = static_cast<std::uint64_t>(node),
                   .destination = static_cast<std::uint16_t>(rank),
                   .rail = static_cast<std::uint16_t>(rail)});
  }
}

void Router::changed(const Courier::Change& change) {
  const Key key{change.node, change.rail};
  lenders_.at(key).clear();
  tell_node(change.node, change.rail, change.up);
  if (!change.reconnecting) return;
  courier_.post({.kind = Kind::rail,
                 .flags = kOtherEnd,
                 .value = static_cast<std::uint64_t>(node_),
                 .destination = static_cast<std::uint16_t>(topology_.owner(change.node, change.rail)),
                 .rail = static_cast<std::uint16_t>(change.rail),
                 .chunk = courier_.rail(change.node, change.rail)->generation()});
}

void Router::on_rail(const Header& header, Time now) {
  const auto node = static_cast<int>(header.value);
  if (header.flags == kOtherEnd) {
    const Rail* rail = node < topology_.nodes() && node != node_ ? courier_.rail(node, header.rail) : nullptr;
    if (rail != nullptr && rail->generation() == header.chunk) courier_.told_broken(node, header.rail, now);
    return;
  }
  const auto purse = purses_.find({node, header.rail});
  if (purse == purses_.end()) return;
  routes_.set_up(node, header.rail, header.flags == kUp);
  purse->second.clear();
  if (header.flags != kUp) give_back_all(node, header.rail);
}

void Router::gone(int rank) {
  for (auto& [_, lender] : lenders_) lender.forget(rank);
  for (auto& [key, purse] : purses_) {
    if (routes_.owner(key.second) != rank && topology_.owner(key.first, key.second) != rank) continue;
    purse.clear();
    give_back_all(key.first, key.second);
  }
}

bool Router::takes_direct(int node, int rail) const {
  const int home = routes_.home(node);
  return rail == home || !routes_.up(node, home);
}

std::optional<Router::Pick> Router::take_from(std::deque<Outgoing*>& queue, int rail, Time now) {
  while (!queue.empty()) {
    Outgoing* message = queue.front();
    queue.pop_front();
    const auto chunk = message->take(rail, now);
    if (message->waiting() > 0)
      queue.push_back(message);
    else
      message->queued = false;
    if (chunk) return Pick{message, *chunk};
  }
  return std::nullopt;
}

std::optional<Router::Pick> Router::next(int node, int rail, Time now) {
  Queue& queue = queues_[node];
  if (!takes_direct(node, rail)) return take_from(queue.spread, rail, now);
  queue.direct_turn = !queue.direct_turn;
  for (auto* one : {queue.direct_turn ? &queue.direct : &queue.spread, queue.direct_turn ? &queue.spread : &queue.direct})
    if (const auto pick = take_from(*one, rail, now)) return pick;
  return std::nullopt;
}

std::size_t Router::waiting(int node, int rail) const {
  const auto queue = queues_.find(node);
  if (queue == queues_.end()) return 0;
  std::size_t sum = 0;
  const auto add = [&](const std::deque<Outgoing*>& messages) {
    for (auto message = messages.begin(); message != messages.end() && sum < kEnough; ++message) sum += (*message)->waiting();
  };
  add(queue->second.spread);
  if (takes_direct(node, rail)) add(queue->second.direct);
  return std::min(sum, kEnough);
}

bool Router::takes(int node, int rail, std::size_t depth) const {
  const auto queue = queues_.find(node);
  if (queue == queues_.end()) return false;
  if (takes_direct(node, rail) && !queue->second.direct.empty()) return true;
  std::size_t left = 0;
  for (auto message = queue->second.spread.begin(); message != queue->second.spread.end() && left < kEnough; ++message)
    left += (*message)->left();
  const std::size_t rails = std::max<std::size_t>(1, routes_.living(node).size());
  return left > 0 && depth < std::max(kDepth, ceil_div(depth + left, rails));
}

double Router::soonest(int node, int rail) const {
  const auto known = deliveries_.find({node, rail});
  const double best = known == deliveries_.end() ? 0.0 : known->second.best;
  const Rail* own = courier_.rail(node, rail);
  if (own == nullptr || own->rate() == 0) return best;
  return std::max(best, static_cast<double>(own->in_flight() + chunk_bytes_) / own->rate());
}

// The chunk most worth a second copy over `rail`: one that such a copy would overtake by far, or that is overdue.
std::optional<Router::Pick> Router::late(int node, int rail, Time now) const {
  const auto messages = spread_.find(node);
  if (messages == spread_.end()) return std::nullopt;
  const double here = soonest(node, rail);
  std::optional<Pick> worst;
  double most = 0;
  for (Outgoing* message : messages->second) {
    if (!message->tail()) continue;
    for (const auto& [chunk, flight] : message->flights()) {
      if (flight.rail == rail || flight.attempts >= kMostCopies) continue;
      const auto known = deliveries_.find({node, flight.rail});
      const double age = seconds(now - flight.sent), usual = known == deliveries_.end() ? 0.0 : known->second.usual;
      const double ahead = usual - age;  // expected still
      const double first = here == 0 && usual == 0 ? kUnknown : 2 * here + 5e-3;
      const double patience = first * std::ldexp(1.0, flight.attempts - 1);
      // A rail three times as slow is slow; one and a half times is a queue, which copies would only lengthen.
      const bool overtaken = flight.attempts == 1 && here > 0 && usual > 3 * here && ahead > 1.5 * here + 2e-3;
      const bool overdue = age > patience && age > 2 * usual;
      const double gain = overdue ? age + usual : ahead;  // what is overdue comes first
      if ((!overtaken && !overdue) || gain <= most) continue;
      most = gain;
      worst = Pick{message, chunk};
    }
  }
  return worst;
}

void Router::send(const Pick& pick, Link link, int rail) {
  const auto& [message, chunk] = pick;
  const std::uint16_t attempt = message->attempt(chunk);
  if (rail != local_rail) ++under_way_[{topology_.node_of(message->destination), rail}];
  ++statistics_.chunks_sent;
  if (attempt > 0) ++statistics_.chunks_resent;
  courier_.chunk(link,
                 {.kind = Kind::chunk,
                  .transfer = message->transfer,
                  .value = message->offset(chunk),
                  .tag = message->tag,
                  .destination = static_cast<std::uint16_t>(message->destination),
                  .rail = static_cast<std::uint16_t>(std::max(rail, 0)),
                  .attempt = attempt,
                  .chunk = chunk,
                  .type = message->type},
                 message->piece(chunk));
}

void Router::copy(const Pick& pick, int rail, Time now) {
  const int before = pick.first->flights().at(pick.second).rail;
  --under_way_[{topology_.node_of(pick.first->destination), before}];
  pick.first->again(pick.second, rail, now);
}

void Router::pump_own(int node, int rail, Time now) {
  Rail* own = courier_.rail(node, rail);
  if (own == nullptr || !own->up() || !routes_.up(node, rail)) return;
  Lender& lender = lenders_.at({node, rail});
  const Link link{Stage::rail, topology_.owner(node, rail), rail};
  // A grant's chunk comes a little later, so a fast rail lends a little more than it has room for now.
  const double ahead = own->rate() == 0 ? 1.0 : std::round(own->rate() * kTurnAround / static_cast<double>(chunk_bytes_));
  const std::size_t slack = static_cast<std::size_t>(ahead), first = std::max<std::size_t>(1, slack);
  std::map<int, std::uint32_t> grants;
  for (;;) {
    const std::size_t promised = lender.granted() + courier_.waiting(node, rail);
    const std::size_t wire = ceil_div(own->in_flight(), chunk_bytes_);
    const std::size_t foreign = promised + wire - std::min(wire, under_way_[{node, rail}]);
    // What is granted does not hold up the owner: its asker may be slow, or stand still.
    const bool open = own->room() > 0;
    const bool lend = own->room() + slack * chunk_bytes_ > promised * chunk_bytes_ && foreign < lender.lends(first, foreign);
    const auto turn = lender.next(waiting(node, rail) > 0, lend);
    if (!turn) break;
    if (*turn == Lender::self) {
      if (!open || !takes(node, rail, ceil_div(own->in_flight(), chunk_bytes_))) break;
      const auto pick = next(node, rail, now);
      if (!pick) break;
      send(*pick, link, rail);
    } else {
      ++grants[*turn];
    }
    lender.grant(*turn);
  }
  for (const auto& [asker, chunks] : grants)
    courier_.post({.kind = Kind::grant,
                   .value = static_cast<std::uint64_t>(node),
                   .destination = static_cast<std::uint16_t>(asker),
                   .rail = static_cast<std::uint16_t>(rail),
                   .chunk = chunks});
  while (own->room() > (lender.granted() + courier_.waiting(node, rail)) * chunk_bytes_) {
    const auto pick = late(node, rail, now);
    if (!pick) break;
    copy(*pick, rail, now);
    send(*pick, link, rail);
  }
}

void Router::pump_lent(int node, int rail, Time now) {
  Purse& purse = purses_.at({node, rail});
  if (!routes_.up(node, rail)) return;
  const int owner = routes_.owner(rail);
  const auto say = [&](std::uint8_t flags, std::size_t chunks) {
    courier_.post({.kind = Kind::want,
                   .flags = flags,
                   .value = static_cast<std::uint64_t>(node),
                   .destination = static_cast<std::uint16_t>(owner),
                   .rail = static_cast<std::uint16_t>(rail),
                   .chunk = static_cast<std::uint32_t>(chunks)});
  };
  while (purse.credit() > 0 && courier_.local_room(owner)) {
    std::optional<Pick> pick;
    if (takes(node, rail, under_way_[{node, rail}])) {
      pick = next(node, rail, now);
    } else if (waiting(node, rail) == 0) {
      pick = late(node, rail, now);
      if (pick) copy(*pick, rail, now);
    }
    if (!pick) break;
    purse.spend();
    send(*pick, {Stage::local, owner, 0}, rail);
  }
  const std::size_t rails = std::max<std::size_t>(1, routes_.living(node).size());
  std::size_t desire = ceil_div(waiting(node, rail), takes_direct(node, rail) ? 1 : rails);
  if (desire == 0 && late(node, rail, now)) desire = 1;
  if (desire == 0) {
    if (const std::size_t unused = purse.give_back()) say(kGiveBack, unused);
    if (purse.withdraw()) say(kWithdraw, 0);
  } else if (const std::size_t more = purse.ask(desire)) {
    say(0, more);
  }
}

void Router::pump_local(Time now) {
  for (auto& [peer, queue] : local_) {
    while (courier_.local_room(peer)) {
      const auto pick = take_from(queue, local_rail, now);
      if (!pick) break;
      send(*pick, {Stage::local, peer, 0}, local_rail);
    }
  }
}

void Router::pump(Time now) {
  for (auto& [key, _] : lenders_) pump_own(key.first, key.second, now);
  for (auto& [key, _] : purses_) pump_lent(key.first, key.second, now);
  pump_local(now);
}

Time Router::deadline(Time now) const {
  for (const auto& [_, messages] : spread_)
    for (const Outgoing* message : messages)
      if (message->tail()) return now + kTick;
  return std::numeric_limits<Time>::max();
}

}  // namespace hetsp::comm
