// The backend `hetsp` of torch.distributed.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "c10d/collective_thread.h"
#include "c10d/driver.h"
#include "c10d/program.h"
#include "c10d/reduction.h"
#include "c10d/task_thread.h"
#include "c10d/tensors.h"
#include "c10d/work.h"

namespace hetsp::routed {

// Every message goes through the engine of this rank, so that all operations use every NIC and survive the loss of one.
// Collectives are made of such messages, on a thread of their own and in the order in which they were posted.
class Backend : public ::c10d::Backend {
 public:
  Backend(int rank, comm::Topology topology, comm::EngineOptions options, std::chrono::milliseconds timeout,
          std::vector<LinkEnd> links, Dialler dialler, const std::optional<DeviceSetup>& device = {},
          std::optional<SharedNode> shared = {});
  ~Backend() override;

  const std::string getBackendName() const override { return "hetsp"; }
  c10::intrusive_ptr<Options> getBackendOptions() override;
  void setTimeout(std::chrono::milliseconds timeout) override { timeout_ = timeout; }
  ::c10d::ErrorType getError() override;
  void setSequenceNumberForGroup() override {}
  std::uint64_t getSequenceNumberForGroup() override { return collectives_posted_; }
  void abort() override;     // at once
  void shutdown() override;  // what was sent still arrives
  std::uint64_t job() const { return job_; }
  comm::Statistics statistics() { return driver_->statistics(); }
  std::string report() { return driver_->report(); }

  // Lanes for the memory of the device that this backend was made with; all ranks use them, or none does. Collectives on such
  // tensors go to `collectives` where it is there: routing cannot help them.
  std::string lanes_settled() { return driver_->device_settled(); }  // waits; empty, or why there are none
  void use_lanes(c10::intrusive_ptr<::c10d::Backend> collectives);
  void turn_lanes_off() { driver_->turn_off_device(); }
  DeviceStatistics lane_statistics() { return driver_->device_statistics(); }

  c10::intrusive_ptr<::c10d::Work> send(std::vector<at::Tensor>& tensors, int destination, int tag) override;
  c10::intrusive_ptr<::c10d::Work> recv(std::vector<at::Tensor>& tensors, int source, int tag) override;
  c10::intrusive_ptr<::c10d::Work> recvAnysource(std::vector<at::Tensor>& tensors, int tag) override;
  bool supportsCoalescing() const override { return true; }
  void startCoalescing() override;
  c10::intrusive_ptr<::c10d::Work> endCoalescing() override;

  c10::intrusive_ptr<::c10d::Work> broadcast(std::vector<at::Tensor>& tensors,
                                             const ::c10d::BroadcastOptions& options) override;
  c10::intrusive_ptr<::c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                             const ::c10d::AllreduceOptions& options) override;
  c10::intrusive_ptr<::c10d::Work> allreduce_coalesced(std::vector<at::Tensor>& tensors,
                                                       const ::c10d::AllreduceCoalescedOptions& options) override;
  c10::intrusive_ptr<::c10d::Work> reduce(std::vector<at::Tensor>& tensors, const ::c10d::ReduceOptions& options) override;
  c10::intrusive_ptr<::c10d::Work> allgather(std::vector<std::vector<at::Tensor>>& outputs, std::vector<at::Tensor>& inputs,
                                             const ::c10d::AllgatherOptions& options) override;
  c10::intrusive_ptr<::c10d::Work> allgather_coalesced(std::vector<std::vector<at::Tensor>>& outputs,
                                                       std::vector<at::Tensor>& inputs,
                                                       const ::c10d::AllgatherOptions& options) override;
  c10::intrusive_ptr<::c10d::Work> _allgather_base(at::Tensor& output, at::Tensor& input,
                                                   const ::c10d::AllgatherOptions& options) override;
  c10::intrusive_ptr<::c10d::Work> allgather_into_tensor_coalesced(std::vector<at::Tensor>& outputs,
                                                                   std::vector<at::Tensor>& inputs,
                                                                   const ::c10d::AllgatherOptions& options) override;
  c10::intrusive_ptr<::c10d::Work> gather(std::vector<std::vector<at::Tensor>>& outputs, std::vector<at::Tensor>& inputs,
                                          const ::c10d::GatherOptions& options) override;
  c10::intrusive_ptr<::c10d::Work> scatter(std::vector<at::Tensor>& outputs, std::vector<std::vector<at::Tensor>>& inputs,
                                           const ::c10d::ScatterOptions& options) override;
  c10::intrusive_ptr<::c10d::Work> reduce_scatter(std::vector<at::Tensor>& outputs,
                                                  std::vector<std::vector<at::Tensor>>& inputs,
                                                  const ::c10d::ReduceScatterOptions& options) override;
  c10::intrusive_ptr<::c10d::Work> _reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                                                        const ::c10d::ReduceScatterOptions& options) override;
  c10::intrusive_ptr<::c10d::Work> reduce_scatter_tensor_coalesced(std::vector<at::Tensor>& outputs,
                                                                   std::vector<at::Tensor>& inputs,
                                                                   const ::c10d::ReduceScatterOptions& options) override;
  c10::intrusive_ptr<::c10d::Work> alltoall_base(at::Tensor& output, at::Tensor& input, std::vector<std::int64_t>& output_sizes,
                                                 std::vector<std::int64_t>& input_sizes,
                                                 const ::c10d::AllToAllOptions& options) override;
  c10::intrusive_ptr<::c10d::Work> alltoall(std::vector<at::Tensor>& outputs, std::vector<at::Tensor>& inputs,
                                            const ::c10d::AllToAllOptions& options) override;
  c10::intrusive_ptr<::c10d::Work> barrier(const ::c10d::BarrierOptions& options) override;

 private:
  // A collective in the making: its rounds, and the tensors that must stay until they are done.
  struct Plan {
    Program program;
    std::uint16_t type = 0;
    CollectiveThread::Place place = CollectiveThread::Place::numbered;
    std::vector<FlatTensor> outputs;  // written back at the end
    std::vector<at::Tensor> kept;
  };

  c10::intrusive_ptr<Work> make_work(::c10d::OpType type, std::string what, std::chrono::milliseconds timeout,
                                     std::vector<at::Tensor> results);
  c10::intrusive_ptr<::c10d::Work> receive(std::vector<at::Tensor>& tensors, int source, int tag, ::c10d::OpType type);
  bool on_lanes(const at::Tensor& tensor, const char* what) const;  // its bytes go by the lanes of the device
  ::c10d::Backend* elsewhere(const at::Tensor& tensor) const;  // who carries out its collectives; null: this backend
  ::c10d::Backend* elsewhere(const std::vector<at::Tensor>& tensors) const;
  // Posts once the device has done what the tensor waits for, or at once on the host; sets how to abort the work.
  void post(const c10::intrusive_ptr<Work>& work, const std::optional<at::Device>& device, const char* aborted,
            std::function<comm::Operation(Driver&)> start);
  c10::intrusive_ptr<::c10d::Work> start(Plan plan, ::c10d::OpType type, const char* what, std::chrono::milliseconds timeout,
                                         std::vector<at::Tensor> results);
  void stop(std::chrono::milliseconds grace);
  c10::intrusive_ptr<::c10d::Work> farewell();  // a barrier of those who are about to leave
  void carry_for_others(std::chrono::milliseconds grace);

  // Rounds that need nothing but pieces, one for each rank.
  void plan_allgather(Plan& plan, const std::vector<at::Tensor>& pieces) const;
  void plan_allreduce(Plan& plan, const at::Tensor& flat, const ::c10d::ReduceOp& op) const;
  void plan_reduce_scatter(Plan& plan, const std::vector<at::Tensor>& pieces, const at::Tensor& output,
                           const ::c10d::ReduceOp& op) const;
  void plan_alltoall(Plan& plan, const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs) const;
  void plan_allgather_base(Plan& plan, const at::Tensor& output, const at::Tensor& input) const;
  void plan_reduce_scatter_base(Plan& plan, const at::Tensor& output, const at::Tensor& input,
                                const ::c10d::ReduceOp& op) const;
  std::vector<at::Tensor> take(Plan& plan, const std::vector<at::Tensor>& tensors, FlatTensor::Use use, const char* what,
                               bool on_device = false) const;

  const std::uint64_t job_;
  const Ring ring_;
  std::atomic<std::chrono::milliseconds> timeout_;
  std::atomic<bool> failed_{false};
  std::atomic<std::uint64_t> collectives_posted_{0};
  const std::shared_ptr<TaskThread> callbacks_;
  const std::shared_ptr<Driver> driver_;
  const int device_;  // whose memory the lanes carry; -1: none
  std::atomic<bool> lanes_{false};
  c10::intrusive_ptr<::c10d::Backend> device_collectives_;
  const std::shared_ptr<TaskThread> ready_ = std::make_shared<TaskThread>();  // waits for devices, in the order of posting
  CollectiveThread collectives_;
  bool coalescing_ = false;
  std::vector<c10::intrusive_ptr<Work>> coalesced_;
};

}  // namespace hetsp::routed
