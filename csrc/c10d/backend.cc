// Messages between two ranks, and the life of the group on this one. Collectives: collectives.cc.
#include "c10d/backend.h"

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
                 std::vector<LinkEnd> links, Dialler dialler)
    : ::c10d::Backend(rank, topology.ranks()),
      job_(options.job),
      ring_(ring_of(topology, rank)),
      timeout_(timeout),
      callbacks_(std::make_shared<TaskThread>()),
      driver_(std::make_shared<Driver>(std::move(topology), rank, options, std::move(links), std::move(dialler))),
      collectives_(*driver_) {}

Backend::~Backend() { stop({}); }

void Backend::abort() { stop({}); }

// Messages of others may pass through this rank, which drives a NIC of their node: so it leaves when all are about to.
void Backend::shutdown() {
  if (!failed_ && size_ > 1) {
    const WithoutGil waiting;
    const auto all_come = barrier({});
    try {
      all_come->wait(shutdown_grace);
    } catch (const std::exception&) {
      all_come->abort();  // somebody is lost, or stays: no reason for this rank to do so
    }
  }
  stop(failed_ ? std::chrono::seconds(0) : shutdown_grace);
}

void Backend::stop(std::chrono::milliseconds grace) {
  const WithoutGil waiting;
  driver_->close(grace);
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
  auto work = c10::make_intrusive<Work>(rank_, type, std::move(what), limit, std::move(results), callbacks_);
  if (coalescing_) coalesced_.push_back(work);
  return work;
}

c10::intrusive_ptr<::c10d::Work> Backend::send(std::vector<at::Tensor>& tensors, int destination, int tag) {
  const at::Tensor& tensor = only(tensors, "send");
  require(destination >= 0 && destination < size_ && destination != rank_, "destination rank ", destination,
          " of a send is not another rank of this group of ", size_);
  check_tag(tag);
  const HostTensor host(tensor, HostTensor::Use::read);
  auto work = make_work(::c10d::OpType::SEND, concat("send to rank ", destination, " (tag ", tag, ")"), {}, {});
  const auto operation =
      driver_->send(destination, tag, host.bytes(), type_code(tensor), [work, host, this](const comm::Outcome& outcome, int) {
        if (outcome.kind == comm::Outcome::Kind::peer_lost) failed_ = true;
        work->end(exception_of({outcome.kind, with_type_names(outcome.what)}), rank_);
      });
  work->on_abort([driver = std::weak_ptr<Driver>(driver_), operation] {
    if (const auto alive = driver.lock()) alive->cancel(operation, "the send was aborted");
  });
  return work;
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
  const HostTensor host(tensor, HostTensor::Use::write);
  const std::string from = source == comm::any_source ? "any rank" : concat("rank ", source);
  auto work = make_work(type, concat("recv from ", from, " (tag ", tag, ")"), {}, {tensor});
  const auto done = [work, host, this](const comm::Outcome& outcome, int sender) {
    if (outcome.kind == comm::Outcome::Kind::peer_lost) failed_ = true;
    if (outcome.kind != comm::Outcome::Kind::done || !host.copied()) {
      return work->end(exception_of({outcome.kind, with_type_names(outcome.what)}), sender);
    }
    const auto finish = [work, host, sender] {
      try {
        host.commit();
        work->end(nullptr, sender);
      } catch (const std::exception&) {
        work->end(std::current_exception(), sender);
      }
    };
    if (!callbacks_->put(finish)) finish();
  };
  const auto operation = driver_->receive(source, tag, host.bytes(), type_code(tensor), done);
  work->on_abort([driver = std::weak_ptr<Driver>(driver_), operation] {
    if (const auto alive = driver.lock()) alive->cancel(operation, "the recv was aborted");
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
