// A communicator of NCCL for one direction of one link: rank 0 sends, rank 1 receives.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "c10d/nccl_library.h"

namespace hetsp::routed {

// One for each direction, each with a stream of its own: on a shared stream two ends that both send first would wait for each
// other, and so would three ranks in a ring. It is made without blocking (ncclConfig_t::blocking = 0), so a peer that never
// comes holds nobody up, and gets one block of the device (CTA), for many of them run beside training.
//
// Ends by ncclCommAbort, always: what a lane carries is acknowledged above it, so when it ends nothing is owed, and neither
// ncclCommFinalize nor ncclCommDestroy returns when the other end is gone. Lives on one thread; no call blocks but its end.
class NcclCommunicator {
 public:
  enum class State { starting, ready, busy, failed };  // busy: the last call still goes on, no other may follow it

  NcclCommunicator(std::shared_ptr<const NcclLibrary> library, const nccl::UniqueId& id, bool sends, void* stream);
  ~NcclCommunicator();
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  State progress();  // asks NCCL
  [[nodiscard]] State state() const { return state_; }
  [[nodiscard]] const std::string& why() const { return why_; }  // it failed, with NCCL's words

  // Queues one send, or one receive, on the stream. Only while ready; the state tells what came of it.
  void transfer(void* memory, std::size_t bytes);

 private:
  void take(nccl::Result result, const char* call);

  const std::shared_ptr<const NcclLibrary> library_;
  const nccl::Api& api_;
  const bool sends_;
  void* const stream_;
  nccl::Comm* comm_ = nullptr;
  State state_ = State::starting;
  std::string why_;
};

}  // namespace hetsp::routed
