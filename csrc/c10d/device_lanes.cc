#include "c10d/device_lanes.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "hetsp/base/error.h"

namespace hetsp::routed {

namespace {

constexpr auto pause = std::chrono::microseconds(20);        // between questions while something is under way
constexpr auto starting_pause = std::chrono::milliseconds(1);  // ... while lanes come up
constexpr auto ask_every = std::chrono::milliseconds(2);     // NCCL for errors of what is under way
constexpr auto retry_after = std::chrono::seconds(1);        // a lane that did not come up is not tried again at once
constexpr auto farewell = std::chrono::seconds(5);           // for kernels to end after their communicators were aborted
constexpr std::size_t first_bytes = 8;
constexpr std::size_t buffers_per_lane = 4;  // at the start: two each way

}  // namespace

DeviceLanes::DeviceLanes(const DeviceSetup& setup, std::size_t chunk_bytes, std::size_t lanes, DeviceReports reports)
    : setup_(setup),
      runtime_(*setup.runtime),
      reports_(std::move(reports)),
      buffers_(std::make_shared<DeviceBufferPool>(runtime_, std::max(chunk_bytes, first_bytes))) {
  const staging::CurrentDevice current(runtime_, setup_.device);
  runtime_.allow_during_graph_capture();
  copies_in_ = runtime_.create_stream();
  copies_out_ = runtime_.create_stream();
  buffers_->reserve(lanes * buffers_per_lane);
  thread_ = std::thread([this] { run(); });
}

DeviceLanes::~DeviceLanes() {
  closing_ = true;
  queue_.close();
  thread_.join();
}

void DeviceLanes::open(LaneId lane) {
  queue_.put([this, lane] {
    Lane& opened = lanes_[lane];
    opened.until = Clock::now() + setup_.limit;
    nccl::UniqueId name{};
    const nccl::Result result = setup_.nccl->api().get_unique_id(&name);
    if (result != nccl::success)
      return fail(lane, opened, std::string("ncclGetUniqueId: ") + setup_.nccl->api().get_error_string(result));
    begin(opened.out, name);
    reports_.named(lane, name);
  });
}

void DeviceLanes::join(LaneId lane, const nccl::UniqueId& name) {
  queue_.put([this, lane, name] {
    const auto found = lanes_.find(lane);
    if (found != lanes_.end() && !found->second.failed && !found->second.in.communicator) begin(found->second.in, name);
  });
}

void DeviceLanes::begin(Direction& direction, const nccl::UniqueId& name) {
  const auto idle = std::find_if(idle_streams_.begin(), idle_streams_.end(), [&](Stream s) { return waits_[s].empty(); });
  if (idle != idle_streams_.end()) {
    direction.stream = *idle;
    idle_streams_.erase(idle);
  } else {
    direction.stream = runtime_.create_stream();
  }
  direction.communicator = std::make_unique<NcclCommunicator>(setup_.nccl, name, direction.sends, direction.stream);
  direction.waiting.push_front({.buffer = buffers_->take(), .bytes = first_bytes});
}

void DeviceLanes::send(LaneId lane, const std::byte* from, std::size_t bytes, comm::Token token) {
  queue_.put([this, lane, from, bytes, token] {
    auto buffer = buffers_->take();
    runtime_.copy(buffer->memory(), from, static_cast<std::int64_t>(bytes), copies_out_);
    const std::uint64_t copy = ++copies_begun_;
    watch(copies_out_, [this, copy, token, buffer] {  // holds the buffer, whatever becomes of the lane
      copies_done_ = copy;
      reports_.copied(token);
    });
    const auto found = lanes_.find(lane);
    if (found == lanes_.end() || found->second.failed) return reports_.sent(token);
    found->second.out.waiting.push_back({std::move(buffer), bytes, token, copy});
  });
}

void DeviceLanes::forward(LaneId lane, std::shared_ptr<DeviceBuffer> buffer, std::size_t bytes, comm::Token token) {
  queue_.put([this, lane, buffer = std::move(buffer), bytes, token]() mutable {
    const auto found = lanes_.find(lane);
    if (found == lanes_.end() || found->second.failed) return reports_.sent(token);
    found->second.out.waiting.push_back({std::move(buffer), bytes, token});
  });
}

void DeviceLanes::receive(LaneId lane, std::size_t bytes, comm::Arrival arrival) {
  queue_.put([this, lane, bytes, arrival] {
    const auto found = lanes_.find(lane);
    if (found != lanes_.end() && !found->second.failed) found->second.in.waiting.push_back({buffers_->take(), bytes, arrival});
  });
}

void DeviceLanes::store(std::shared_ptr<DeviceBuffer> buffer, std::byte* to, std::size_t bytes, comm::Token token) {
  queue_.put([this, buffer = std::move(buffer), to, bytes, token] {
    runtime_.copy(to, buffer->memory(), static_cast<std::int64_t>(bytes), copies_in_);
    watch(copies_in_, [this, token, buffer] { reports_.stored(token); });
  });
}

void DeviceLanes::close(LaneId lane) {
  queue_.put([this, lane] {
    std::erase_if(later_, [lane](const Later& late) { return late.lane == lane; });
    const auto found = lanes_.find(lane);
    if (found == lanes_.end()) return;
    end(found->second);
    lanes_.erase(found);
  });
}

void DeviceLanes::watch(Stream stream, std::function<void()> then) {
  Event event = nullptr;
  if (!free_events_.empty()) {
    event = free_events_.back();
    free_events_.pop_back();
  } else {
    event = runtime_.create_event();
    all_events_.push_back(event);
  }
  runtime_.record(event, stream);
  waits_[stream].push_back({event, std::move(then)});
}

bool DeviceLanes::poll_events() {
  bool any = false;
  for (auto& [stream, waits] : waits_) {
    while (!waits.empty() && runtime_.done(waits.front().event)) {
      const auto then = std::move(waits.front().then);
      free_events_.push_back(waits.front().event);
      waits.pop_front();
      then();
      any = true;
    }
  }
  return any;
}

// An event tells of what is on the stream when it is recorded: so not before NCCL says that its call is over.
bool DeviceLanes::launch(LaneId id, Direction& direction) {
  NcclCommunicator& communicator = *direction.communicator;
  while (communicator.state() == NcclCommunicator::State::ready) {
    if (direction.begun) {
      ++direction.under_way;
      watch(direction.stream, [this, id, sends = direction.sends, done = *std::exchange(direction.begun, std::nullopt)] {
        finished(id, sends, done);
      });
    }
    if (direction.waiting.empty() || direction.waiting.front().copy > copies_done_) break;
    direction.begun = std::move(direction.waiting.front());
    direction.waiting.pop_front();
    communicator.transfer(direction.begun->buffer->memory(), direction.begun->bytes);
  }
  return communicator.state() != NcclCommunicator::State::failed;
}

void DeviceLanes::finished(LaneId id, bool sends, const Transfer& transfer) {
  const auto found = lanes_.find(id);
  const bool alive = found != lanes_.end() && !found->second.failed;
  if (alive) {
    Lane& lane = found->second;
    Direction& direction = sends ? lane.out : lane.in;
    --direction.under_way;
    if (transfer.number == 0) {
      direction.works = true;
      if (!lane.out.works || !lane.in.works) return;
      lane.up = true;
      return reports_.up(id);
    }
  }
  if (transfer.number == 0) return;
  if (sends) {
    reports_.sent(transfer.number);
  } else if (alive) {
    reports_.arrived(id, transfer.number, transfer.buffer);
  }
}

void DeviceLanes::fail(LaneId id, Lane& lane, const std::string& why) {
  if (lane.failed) return;
  lane.failed = true;
  end(lane);
  if (lane.up) return reports_.failed(id, why);
  later_.push_back({Clock::now() + retry_after, id, why});
}

// Kernels that are under way end when their communicator is aborted; their buffers wait for that, with the streams.
void DeviceLanes::end(Lane& lane) {
  for (Direction* const direction : {&lane.out, &lane.in}) {
    direction->communicator.reset();
    if (direction->begun) {
      watch(direction->stream, [this, sends = direction->sends, last = *std::exchange(direction->begun, std::nullopt)] {
        if (sends && last.number != 0) reports_.sent(last.number);
      });
    }
    if (direction->stream != nullptr) idle_streams_.push_back(std::exchange(direction->stream, nullptr));
    for (const Transfer& waiting : std::exchange(direction->waiting, {}))
      if (direction->sends && waiting.number != 0) reports_.sent(waiting.number);
  }
}

void DeviceLanes::drive(LaneId id, Lane& lane, Clock::time_point now, bool ask) {
  if (lane.failed) return;
  for (Direction* const direction : {&lane.out, &lane.in}) {
    if (!direction->communicator) continue;
    NcclCommunicator& communicator = *direction->communicator;
    const auto state = communicator.state();
    if (state != NcclCommunicator::State::ready || (ask && direction->under_way > 0)) communicator.progress();
    if (communicator.state() == NcclCommunicator::State::failed || !launch(id, *direction))
      return fail(id, lane, std::string(communicator.why()));
  }
  if (lane.up || now < lane.until) return;
  const auto starts = [](const Direction& direction) {
    return direction.communicator->state() == NcclCommunicator::State::starting;
  };
  const char* const what = !lane.in.communicator                 ? "the other end has not named its communicator"
                           : starts(lane.out) || starts(lane.in) ? "the communicators have not come up"
                                                                 : "nothing has come through";
  fail(id, lane, concat(what, " within ", setup_.limit.count(), " ms"));
}

void DeviceLanes::poll_lanes(Clock::time_point now) {
  const bool ask = now - asked_ >= ask_every;
  if (ask) asked_ = now;
  for (auto& [id, lane] : lanes_) drive(id, lane, now, ask);
  std::vector<Later> due;
  std::erase_if(later_, [&](const Later& late) { return late.when <= now ? due.push_back(late), true : false; });
  for (const Later& late : due) reports_.failed(late.lane, late.why);
}

bool DeviceLanes::waiting() const {
  return std::any_of(waits_.begin(), waits_.end(), [](const auto& entry) { return !entry.second.empty(); });
}

DeviceLanes::Clock::time_point DeviceLanes::next_poll(Clock::time_point now) const {
  if (waiting()) return now + pause;
  auto next = now + std::chrono::hours(1);
  for (const auto& [_, lane] : lanes_) {
    if (lane.failed) continue;
    const bool waits = lane.out.begun || lane.in.begun || !lane.out.waiting.empty() || !lane.in.waiting.empty();
    if (!lane.up || waits) next = now + (lane.up ? pause : starting_pause);
  }
  for (const Later& late : later_) next = std::min(next, late.when);
  return next;
}

void DeviceLanes::work() {
  while (!closing_) {
    for (const auto& task : queue_.take(next_poll(Clock::now())))
      if (!closing_) task();
    while (poll_events()) poll_lanes(Clock::now());
    poll_lanes(Clock::now());
  }
}

void DeviceLanes::run() {
  try {
    const staging::CurrentDevice current(runtime_, setup_.device);
    runtime_.allow_during_graph_capture();
    try {
      work();
    } catch (const std::exception& error) {
      reports_.lost(error.what());
    }
    for (auto& [_, lane] : lanes_) end(lane);
    lanes_.clear();
    settle();
  } catch (const std::exception&) {
    // What cannot be given back on a lost device goes with the process; whoever uses it has been told by `lost`.
    buffers_->abandon();
    waits_.clear();
  }
  while (!closing_) queue_.take();  // of no use any more
}

void DeviceLanes::settle() {
  for (const auto until = Clock::now() + farewell; waiting() && Clock::now() < until; poll_events())
    std::this_thread::sleep_for(pause);
  if (waiting()) return buffers_->abandon();
  std::vector<Stream> streams = std::exchange(idle_streams_, {});
  streams.insert(streams.end(), {copies_in_, copies_out_});
  for (const Stream stream : streams) runtime_.destroy_stream(stream);
  for (const Event event : all_events_) runtime_.destroy_event(event);
}

}  // namespace hetsp::routed
