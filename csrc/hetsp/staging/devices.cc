#include "hetsp/staging/devices.h"

namespace hetsp::staging {

DeviceRuntime& Devices::runtime() {
  if (runtime_ == nullptr) runtime_ = &cuda_runtime();
  return *runtime_;
}

Devices::~Devices() {
  copiers_.clear();  // nothing is under way to the memory any more
  if (pinned_ == nullptr) return;
  try {
    runtime_->unpin(pinned_);
  } catch (...) {  // NOLINT(bugprone-empty-catch): the device is lost, and its pins with it
  }
}

DeviceCopier& Devices::at(int device) {
  const std::lock_guard lock(mutex_);
  auto& copier = copiers_[device];
  if (copier == nullptr) copier = std::make_unique<DeviceCopier>(runtime(), device, options_);
  return *copier;
}

void Devices::enter(void* memory, std::int64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (pinned_ != nullptr) return;
  runtime().allow_during_graph_capture();
  runtime().pin(memory, bytes);
  pinned_ = memory;
}

}  // namespace hetsp::staging
