// What CUDA offers this process. Two implementations, chosen by CMake: cuda/ and the stub no_cuda/.
#pragma once

#include <stdexcept>

namespace hetsp::device {

[[nodiscard]] bool cuda_compiled();          // were the kernels built into this library?
[[nodiscard]] int cuda_device_count();       // 0 without a driver or a device; never throws
[[nodiscard]] const char* cuda_absent_why(); // "" where cuda_device_count() > 0, else the reason in words

// The device could not do it: no driver, a refused launch, an error of earlier work that only shows now. Reaches Python
// as a RuntimeError.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace hetsp::device
