// Messages between two ranks, and the life of the group on this one. Collectives: collectives.cc.
#include "c10d/backend.h"

#include <thread>

#include "c10d/errors.h"
#include "c10d/without_gil.h"
#include "hetsp/base/error.h"

namespace hetsp::routed {

namespace {

constexpr auto shutdown_grace = std::chrono::seconds(5);  // for the others to come, and for what was sent to arrive

Ring ring_of(const comm::Topology& topology, int rank) {
  Ring ring;
  for (int node = 0; node < topology.nodes(); ++node) {
    for (const int member : topology.node(node).ranks) {
      if (member == rank) ring.position = ring.size();
      ring.order.push_back(member);
    }
  }
  return ring;
}

const at::Tensor& only(const std::vector<at::Tensor>& tensors, const char* operation) {
  require(tensors.size() == 1, operation, " takes one tensor, not ", tensors.size());
  return tensors.front();
}

void check_tag(int tag) { require(tag >= 0, "tag ", tag, " is negative"); }

}  // namespace

Backend::Backend(int rank, comm::Topology topology, comm::EngineOptions options, std::chrono::milliseconds timeout,
                 std::vector<LinkEnd> links, Dialler dialler, const std::optional<DeviceSetup>& device,
                 std::optional<SharedNode> shared)
    : ::c10d::Backend(rank, topology.ranks()),
      job_(options.job),
      ring_(ring_of(topology, rank)),
      timeout_(timeout),
      callbacks_(std::make_shared<TaskThread>()),
      driver_(std::make_shared<Driver>(std::move(topology), rank, options, std::move(links), std::move(dialler), device,
                                       std::move(shared))),
      device_(device ? device->device : -1),
      collectives_(*driver_) {}

Backend::~Backend() { stop({}); }

void Backend::abort() {
  if (device_collectives_) {
    const WithoutGil waiting;
    device_collectives_->abort();
  }
  stop({});
}

// Messages of others may pass through this rank, which drives a NIC of their node: so it leaves when all are about to. If they
// stay, this rank's own part ends; it carries on for those that have no NIC but its own, and for no longer than the timeout.
void Backend::shutdown() {
  const auto grace = std::chrono::milliseconds(failed_ ? std::chrono::seconds(0) : shutdown_grace);
  if (!failed_ && size_ > 1) {
    const WithoutGil waiting;
    const auto all_come = farewell();
    bool came = false;
    try {
      came = all_come->wait(shutdown_grace);
    } catch (const std::exception&) {
      all_come->abort();
    }
    try {
      if (!came) carry_for_others(grace);
    } catch (...) {  // interrupted
      if (device_collectives_) device_collectives_->abort();
      stop({});
      throw;
    }
  }
  if (device_collectives_) {
    const WithoutGil waiting;
    device_collectives_->shutdown();
  }
  stop(grace);
}

void Backend::carry_for_others(std::chrono::milliseconds grace) {
  driver_->retire(grace);
  const auto until = std::chrono::steady_clock::now() + timeout_.load();
  while (driver_->carries() && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    heed_signals();
  }
}

void Backend::stop(std::chrono::milliseconds grace) {
  const WithoutGil waiting;
  driver_->close(grace);
  ready_->close();
  collectives_.close();
  callbacks_->close();
}

c10::intrusive_ptr<::c10d::Backend::Options> Backend::getBackendOptions() {
  return c10::make_intrusive<Options>("hetsp", timeout_.load());
}

::c10d::ErrorType Backend::getError() { return failed_ ? ::c10d::ErrorType::REMOTE_ERROR : ::c10d::ErrorType::SUCCESS; }

c10::intrusive_ptr<Work> Backend::make_work(::c10d::OpType type, std::string what, std::chrono::milliseconds timeout,
                                            std::vector<at::Tensor> results) {
  const auto limit = timeout > std::chrono::milliseconds(0) ? timeout : timeout_.load();
  auto report = [driver = std::weak_ptr<Driver>(driver_)] {
    const auto alive = driver.lock();
    return alive ? alive->report() : std::string();
  };
  auto work = c10::make_intrusive<Work>(rank_, type, std::move(what), limit, std::move(results), callbacks_, std::move(report));
  if (coalescing_) coalesced_.push_back(work);
  return work;
}

c10::intrusive_ptr<::c10d::Work> Backend::send(std::vector<at::Tensor>& tensors, int destination, int tag) {
  const at::Tensor& tensor = only(tensors, "send");
  require(destination >= 0 && destination < size_ && destination != rank_, "destination rank ", destination,
          " of a send is not another rank of this group of ", size_);
  check_tag(tag);
  const bool on_device = on_lanes(tensor, "send");
  const FlatTensor flat(tensor, FlatTensor::Use::read, on_device);
  auto work = make_work(::c10d::OpType::SEND, concat("send to rank ", destination, " (tag ", tag, ")"), {}, {});
  auto done = [work, flat, this](const comm::Outcome& outcome, int) {
    if (outcome.kind == comm::Outcome::Kind::peer_lost) failed_ = true;
    work->end(exception_of({outcome.kind, with_type_names(outcome.what)}), rank_);
  };
  post(work, on_device ? std::optional(tensor.device()) : std::nullopt, "the send was aborted",
       [destination, tag, bytes = flat.bytes(), type = type_code(tensor, on_device), done = std::move(done)](Driver& driver) {
         return driver.send(destination, tag, bytes, type, done);
       });
  return work;
}

// A device's work may take long; what is posted here waits for it in a thread, not on a stream, where a rail would be taken for
// silent meanwhile, and not in the engine, whose order of posting is the order in which messages match.
void Backend::post(const c10::intrusive_ptr<Work>& work, const std::optional<at::Device>& device, const char* aborted,
                   std::function<comm::Operation(Driver&)> start) {
  if (!device) {
    const comm::Operation operation = start(*driver_);
    return work->on_abort([driver = std::weak_ptr<Driver>(driver_), operation, aborted] {
      if (const auto alive = driver.lock()) alive->cancel(operation, aborted);
    });
  }
  const auto operation = std::make_shared<comm::Operation>(0);
  auto begin = [work, operation, start = std::move(start), driver = driver_, moment = std::make_shared<Moment>(*device)] {
    try {
      moment->wait();
      *operation = start(*driver);
    } catch (const std::exception&) {
      work->end(std::current_exception(), -1);
    }
  };
  work->on_abort([ready = std::weak_ptr<TaskThread>(ready_), driver = std::weak_ptr<Driver>(driver_), operation, aborted] {
    const auto thread = ready.lock();
    if (!thread) return;
    thread->put([driver, operation, aborted] {  // behind the task that begins it
      if (const auto alive = driver.lock(); alive && *operation != 0) alive->cancel(*operation, aborted);
    });
  });
  if (!ready_->put(std::move(begin))) work->end(std::make_exception_ptr(OperationAborted("the group was shut down")), rank_);
}

bool Backend::on_lanes(const at::Tensor& tensor, const char* what) const {
  if (!lanes_ || !tensor.is_cuda()) return false;
  require(tensor.device().index() == device_, what, ": a tensor on ", tensor.device(),
          ", but this group's lanes are of cuda:", device_, ", the current device when it was made");
  return true;
}

::c10d::Backend* Backend::elsewhere(const at::Tensor& tensor) const {
  return lanes_ && tensor.is_cuda() && !coalescing_ ? device_collectives_.get() : nullptr;
}

::c10d::Backend* Backend::elsewhere(const std::vector<at::Tensor>& tensors) const {
  return tensors.empty() ? nullptr : elsewhere(tensors.front());
}

void Backend::use_lanes(c10::intrusive_ptr<::c10d::Backend> collectives) {
  device_collectives_ = std::move(collectives);
  lanes_ = true;
}

c10::intrusive_ptr<::c10d::Work> Backend::recv(std::vector<at::Tensor>& tensors, int source, int tag) {
  require(source >= 0 && source < size_ && source != rank_, "source rank ", source,
          " of a recv is not another rank of this group of ", size_);
  return receive(tensors, source, tag, ::c10d::OpType::RECV);
}

c10::intrusive_ptr<::c10d::Work> Backend::recvAnysource(std::vector<at::Tensor>& tensors, int tag) {
  return receive(tensors, comm::any_source, tag, ::c10d::OpType::RECVANYSOURCE);
}

c10::intrusive_ptr<::c10d::Work> Backend::receive(std::vector<at::Tensor>& tensors, int source, int tag, ::c10d::OpType type) {
  const at::Tensor& tensor = only(tensors, "recv");
  check_tag(tag);
  const bool on_device = on_lanes(tensor, "recv");
  const FlatTensor flat(tensor, FlatTensor::Use::write, on_device);
  const std::string from = source == comm::any_source ? "any rank" : concat("rank ", source);
  auto work = make_work(type, concat("recv from ", from, " (tag ", tag, ")"), {}, {tensor});
  auto done = [work, flat, this](const comm::Outcome& outcome, int sender) {
    if (outcome.kind == comm::Outcome::Kind::peer_lost) failed_ = true;
    if (outcome.kind != comm::Outcome::Kind::done || !flat.copied()) {
      return work->end(exception_of({outcome.kind, with_type_names(outcome.what)}), sender);
    }
    const auto finish = [work, flat, sender] {
      try {
        flat.commit();
        work->end(nullptr, sender);
      } catch (const std::exception&) {
        work->end(std::current_exception(), sender);
      }
    };
    if (!callbacks_->put(finish)) finish();
  };
  post(work, on_device ? std::optional(tensor.device()) : std::nullopt, "the recv was aborted",
       [source, tag, bytes = flat.bytes(), type_of = type_code(tensor, on_device), done = std::move(done)](Driver& driver) {
         return driver.receive(source, tag, bytes, type_of, done);
       });
  return work;
}

void Backend::startCoalescing() {
  require(!coalescing_, "coalescing has begun already");
  coalescing_ = true;
}

c10::intrusive_ptr<::c10d::Work> Backend::endCoalescing() {
  require(coalescing_, "coalescing has not begun");
  coalescing_ = false;
  const auto parts = std::exchange(coalesced_, {});
  std::vector<at::Tensor> results;
  for (const auto& part : parts) {
    for (const at::Tensor& tensor : part->result()) results.push_back(tensor);
  }
  auto whole = make_work(::c10d::OpType::COALESCED, concat("a batch of ", parts.size(), " operations"), {}, std::move(results));
  if (parts.empty()) whole->end(nullptr, rank_);

  struct Count {
    std::mutex mutex;
    std::size_t open = 0;
    std::exception_ptr failure;
  };
  const auto count = std::make_shared<Count>();
  count->open = parts.size();
  for (const auto& part : parts) {
    part->on_end([count, whole, rank = rank_](const std::exception_ptr& failure) {
      std::unique_lock lock(count->mutex);
      if (failure && !count->failure) count->failure = failure;
      const bool last = --count->open == 0;
      lock.unlock();
      if (last) whole->end(count->failure, rank);
    });
  }
  whole->on_abort([parts] {
    for (const auto& part : parts) part->abort();
  });
  return whole;
}

}  // namespace hetsp::routed
