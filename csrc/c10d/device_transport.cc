#include "c10d/device_transport.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <optional>

#include "hetsp/base/error.h"
#include "hetsp/device/device.h"

namespace hetsp::routed {

namespace {

// What the wires and this transport number on their own must not be mixed up.
constexpr std::uint64_t own = std::uint64_t{1} << 63U;
constexpr comm::Token own_token = own;  // of a header or a name: nobody waits for it

constexpr std::uint8_t failed_flag = 1;  // of Kind::lane: not a name, but why the lane has failed
constexpr std::size_t most_words = 1000;

std::string reason(comm::Link link, const std::string& why) {
  return concat("the lane between this rank and rank ", link.peer, ": ", why);
}

// Follows the header of a chunk in the place of its payload.
struct Announcement {
  std::uint32_t bytes = 0;
  std::uint32_t number = 0;  // of the lane's chunks, from 0
};

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

template <class T>
std::optional<T> value_of(std::span<const std::byte> bytes) {
  if (bytes.size() != sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

}  // namespace

DeviceTransport::DeviceTransport(comm::Transport& wires, const DeviceSetup& setup, std::uint64_t job, std::size_t chunk_bytes,
                                 TaskQueue& events, Settled settled)
    : wires_(wires),
      setup_(setup),
      job_(job),
      chunk_bytes_(chunk_bytes),
      events_(events),
      settled_(std::move(settled)),
      next_arrival_(own) {}

DeviceTransport::~DeviceTransport() { close(); }

DeviceReports DeviceTransport::reports() {
  DeviceReports reports;
  reports.named = [this](LaneId lane, const nccl::UniqueId& name) {
    events_.put([this, lane, name] { on_named(lane, name); });
  };
  reports.up = [this](LaneId lane) { events_.put([this, lane] { on_up(lane); }); };
  reports.failed = [this](LaneId lane, const std::string& why) {
    events_.put([this, lane, why] {
      const auto found = links_.find(lane);
      if (found == links_.end()) return;
      ++counts_.lanes_failed;
      const comm::Link link = found->second;
      lane_failed(link, *end(link), why, true);
    });
  };
  reports.copied = [this](comm::Token) {
    events_.put([this] {
      ++copies_done_;
      while (!endings_.empty() && endings_.front().copies <= copies_done_) {
        wires_.complete(endings_.front().operation, endings_.front().outcome);
        endings_.pop_front();
      }
    });
  };
  reports.sent = [this](comm::Token token) {
    events_.put([this, token] {
      if (engine_ != nullptr) engine_->on_sent(token);
    });
  };
  reports.arrived = [this](LaneId lane, comm::Arrival arrival, std::shared_ptr<DeviceBuffer> buffer) {
    events_.put([this, lane, arrival, buffer = std::move(buffer)]() mutable {
      const auto found = links_.find(lane);
      if (found == links_.end()) return;
      End& at = *end(found->second);
      const auto held =
          std::find_if(at.held.begin(), at.held.end(), [&](const Held& h) { return h.device && h.arrival == arrival; });
      invariant(held != at.held.end(), "a payload came that no header announced");
      held->ready = true;
      arrivals_.emplace(arrival, Arrived{std::move(buffer), held->header.length});
      ++counts_.chunks_received;
      counts_.bytes_received += held->header.length;
      flush(at);
    });
  };
  reports.stored = [this](comm::Token token) {
    events_.put([this, token] {
      if (engine_ != nullptr) engine_->on_stored(token);
    });
  };
  reports.lost = [this](const std::string& why) {
    events_.put([this, why] {
      if (engine_ == nullptr) return;
      settle(why);
      throw device::DeviceError(concat("the device is lost: ", why));  // ends the driver, and with it the group
    });
  };
  return reports;
}

void DeviceTransport::start(comm::Listener& engine, const std::vector<comm::Link>& links) {
  engine_ = &engine;
  for (const comm::Link& link : links) ends_[key(link)].told = link.stage == comm::Stage::local;
  try {
    lanes_ = std::make_unique<DeviceLanes>(setup_, chunk_bytes_, links.size(), reports());
  } catch (const std::exception& error) {
    return settle(error.what());
  }
  // Rails begin when the wires say that they are up. Those that are, say so before anything else happens; then this task.
  for (auto& [at, end] : ends_) {
    if (end.told) begin({std::get<0>(at), std::get<1>(at), std::get<2>(at)}, end);
  }
  events_.put([this] {
    if (coming_up_ == 0) settle({});
  });
}

void DeviceTransport::turn_off() {
  std::unique_ptr<DeviceLanes> gone = std::move(lanes_);
  for (auto& [at, end] : ends_) {
    const bool connected = end.lane != 0;
    if (!end.told && connected) {
      end.told = true;
      engine_->on_link_up({std::get<0>(at), std::get<1>(at), std::get<2>(at)}, end.generation);
    }
    if (connected) stop(end, true);
  }
}

void DeviceTransport::close() {
  engine_ = nullptr;
  arrivals_.clear();
  links_.clear();
  lanes_.reset();
  for (const Ending& ending : std::exchange(endings_, {})) wires_.complete(ending.operation, ending.outcome);
  settle("the group was shut down");
}

bool DeviceTransport::deliver() {
  if (sent_.empty()) return false;
  for (const comm::Token token : std::exchange(sent_, {})) engine_->on_sent(token);
  return true;
}

DeviceTransport::End* DeviceTransport::end(comm::Link link) {
  const auto found = ends_.find(key(link));
  return found == ends_.end() ? nullptr : &found->second;
}

void DeviceTransport::settle(const std::string& why) {
  if (const Settled settled = std::exchange(settled_, nullptr)) settled(why);
}

void DeviceTransport::begin(comm::Link link, End& end) {
  end.lane = next_lane_++;
  end.up = false;
  end.frames_sent = end.frames_received = 0;
  links_.emplace(end.lane, link);
  lanes_->open(end.lane);
  if (settled_) ++coming_up_;
}

// What came before a lane ends is heard, but for chunks that are not whole.
void DeviceTransport::stop(End& end, bool deliver_held) {
  if (lanes_) lanes_->close(end.lane);
  links_.erase(end.lane);
  end.lane = 0;
  end.up = false;
  for (const Held& held : std::exchange(end.held, {})) {
    if (deliver_held && held.ready) {
      pass(held);
    } else if (held.arrival != 0 && held.ready) {
      release(held.arrival);
    }
  }
}

void DeviceTransport::on_named(LaneId lane, const nccl::UniqueId& name) {
  const auto found = links_.find(lane);
  if (found == links_.end()) return;
  const comm::Link link = found->second;
  comm::Header header{.kind = comm::Kind::lane, .job = job_};
  header.destination = static_cast<std::uint16_t>(link.peer);
  wires_.send(link, header, bytes_of(name), own_token);
}

void DeviceTransport::on_up(LaneId lane) {
  const auto found = links_.find(lane);
  if (found == links_.end()) return;
  const comm::Link link = found->second;
  End& at = *end(link);
  at.up = true;
  if (!at.told) {
    at.told = true;
    engine_->on_link_up(link, at.generation);
    flush(at);
  }
  if (settled_ && --coming_up_ == 0) settle({});
}

void DeviceTransport::on_link_up(comm::Link link, std::uint16_t generation) {
  End* const at = end(link);
  if (at == nullptr) return engine_->on_link_up(link, generation);
  at->generation = generation;
  at->told = false;
  if (!lanes_) {
    at->told = true;
    return engine_->on_link_up(link, generation);
  }
  begin(link, *at);
}

void DeviceTransport::on_link_broken(comm::Link link, const std::string& why) {
  End* const at = end(link);
  if (at == nullptr) return engine_->on_link_broken(link, why);
  broken(link, *at, why);
}

// `tell`: NCCL may leave the other end in the dark. A rail's wire ends with its lane, which says enough.
void DeviceTransport::lane_failed(comm::Link link, End& at, const std::string& why, bool tell) {
  if (link.stage == comm::Stage::rail) return broken(link, at, why);
  if (tell) {
    comm::Header header{.kind = comm::Kind::lane, .flags = failed_flag, .job = job_};
    header.destination = static_cast<std::uint16_t>(link.peer);
    const std::string words = why.substr(0, most_words);
    wires_.send(link, header, std::as_bytes(std::span(words)), own_token);
  }
  if (at.up) return broken(link, at, why);
  stop(at, true);  // it has carried nothing: the group forms without lanes
  settle(reason(link, why));
}

void DeviceTransport::broken(comm::Link link, End& at, const std::string& why) {
  const bool told = std::exchange(at.told, link.stage == comm::Stage::local);
  if (at.lane != 0) stop(at, true);
  settle(reason(link, why));
  if (told) return engine_->on_link_broken(link, why);
  wires_.reset(link);  // a rail that the engine believes to be connecting still
}

void DeviceTransport::reset(comm::Link link) {
  if (End* const at = end(link)) {
    at->told = false;
    if (at->lane != 0) stop(*at, false);
  }
  wires_.reset(link);
}

void DeviceTransport::announce(comm::Link link, const comm::Header& header, std::size_t bytes) {
  End& at = *end(link);
  const Announcement announcement{static_cast<std::uint32_t>(bytes), at.frames_sent++};
  wires_.send(link, header, bytes_of(announcement), own_token);
  ++counts_.chunks_sent;
  counts_.bytes_sent += bytes;
}

void DeviceTransport::send(comm::Link link, const comm::Header& header, std::span<const std::byte> payload, comm::Token token) {
  if (header.kind != comm::Kind::chunk || !comm::is_on_device(header.type)) return wires_.send(link, header, payload, token);
  End* const at = end(link);
  if (at == nullptr || at->lane == 0) return sent_.push_back(token);  // it ended a moment ago
  announce(link, header, payload.size());
  ++copies_begun_;
  lanes_->send(at->lane, payload.data(), payload.size(), token);
}

void DeviceTransport::forward(comm::Link link, const comm::Header& header, comm::Arrival arrival, comm::Token token) {
  if ((arrival & own) == 0) return wires_.forward(link, header, arrival, token);
  const Arrived& arrived = arrivals_.at(arrival);
  End* const at = end(link);
  if (at == nullptr || at->lane == 0) return sent_.push_back(token);
  announce(link, header, arrived.bytes);
  lanes_->forward(at->lane, arrived.buffer, arrived.bytes, token);
}

void DeviceTransport::store(comm::Arrival arrival, std::byte* destination, comm::Token token) {
  if ((arrival & own) == 0) return wires_.store(arrival, destination, token);
  const Arrived& arrived = arrivals_.at(arrival);
  lanes_->store(arrived.buffer, destination, arrived.bytes, token);
}

void DeviceTransport::release(comm::Arrival arrival) {
  if ((arrival & own) == 0) return wires_.release(arrival);
  arrivals_.erase(arrival);
}

void DeviceTransport::complete(comm::Operation operation, const comm::Outcome& outcome) {
  if (copies_done_ == copies_begun_) return wires_.complete(operation, outcome);
  endings_.push_back({copies_begun_, operation, outcome});
}

void DeviceTransport::on_frame(comm::Link link, const comm::Header& header, comm::Arrival arrival,
                               std::span<const std::byte> payload) {
  End* const at = end(link);
  const bool chunk = header.kind == comm::Kind::chunk && comm::is_on_device(header.type);
  if (chunk || header.kind == comm::Kind::lane) {
    if (at != nullptr && at->lane != 0 && header.magic == comm::Header{}.magic && header.job == job_) {
      if (chunk) {
        on_chunk(link, *at, header, payload);
      } else if ((header.flags & failed_flag) != 0) {
        const std::string words(reinterpret_cast<const char*>(payload.data()), payload.size());
        lane_failed(link, *at, concat("the other end says: ", words), false);
      } else if (const auto name = value_of<nccl::UniqueId>(payload)) {
        lanes_->join(at->lane, *name);
      }
    }
    if (arrival != 0) wires_.release(arrival);
    return;
  }
  // The other end's lane may be up before this one: the engine would drop what comes over a rail that it believes to be down,
  // and the other end would take that for silence.
  if (at == nullptr || (at->told && at->held.empty())) return engine_->on_frame(link, header, arrival, payload);
  Held& held = at->held.emplace_back(Held{.link = link, .header = header, .payload = {}});
  if (header.kind == comm::Kind::chunk) {
    held.arrival = arrival;
  } else {
    held.payload.assign(payload.begin(), payload.end());
    if (arrival != 0) wires_.release(arrival);
  }
}

void DeviceTransport::on_chunk(comm::Link link, End& at, const comm::Header& header, std::span<const std::byte> payload) {
  const auto announcement = value_of<Announcement>(payload);
  if (!announcement || announcement->bytes == 0 || announcement->bytes > chunk_bytes_ ||
      announcement->number != at.frames_received)
    return broken(link, at, "what announces a chunk by NCCL is not in order");
  ++at.frames_received;
  const comm::Arrival arrival = next_arrival_++;
  Held& held = at.held.emplace_back(
      Held{.link = link, .header = header, .arrival = arrival, .payload = {}, .device = true, .ready = false});
  held.header.length = announcement->bytes;
  lanes_->receive(at.lane, announcement->bytes, arrival);
}

void DeviceTransport::pass(const Held& held) {
  // Of a chunk the engine asks for its length alone.
  const std::byte* const memory = held.device ? arrivals_.at(held.arrival).buffer->memory() : held.payload.data();
  const std::size_t length = held.header.kind == comm::Kind::chunk ? held.header.length : held.payload.size();
  engine_->on_frame(held.link, held.header, held.arrival, {memory, length});
}

// Whatever the engine does with a frame, it does not end the lane before this returns: it only asks for a reset, which empties
// the queue.
void DeviceTransport::flush(End& end) {
  while (end.told && !end.held.empty() && end.held.front().ready) {
    const Held first = std::move(end.held.front());
    end.held.pop_front();
    pass(first);
  }
}

void DeviceTransport::on_sent(comm::Token token) {
  if ((token & own) == 0) engine_->on_sent(token);
}

void DeviceTransport::on_stored(comm::Token token) { engine_->on_stored(token); }

}  // namespace hetsp::routed
