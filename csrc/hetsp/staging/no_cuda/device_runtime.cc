#include "hetsp/staging/device_runtime.h"

#include "hetsp/base/error.h"
#include "hetsp/device/device.h"

namespace hetsp::staging {

DeviceRuntime& cuda_runtime() {
  throw device::DeviceError(concat("copying from a GPU is absent: ", device::cuda_absent_why()));
}

}  // namespace hetsp::staging
