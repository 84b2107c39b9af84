#include "c10d/wire_transport.h"

#include <algorithm>
#include <cstring>

#include "hetsp/base/error.h"

namespace hetsp::routed {

namespace {

// Receives that are always posted. Gloo moves a message only once its receive is there, so on a rail they must cover what the
// wire holds; control messages are few.
constexpr int depth_of(comm::Stage stage) { return stage == comm::Stage::control ? 4 : 8; }

constexpr std::size_t small_payload = 4096;
constexpr std::size_t kept_buffers = 64;
constexpr int frames_at_once = 4;  // of one link in shared memory: then the rails and the users have their turn

// For a goodbye that is on its way over the local link when the control link breaks. A death ends the local link as well, but
// Gloo leaves the message that was half in when the connection broke waiting for ever: so its end may never be heard of.
constexpr auto last_words = std::chrono::milliseconds(600);

using Clock = std::chrono::steady_clock;

}  // namespace

WireTransport::WireTransport(std::size_t payload, std::size_t control_payload, Dialler dialler,
                             std::optional<SharedNode> shared, TaskQueue& events, Complete complete)
    : small_(std::make_shared<BufferPool>(small_payload, kept_buffers)),
      control_(std::make_shared<BufferPool>(control_payload, kept_buffers)),
      large_(std::make_shared<BufferPool>(payload, kept_buffers)),
      dialler_(std::move(dialler)),
      events_(events),
      complete_(std::move(complete)),
      node_(std::move(shared)) {}

WireTransport::~WireTransport() { close(); }

void WireTransport::start(comm::Listener& engine, std::vector<LinkEnd> links) {
  engine_ = &engine;
  if (node_) watch();
  for (LinkEnd& link : links) {
    End& end = ends_[key(link.link)];
    end.generation = link.generation;
    if (link.lane) {
      open(link.link, std::move(link.lane));
      if (link.link.stage == comm::Stage::rail) engine.on_link_up(link.link, link.generation);
    } else {
      invariant(link.link.stage == comm::Stage::rail, "a link that cannot be connected again has no lane");
      connect(link.link);
    }
  }
}

void WireTransport::watch() {
  std::vector<Sentinel::Watched> watched;
  for (const SharedNode::Neighbour& neighbour : node_->neighbours) {
    shared_.emplace(neighbour.rank, SharedLink(node_->from(neighbour), node_->to(neighbour)));
    watched.push_back({neighbour.rank, neighbour.watched});
  }
  sentinel_ = std::make_unique<Sentinel>(std::move(watched), [this](int peer) {
    events_.put([this, peer] {
      if (const auto found = shared_.find(peer); found != shared_.end()) found->second.gone = true;
    });
  });
}

void WireTransport::close() {
  engine_ = nullptr;
  shared_.clear();
  sentinel_.reset();
  if (dialler_.cancel) dialler_.cancel();
  for (auto& [_, end] : ends_) end.connector.reset();
  for (auto& [_, end] : ends_) end.wire.reset();
  ends_.clear();
}

WireTransport::End& WireTransport::end(comm::Link link) {
  const auto found = ends_.find(key(link));
  invariant(found != ends_.end(), "the engine asks for a link to rank ", link.peer, " that does not exist");
  return found->second;
}

bool WireTransport::current(comm::Link link, std::uint64_t incarnation) {
  return engine_ != nullptr && end(link).incarnation == incarnation;
}

void WireTransport::open(comm::Link link, std::unique_ptr<Lane> lane) {
  End& end = this->end(link);
  end.down = false;
  const std::uint64_t incarnation = ++end.incarnation;
  WireEvents reports;
  reports.arrived = [this, link, incarnation](std::shared_ptr<Buffer> buffer) {
    events_.put([this, link, incarnation, buffer = std::move(buffer)]() mutable {
      if (current(link, incarnation)) arrive(link, std::move(buffer));
    });
  };
  // What was sent over a rail or control link is acknowledged a little later, which wakes the driver anyway; of a local link
  // the engine waits for this alone.
  reports.sent = [this, quiet = link.stage != comm::Stage::local](comm::Token token) {
    auto task = [this, token] {
      if (engine_ != nullptr) engine_->on_sent(token);
    };
    if (quiet) {
      events_.put_quietly(std::move(task));
    } else {
      events_.put(std::move(task));
    }
  };
  reports.broken = [this, link, incarnation](const std::string& why) {
    events_.put([this, link, incarnation, why] {
      if (!current(link, incarnation)) return;
      // Inside a node the goodbye of a rank that leaves comes over the local link, whose end follows it; that of the control
      // link may overtake both.
      if (link.stage == comm::Stage::control && ends_.contains(key({comm::Stage::local, link.peer, 0})))
        suspects_.push_back({link, why, Clock::now() + last_words});
      else
        engine_->on_link_broken(link, why);
    });
  };
  end.wire = std::make_unique<Wire>(std::move(lane), link.stage == comm::Stage::control ? control_ : large_,
                                    depth_of(link.stage), std::move(reports));
}

void WireTransport::arrive(comm::Link link, std::shared_ptr<Buffer> buffer) {
  const comm::Header header = buffer->header();
  if (header.length == 0) return engine_->on_frame(link, header, 0, {});
  const comm::Arrival arrival = next_arrival_++;
  const std::span<std::byte> payload{buffer->payload(), header.length};
  arrivals_.emplace(arrival, Arrived{std::move(buffer), payload});
  engine_->on_frame(link, header, arrival, payload);
}

// The oldest frame of a link in shared memory. What the engine keeps of it moves out of the way of later ones: out of the ring
// always, out of a slot where those get scarce and no wire sends from it.
bool WireTransport::arrive(int peer, Shared& shared) {
  RingReader::Frame frame;
  if (!shared.link.take(frame)) return false;
  const comm::Link link{comm::Stage::local, peer, 0};
  if (frame.payload.empty() && frame.slot < 0) {
    engine_->on_frame(link, frame.header, 0, {});
    shared.link.next();
    return true;
  }
  const comm::Arrival arrival = next_arrival_++;
  if (frame.slot >= 0) shared.link.next();
  Arrived arrived{frame.slot < 0 ? nullptr : shared.link.slot(frame), frame.payload};
  const auto move_out = [this](Arrived& from) {
    std::shared_ptr<Buffer> buffer = large_->take();
    std::memcpy(buffer->payload(), from.payload.data(), from.payload.size());
    from.payload = {buffer->payload(), from.payload.size()};
    from.buffer = std::move(buffer);
  };
  if (frame.slot >= 0 && frame.header.destination != node_->rank && shared.link.scarce()) move_out(arrived);
  const auto [entry, _] = arrivals_.emplace(arrival, std::move(arrived));
  engine_->on_frame(link, frame.header, arrival, entry->second.payload);
  deliver();
  if (const auto kept = arrivals_.find(arrival); kept != arrivals_.end()) {
    const std::shared_ptr<Buffer>& buffer = kept->second.buffer;
    if (buffer == nullptr || (shared.link.scarce() && buffer.use_count() == 1)) move_out(kept->second);
  }
  if (frame.slot < 0) shared.link.next();
  return true;
}

bool WireTransport::ready() const {
  return std::any_of(shared_.begin(), shared_.end(),
                     [](const auto& entry) { return !entry.second.told && (entry.second.gone || entry.second.link.ready()); });
}

void WireTransport::receive() {
  for (auto& [peer, shared] : shared_) {
    if (shared.told) continue;
    shared.link.flush(sent_);
    const bool gone = shared.gone;
    bool more = true;
    for (int i = 0; i < frames_at_once && more; ++i) more = arrive(peer, shared);
    std::string why = shared.link.failure();
    if (why.empty() && gone && !more) why = "the other end was closed";
    if (why.empty()) continue;
    shared.told = true;
    shared.link.end(sent_);
    engine_->on_link_broken({comm::Stage::local, peer, 0}, why);
  }
}

void WireTransport::transmit(comm::Link link, std::shared_ptr<Buffer> buffer, std::size_t payload, comm::Token token) {
  End& end = this->end(link);
  if (end.down) {
    sent_.push_back(token);
  } else {
    end.wire->send(std::move(buffer), payload, token);
  }
}

void WireTransport::send(comm::Link link, const comm::Header& header, std::span<const std::byte> payload, comm::Token token) {
  const auto& pool = payload.size() <= small_->payload() ? small_ : payload.size() <= control_->payload() ? control_ : large_;
  invariant(payload.size() <= pool->payload(), "a frame of ", payload.size(), " bytes is too large");
  comm::Header out = header;
  out.length = static_cast<std::uint32_t>(payload.size());
  if (const auto shared = shared_.find(link.peer); link.stage == comm::Stage::local && shared != shared_.end()) {
    return shared->second.link.send(out, payload, token, sent_);
  }
  std::shared_ptr<Buffer> buffer = pool->take();
  buffer->set_header(out);
  if (!payload.empty()) std::memcpy(buffer->payload(), payload.data(), payload.size());
  transmit(link, std::move(buffer), payload.size(), token);
}

void WireTransport::forward(comm::Link link, const comm::Header& header, comm::Arrival arrival, comm::Token token) {
  const auto& [buffer, payload] = arrivals_.at(arrival);
  const std::size_t length = payload.size();
  const bool in_memory = link.stage == comm::Stage::local && shared_.contains(link.peer);
  // Held here alone: no other forward of it is under way, so its own buffer may carry the new header.
  if (in_memory || buffer == nullptr || buffer.use_count() > 1) return send(link, header, payload, token);
  comm::Header out = header;
  out.length = static_cast<std::uint32_t>(length);
  buffer->set_header(out);
  transmit(link, buffer, length, token);
}

void WireTransport::store(comm::Arrival arrival, std::byte* destination, comm::Token token) {
  const std::span<std::byte> payload = arrivals_.at(arrival).payload;
  if (!payload.empty()) std::memcpy(destination, payload.data(), payload.size());
  stored_.push_back(token);
}

void WireTransport::release(comm::Arrival arrival) { arrivals_.erase(arrival); }

void WireTransport::reset(comm::Link link) {
  invariant(link.stage == comm::Stage::rail, "only rails can be connected again");
  if (!end(link).down) connect(link);
}

void WireTransport::connect(comm::Link link) {
  End& end = this->end(link);
  end.down = true;
  const std::uint64_t incarnation = ++end.incarnation;
  end.connector.reset();  // has connected the wire that goes now: does not wait
  auto connected = [this, link, incarnation](Connection connection) {
    auto shared = std::make_shared<Connection>(std::move(connection));  // a task is copyable
    events_.put([this, link, incarnation, shared] {
      if (!current(link, incarnation)) return;
      End& now = this->end(link);
      now.generation = shared->generation;
      open(link, std::move(shared->lane));
      engine_->on_link_up(link, now.generation);
    });
  };
  end.connector = std::make_unique<Connector>(dialler_, link, end.generation, std::move(end.wire), std::move(connected));
}

void WireTransport::complete(comm::Operation operation, const comm::Outcome& outcome) { complete_(operation, outcome); }

void WireTransport::poll(Clock::time_point now) {
  for (; !suspects_.empty() && suspects_.front().until <= now; suspects_.pop_front()) {
    if (engine_ != nullptr) engine_->on_link_broken(suspects_.front().link, suspects_.front().why);
  }
}

Clock::time_point WireTransport::deadline() const {
  return suspects_.empty() ? Clock::time_point::max() : suspects_.front().until;
}

bool WireTransport::deliver() {
  if (sent_.empty() && stored_.empty()) return false;
  for (const comm::Token token : std::exchange(sent_, {})) engine_->on_sent(token);
  for (const comm::Token token : std::exchange(stored_, {})) engine_->on_stored(token);
  return true;
}

std::string WireTransport::report() const {
  std::string text;
  for (const auto& [peer, shared] : shared_)
    text += concat("  memory shared with rank ", peer, shared.gone ? " (gone): " : ": ", shared.link.report(), "\n");
  for (const auto& [key, end] : ends_) {
    const auto& [stage, peer, rail] = key;
    if (stage == comm::Stage::rail && end.down)
      text += concat("  rail ", rail, " to rank ", peer, " is being connected, after generation ", end.generation, "\n");
  }
  return text + concat("  ", arrivals_.size(), " payloads held\n");
}

}  // namespace hetsp::routed
