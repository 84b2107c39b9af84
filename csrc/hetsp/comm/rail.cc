#include "hetsp/comm/rail.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <utility>

#include "hetsp/base/error.h"
#include "hetsp/comm/ack_clock.h"

namespace hetsp::comm {

namespace {

constexpr Time kNever = std::numeric_limits<Time>::max();
constexpr Time kAsk = 100'000'000;  // a silent control link is asked so often at first, then half as often each time,
constexpr Time kAskSlowly = 1'600'000'000;  // ... down to this
constexpr Time kAckDelay = 2'000'000;        // of small frames: one ack for what comes meanwhile,
constexpr std::size_t kAckBytes = 64 * 1024;  // ... or for so much of it,
constexpr int kAckFrames = 16;                // ... or for so many
constexpr Time kLate = 1'000'000;  // a poll that comes later than this was late

// a - b of numbers that wrap around.
std::int32_t distance(std::uint32_t a, std::uint32_t b) { return static_cast<std::int32_t>(a - b); }

struct Flight {
  std::uint64_t frame = 0;  // 0: a probe
  std::size_t bytes = 0;
  std::uint32_t hop = 0;
  bool returned = false;  // handed back; its ack would still end a stall
  AckClock::Mark mark;
};

}  // namespace

struct Rail::State {
  enum class Phase : std::uint8_t { up, suspect, down, connecting, trying };

  RailOptions options;
  AckClock clock;
  Phase phase;
  std::uint16_t generation = 0;
  std::uint32_t next = 1;      // hop number of the next frame
  std::uint32_t received = 0;  // every frame up to this hop number has arrived
  std::uint64_t above = 0;     // bit i: received + 1 + i has, too
  std::deque<Flight> flights;  // by hop number
  std::size_t in_flight = 0;   // payload bytes, of frames not handed back
  std::size_t open = 0;        // frames not handed back, probes too
  Time now;
  Time progress;  // of the last ack that said something new, or the first frame after idleness
  Time verdict_at = 0;
  Time ask_at = 0, ask_every = kAsk;
  Time wake = kNever;
  Time ack_at = kNever;         // when what has arrived is acknowledged
  std::size_t ack_bytes = 0;    // ... how much that is,
  int ack_frames = 0;           // ... and how many
  bool probe_due = false, reset_due = false, went_down = false, came_up = false;
  std::vector<std::uint64_t> acknowledged, returned;
  RailStatistics statistics;

  State(const RailOptions& o, bool is_up, Time t)
      : options(o),
        clock({.rate = o.rate, .floor = o.floor, .first = o.first}),
        phase(is_up ? Phase::up : Phase::connecting),
        now(t),
        progress(t) {}

  bool up() const { return phase == Phase::up || phase == Phase::suspect; }

  std::size_t window() const {
    // Half of what acks wait: ends that each made room for all of the other's queue would drive each other's queues up.
    const Time round = clock.shortest() + options.queue + clock.back() / 2;
    const double wire = clock.rate() * static_cast<double>(round) * 1e-9;
    const std::size_t most = std::max(options.window_limit, 2 * options.chunk_bytes);
    return wire >= static_cast<double>(most) ? most : std::min(most, 2 * options.chunk_bytes + static_cast<std::size_t>(wire));
  }

  std::size_t room() const {
    if (phase != Phase::up) return 0;
    const std::size_t window = this->window();
    return in_flight + options.chunk_bytes <= window ? window - in_flight : 0;
  }

  std::uint32_t put(std::uint64_t frame, std::size_t bytes) {
    if (open == 0) progress = now;
    in_flight += bytes;
    ++open;
    flights.push_back({.frame = frame, .bytes = bytes, .hop = next, .mark = clock.sent(now, open == 1, room() == 0)});
    statistics.bytes_sent += bytes;
    return next++;
  }

  void hand_back() {
    for (Flight& flight : flights) {
      if (!flight.returned && flight.frame != 0) {
        returned.push_back(flight.frame);
        ++statistics.frames_resent;
      }
      flight.returned = true;
    }
    in_flight = open = 0;
  }

  void go_down() {
    if (up()) {
      went_down = true;
      ++statistics.times_down;
      const auto oldest = std::find_if(flights.begin(), flights.end(), [](const Flight& f) { return !f.returned; });
      if (oldest != flights.end()) statistics.silence_noticed = static_cast<double>(now - oldest->mark.sent) * 1e-9;
    }
    hand_back();
    phase = Phase::down;
    verdict_at = now;
    ask_at = now + kAsk;
    ask_every = kAsk;
  }

  void start_over() {
    phase = Phase::connecting;
    flights.clear();
    reset_due = true;
    probe_due = false;
    forget_acks();
  }

  void come_up() {
    if (phase == Phase::down) clock.misjudged();
    if (!up()) came_up = true;
    phase = Phase::up;
  }

  // True if it names frames that were not acknowledged before.
  bool acknowledge(const Header& header) {
    const auto upto = static_cast<std::uint32_t>(header.value);
    if (header.value > std::numeric_limits<std::uint32_t>::max() || distance(upto, next) >= 0) return false;  // never sent
    const auto bits = static_cast<std::uint64_t>(header.tag);
    bool news = false;
    const auto take = [&](const Flight& flight) {
      clock.acknowledged(flight.mark, flight.bytes, now);
      news = true;
      if (flight.returned) return;
      in_flight -= flight.bytes;
      --open;
      if (flight.frame != 0) acknowledged.push_back(flight.frame);
    };
    while (!flights.empty() && distance(flights.front().hop, upto) <= 0) {
      take(flights.front());
      flights.pop_front();
    }
    if (bits != 0) {
      std::erase_if(flights, [&](const Flight& flight) {
        const std::int32_t beyond = distance(flight.hop, upto);  // 1 is bit 0
        const bool there = beyond <= 64 && ((bits >> static_cast<unsigned>(beyond - 1)) & 1U) != 0;
        if (there) take(flight);
        return there;
      });
    }
    return news;
  }

  Arrived arrive(const Header& header, std::size_t bytes) {
    if (header.generation != generation || phase == Phase::connecting) return Arrived::stale;
    if (header.kind == Kind::ack) {
      clock.came_back(header.transfer, now);
      if (acknowledge(header)) {
        progress = now;
        come_up();
      }
      return Arrived::done;
    }
    if (header.hop == 0) return header.kind == Kind::probe ? Arrived::done : Arrived::deliver;
    const std::int32_t beyond = distance(header.hop, received);
    if (beyond > 64) return Arrived::stale;  // nobody sends so far above a gap
    owe_ack(header.kind, bytes);
    const std::uint64_t bit = beyond > 0 ? std::uint64_t{1} << static_cast<unsigned>(beyond - 1) : 0;
    if (beyond <= 0 || (above & bit) != 0) return Arrived::done;  // again
    above |= bit;
    while ((above & 1U) != 0) {
      above >>= 1U;
      ++received;
    }
    statistics.bytes_received += bytes;
    return header.kind == Kind::probe ? Arrived::done : Arrived::deliver;
  }

  // After a goodbye, or its own death, the other end hears nothing any more.
  static bool waits(Kind kind) {
    return kind != Kind::chunk && kind != Kind::probe && kind != Kind::goodbye && kind != Kind::cause;
  }

  void owe_ack(Kind kind, std::size_t bytes) {
    ack_bytes += bytes;
    ++ack_frames;
    const bool later = waits(kind) && ack_bytes < kAckBytes && ack_frames < kAckFrames;
    ack_at = std::min(ack_at, later ? now + kAckDelay : now);
  }

  void forget_acks() {
    ack_at = kNever;
    ack_bytes = 0;
    ack_frames = 0;
  }

  // It is later. Where poll() was due before, nobody was here to hear an ack: that time counts neither as silence nor as the
  // time of an ack that has come meanwhile.
  void set_now(Time time) {
    now = time;
    if (wake == kNever || time - wake <= kLate) return;
    const Time late = time - wake;
    progress = std::min(time, progress + late);
    for (Flight& flight : flights) flight.mark.sent = std::min(time, flight.mark.sent + late);
    wake = time;
  }

  void poll(Time time) {
    set_now(time);
    const bool waiting = open > 0;
    const Time silence = now - progress;
    switch (phase) {
      case Phase::up:
      case Phase::suspect:
        if (waiting && silence >= clock.verdict())
          go_down();
        else if (waiting)
          phase = silence >= clock.patience() ? Phase::suspect : Phase::up;
        else if (silence >= options.probe_every)
          probe_due = true;
        break;
      case Phase::down:
        if (options.resettable && now - verdict_at >= options.reset_after) {
          start_over();
        } else if (!options.resettable && now >= ask_at) {
          probe_due = true;
          ask_every = std::min(2 * ask_every, kAskSlowly);
          ask_at = now + ask_every;
        }
        break;
      case Phase::trying:
        if (waiting && silence >= clock.verdict()) {
          hand_back();
          start_over();
        }
        break;
      case Phase::connecting:
        break;
    }
    wake = deadline();
  }

  Time deadline() const { return std::min(ack_at, verdict_deadline()); }

  Time verdict_deadline() const {
    switch (phase) {
      case Phase::up:
        if (open > 0) return progress + clock.patience();
        return probe_due ? kNever : progress + options.probe_every;
      case Phase::suspect:
      case Phase::trying:
        return open > 0 ? progress + clock.verdict() : kNever;
      case Phase::down:
        return options.resettable ? verdict_at + options.reset_after : ask_at;
      case Phase::connecting:
        return kNever;
    }
    return kNever;
  }
};

Rail::Rail(const RailOptions& options, bool up, Time now) : state_(std::make_unique<State>(options, up, now)) {
  require(options.chunk_bytes > 0, "a rail's chunk_bytes is 0");
}
Rail::~Rail() = default;
Rail::Rail(Rail&&) noexcept = default;
Rail& Rail::operator=(Rail&&) noexcept = default;

bool Rail::up() const { return state_->up(); }
bool Rail::suspect() const { return state_->phase == State::Phase::suspect; }
std::uint16_t Rail::generation() const { return state_->generation; }
std::size_t Rail::room() const { return state_->room(); }
std::size_t Rail::in_flight() const { return state_->in_flight; }
double Rail::ack_seconds() const { return static_cast<double>(state_->clock.smoothed()) * 1e-9; }
double Rail::rate() const { return state_->clock.rate(); }

std::uint32_t Rail::put(std::uint64_t frame, std::size_t payload_bytes, Time now) {
  invariant(state_->up(), "a frame was put on a rail that is down");
  state_->set_now(now);
  return state_->put(frame, payload_bytes);
}

Rail::Arrived Rail::arrive(const Header& header, std::span<const std::byte> payload, Time now) {
  state_->set_now(now);
  return state_->arrive(header, payload.size());
}

void Rail::connected(std::uint16_t generation, Time now) {
  State& s = *state_;
  if (generation == s.generation && s.phase != State::Phase::connecting) return;  // known
  s.set_now(now);
  if (s.up()) s.go_down();  // the other end has reset
  s.flights.clear();
  s.generation = generation;
  s.next = 1;
  s.received = 0;
  s.above = 0;
  s.clock.restart();
  s.phase = State::Phase::trying;
  s.progress = now;
  s.reset_due = false;
  s.forget_acks();
  s.probe_due = true;
}

void Rail::broken(Time now) {
  State& s = *state_;
  s.set_now(now);
  if (s.phase == State::Phase::connecting) return;
  s.go_down();
  if (s.options.resettable) s.start_over();
}

void Rail::poll(Time now) { state_->poll(now); }

Time Rail::deadline() const { return state_->deadline(); }

std::vector<std::uint64_t> Rail::take_acknowledged() { return std::exchange(state_->acknowledged, {}); }
std::vector<std::uint64_t> Rail::take_returned() { return std::exchange(state_->returned, {}); }
bool Rail::take_reset() { return std::exchange(state_->reset_due, false); }
bool Rail::take_went_down() { return std::exchange(state_->went_down, false); }
bool Rail::take_came_up() { return std::exchange(state_->came_up, false); }

bool Rail::owes_ack() const { return state_->ack_at != kNever; }

bool Rail::take_own(Header& header, std::vector<std::byte>& payload) {
  State& s = *state_;
  payload.clear();
  header = {};
  header.generation = s.generation;
  if (s.ack_at <= s.now) {
    s.forget_acks();
    header.kind = Kind::ack;
    header.transfer = static_cast<std::uint64_t>(s.now);
    header.value = s.received;
    header.tag = static_cast<std::int64_t>(s.above);
    return true;
  }
  if (std::exchange(s.probe_due, false)) {
    header.kind = Kind::probe;
    header.hop = s.put(0, 0);
    return true;
  }
  return false;
}

RailStatistics Rail::statistics() const {
  RailStatistics statistics = state_->statistics;
  statistics.up = up();
  statistics.generation = generation();
  statistics.ack_seconds = ack_seconds();
  statistics.rate = rate();
  return statistics;
}

std::string Rail::report(Time now) const {
  const State& s = *state_;
  static constexpr const char* kPhases[] = {"up", "suspect", "down", "connecting", "connected, not answered"};
  std::string text = concat(kPhases[static_cast<std::size_t>(s.phase)], ", generation ", s.generation);
  if (s.open > 0)
    text += concat(", ", s.open, " frames with ", s.in_flight, " bytes not acknowledged, the last word ",
                   (now - s.progress) / 1'000'000, " ms ago");
  return text;
}

}  // namespace hetsp::comm
