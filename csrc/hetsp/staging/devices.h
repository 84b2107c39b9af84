// The devices that one owner copies from: a copier for each, made when first wanted, and the memory pinned for all.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "hetsp/staging/device_copier.h"

namespace hetsp::staging {

class Devices {
 public:
  // runtime: borrowed; null: CUDA's, looked for at the first use.
  Devices(DeviceRuntime* runtime, const DeviceCopier::Options& options) : runtime_(runtime), options_(options) {}
  ~Devices();
  Devices(const Devices&) = delete;
  Devices& operator=(const Devices&) = delete;

  [[nodiscard]] const DeviceCopier::Options& options() const { return options_; }
  [[nodiscard]] DeviceCopier& at(int device);  // throws DeviceError

  // For the one thread that copies, before it does: this thread's calls are to work while another one records a graph, and
  // `memory`, always the same, is to be pinned. Throws DeviceError, and tries again when called again.
  void enter(void* memory, std::int64_t bytes);

 private:
  DeviceRuntime& runtime();

  std::mutex mutex_;
  DeviceRuntime* runtime_;
  const DeviceCopier::Options options_;
  std::map<int, std::unique_ptr<DeviceCopier>> copiers_;
  void* pinned_ = nullptr;
};

}  // namespace hetsp::staging
