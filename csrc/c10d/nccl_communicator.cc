#include "c10d/nccl_communicator.h"

#include <utility>

#include "hetsp/base/error.h"

namespace hetsp::routed {

NcclCommunicator::NcclCommunicator(std::shared_ptr<const NcclLibrary> library, const nccl::UniqueId& id, bool sends,
                                   void* stream)
    : library_(std::move(library)), api_(library_->api()), sends_(sends), stream_(stream) {
  nccl::Config config;
  config.blocking = 0;
  config.min_ctas = config.max_ctas = 1;
  take(api_.comm_init_rank_config(&comm_, 2, id, sends ? 0 : 1, &config), "ncclCommInitRankConfig");
  // Whether it has begun or is done already, only the question for its error says when it may be used.
  if (state_ != State::failed) state_ = State::starting;
}

NcclCommunicator::~NcclCommunicator() {
  if (comm_ != nullptr) api_.comm_abort(comm_);
}

void NcclCommunicator::take(nccl::Result result, const char* call) {
  if (result == nccl::success) {
    state_ = State::ready;
  } else if (result == nccl::in_progress) {
    if (state_ != State::starting) state_ = State::busy;
  } else {
    state_ = State::failed;
    const char* const detail = comm_ != nullptr ? api_.get_last_error(comm_) : nullptr;
    why_ = concat(call, ": ", api_.get_error_string(result));
    if (detail != nullptr && *detail != '\0') why_ += concat(" (", detail, ")");
  }
}

NcclCommunicator::State NcclCommunicator::progress() {
  if (state_ == State::failed) return state_;
  nccl::Result error = nccl::success;
  const nccl::Result asked = api_.comm_get_async_error(comm_, &error);
  take(asked == nccl::success ? error : asked, sends_ ? "sending by NCCL" : "receiving by NCCL");
  return state_;
}

void NcclCommunicator::transfer(void* memory, std::size_t bytes) {
  invariant(state_ == State::ready, "a communicator that is not ready was used");
  if (sends_) {
    take(api_.send(memory, bytes, nccl::int8, 1, comm_, stream_), "ncclSend");
  } else {
    take(api_.receive(memory, bytes, nccl::int8, 0, comm_, stream_), "ncclRecv");
  }
}

}  // namespace hetsp::routed
