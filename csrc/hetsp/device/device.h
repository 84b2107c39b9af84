// What CUDA offers this process. Two implementations, chosen by CMake: cuda/ and the stub no_cuda/.
#pragma once

namespace hetsp::device {

[[nodiscard]] bool cuda_compiled();          // were the kernels built into this library?
[[nodiscard]] int cuda_device_count();       // 0 without a driver or a device; never throws
[[nodiscard]] const char* cuda_absent_why(); // "" where cuda_device_count() > 0, else the reason in words

}  // namespace hetsp::device
