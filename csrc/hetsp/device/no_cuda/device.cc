#include "hetsp/device/device.h"

namespace hetsp::device {

bool cuda_compiled() { return false; }
int cuda_device_count() { return 0; }
const char* cuda_absent_why() { return "hetsp_ext was built without CUDA: no nvcc was found, or HETSP_CUDA=OFF"; }

}  // namespace hetsp::device
