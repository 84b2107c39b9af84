#include "c10d/driver.h"

#include <algorithm>
#include <exception>
#include <future>
#include <iterator>

#include "hetsp/base/error.h"

namespace hetsp::routed {

namespace {

using Clock = std::chrono::steady_clock;

// For the goodbye to be heard; nobody waits for those who do not answer.
constexpr auto farewell = std::chrono::seconds(2);

constexpr auto patience = std::chrono::seconds(2);  // of whoever asks for a report

// A process that dies or is stopped between a frame and the ring of the bell must not hold up this one.
constexpr auto longest_sleep = std::chrono::seconds(1);

comm::Time now() { return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count(); }

Clock::time_point time_point(comm::Time time) {
  return Clock::time_point(std::chrono::duration_cast<Clock::duration>(std::chrono::nanoseconds(time)));
}

std::size_t control_payload(const comm::EngineOptions& options) { return std::max<std::size_t>(options.eager_bytes, 65536); }

std::vector<comm::Link> lanes_among(const std::vector<LinkEnd>& links, const std::optional<SharedNode>& shared) {
  std::vector<comm::Link> lanes;
  if (shared)
    for (const SharedNode::Neighbour& neighbour : shared->neighbours) lanes.push_back({comm::Stage::local, neighbour.rank, 0});
  for (const LinkEnd& end : links)
    if (end.link.stage != comm::Stage::control) lanes.push_back(end.link);
  return lanes;
}

}  // namespace

Driver::Driver(comm::Topology topology, int rank, comm::EngineOptions options, std::vector<LinkEnd> links, Dialler dialler,
               const std::optional<DeviceSetup>& device, std::optional<SharedNode> shared)
    : topology_(std::move(topology)),
      rank_(rank),
      options_(options),
      queue_(shared ? shared->bell() : Bell()),
      setup_(device),
      when_settled_(settled_.get_future().share()) {
  thread_ = std::thread([this, links = std::move(links), dialler = std::move(dialler), shared = std::move(shared)]() mutable {
    run(std::move(links), std::move(dialler), std::move(shared));
  });
}

Driver::~Driver() { close({}); }

void Driver::close(std::chrono::milliseconds grace) {
  queue_.put([this, grace] {
    leaving_ = true;
    grace_ = grace;
  });
  std::thread thread;
  {
    const std::scoped_lock lock(mutex_);
    thread.swap(thread_);
  }
  if (thread.joinable()) thread.join();
}

comm::Operation Driver::post(Open what, std::function<void(comm::Operation)> start) {
  comm::Operation operation = 0;
  {
    const std::scoped_lock lock(mutex_);
    operation = next_++;
  }
  const auto shared = std::make_shared<Open>(std::move(what));
  const bool taken = queue_.put([this, operation, shared, start = std::move(start)] {
    if (engine_ == nullptr) return shared->done({comm::Outcome::Kind::aborted, end_}, rank_);
    if (shared->sends) ++open_sends_;
    open_.emplace(operation, std::move(*shared));
    start(operation);
  });
  if (!taken) shared->done({comm::Outcome::Kind::aborted, end_}, rank_);
  return operation;
}

comm::Operation Driver::send(int peer, std::int64_t tag, std::span<const std::byte> bytes, std::uint16_t type, Done done) {
  return post({.done = std::move(done), .sends = true},
              [this, peer, tag, bytes, type](comm::Operation operation) { engine_->send(operation, peer, tag, bytes, type); });
}

comm::Operation Driver::receive(int peer_or_any, std::int64_t tag, std::span<std::byte> bytes, std::uint16_t type, Done done) {
  Open open{.done = std::move(done), .from_any = peer_or_any == comm::any_source};
  return post(std::move(open), [this, peer_or_any, tag, bytes, type](comm::Operation operation) {
    engine_->receive(operation, peer_or_any, tag, bytes, type);
  });
}

void Driver::cancel(comm::Operation operation, std::string why, bool for_good) {
  queue_.put([this, operation, why = std::move(why), for_good] {
    if (engine_ != nullptr && open_.contains(operation)) engine_->cancel(operation, why, for_good);
  });
}

void Driver::send_given_up(int peer, std::int64_t tag, std::size_t bytes, std::uint16_t type) {
  queue_.put([this, peer, tag, bytes, type] {
    if (engine_ != nullptr) engine_->send_given_up(peer, tag, bytes, type);
  });
}

comm::Statistics Driver::statistics() {
  const auto answer = std::make_shared<std::promise<comm::Statistics>>();
  auto future = answer->get_future();
  if (queue_.put([this, answer] {
        const std::scoped_lock lock(mutex_);
        answer->set_value(engine_ != nullptr ? engine_->statistics() : last_);
      })) {
    return future.get();
  }
  const std::scoped_lock lock(mutex_);
  return last_;
}

std::string Driver::report() {
  const auto answer = std::make_shared<std::promise<std::string>>();
  auto future = answer->get_future();
  const bool taken = queue_.put([this, answer] {
    answer->set_value(engine_ != nullptr ? engine_->report() + transport_->report() : concat("rank ", rank_, ": ", end_, "\n"));
  });
  if (!taken) return concat("rank ", rank_, ": ", end_, "\n");
  if (future.wait_for(patience) != std::future_status::ready)
    return concat("rank ", rank_, ": the thread of its engine has not answered for ", patience.count(), " s\n");
  return future.get();
}

void Driver::retire(std::chrono::milliseconds grace) {
  queue_.put([this, grace] { retire_at_ = Clock::now() + grace; });
}

bool Driver::carries() {
  const auto answer = std::make_shared<std::promise<bool>>();
  auto future = answer->get_future();
  const bool taken =
      queue_.put([this, answer] { answer->set_value(engine_ != nullptr && (retire_at_.has_value() || engine_->needed())); });
  return taken && future.get();
}

std::string Driver::device_settled() { return setup_ ? when_settled_.get() : "this group has no device"; }

void Driver::turn_off_device() {
  queue_.put([this] {
    if (device_ != nullptr) device_->turn_off();
  });
}

DeviceStatistics Driver::device_statistics() {
  const auto answer = std::make_shared<std::promise<DeviceStatistics>>();
  auto future = answer->get_future();
  if (queue_.put([this, answer] {
        const std::scoped_lock lock(mutex_);
        answer->set_value(device_ != nullptr ? device_->statistics() : last_device_);
      })) {
    return future.get();
  }
  const std::scoped_lock lock(mutex_);
  return last_device_;
}

void Driver::finish_completed(comm::Engine& engine) {
  for (const auto& [operation, outcome] : std::exchange(completed_, {})) {
    const auto found = open_.find(operation);
    if (found == open_.end()) continue;
    const Open open = std::move(found->second);
    open_.erase(found);
    if (open.sends) --open_sends_;
    open.done(outcome, open.from_any && outcome.kind == comm::Outcome::Kind::done ? engine.source_of(operation) : rank_);
  }
}

// Events first, the time after them: a thread that was not scheduled for a while must not take what waits in its queue for
// lost.
void Driver::step(comm::Engine& engine, WireTransport& transport) {
  transport.poll(Clock::now());
  engine.now(now());
  transport.receive();
  do {
    engine.poll(now());
    finish_completed(engine);
  } while (transport.deliver() || (device_ != nullptr && device_->deliver()));
}

void Driver::take_tasks(comm::Engine& engine, const WireTransport& transport, Clock::time_point until) {
  auto tasks = queue_.take(std::min({until, time_point(engine.deadline()), transport.deadline()}),
                           [&transport] { return transport.ready(); });
  std::move(tasks.begin(), tasks.end(), std::back_inserter(tasks_));
  engine.now(now());
  do_tasks();
}

void Driver::do_tasks() {
  while (!tasks_.empty()) {
    const TaskQueue::Task task = std::move(tasks_.front());
    tasks_.pop_front();
    task();
  }
}

void Driver::work(comm::Engine& engine, WireTransport& transport) {
  step(engine, transport);
  while (!leaving_) {
    take_tasks(engine, transport, std::min(retire_at_.value_or(Clock::time_point::max()), Clock::now() + longest_sleep));
    step(engine, transport);
    if (retire_at_ && (open_sends_ == 0 || Clock::now() >= *retire_at_)) {
      retire_at_.reset();
      engine.retire();
    }
  }
  linger(engine, transport, grace_, [this] { return open_sends_ == 0; });
  engine.leave();
  linger(engine, transport, farewell, [&engine] { return engine.idle(); });
}

void Driver::linger(comm::Engine& engine, WireTransport& transport, std::chrono::milliseconds limit,
                    const std::function<bool()>& over) {
  const auto until = Clock::now() + limit;
  for (step(engine, transport); !over() && Clock::now() < until; step(engine, transport)) take_tasks(engine, transport, until);
}

void Driver::run(std::vector<LinkEnd> links, Dialler dialler, std::optional<SharedNode> shared) {
  const std::size_t control = control_payload(options_);
  const std::vector<comm::Link> device_links = lanes_among(links, shared);
  WireTransport transport(
      std::max(options_.chunk_bytes, control), control, std::move(dialler), std::move(shared), queue_,
      [this](comm::Operation operation, const comm::Outcome& outcome) { completed_.emplace_back(operation, outcome); });
  std::optional<DeviceTransport> device;
  if (setup_)
    device.emplace(transport, *setup_, options_.job, options_.chunk_bytes, queue_,
                   [this](const std::string& why) { settled_.set_value(why); });
  try {
    comm::Engine engine(topology_, rank_, options_, device ? static_cast<comm::Transport&>(*device) : transport, now());
    engine_ = &engine;
    transport_ = &transport;
    if (device) {
      device_ = &*device;
      device->start(engine, device_links);
      transport.start(*device, std::move(links));
    } else {
      transport.start(engine, std::move(links));
    }
    try {
      work(engine, transport);
    } catch (const std::exception& error) {
      end_ = error.what();  // a bug of ours: the group ends, nobody hangs
    }
    finish_completed(engine);
    {
      const std::scoped_lock lock(mutex_);
      last_ = engine.statistics();  // before the queue refuses those that ask
      if (device) last_device_ = device->statistics();
    }
    queue_.close();
    if (device) device->close();  // copies from users' memory end before their operations do
    finish_completed(engine);
    transport.close();
    engine_ = nullptr;
  } catch (const std::exception& error) {
    end_ = error.what();
    queue_.close();
    if (device) device->close();
    transport.close();
    engine_ = nullptr;
  }
  device_ = nullptr;
  do {
    do_tasks();
    for (auto& task : queue_.take()) tasks_.push_back(std::move(task));
  } while (!tasks_.empty());
  queue_.let_go();
  for (const auto& [_, open] : std::exchange(open_, {})) open.done({comm::Outcome::Kind::aborted, end_}, rank_);
}

}  // namespace hetsp::routed
