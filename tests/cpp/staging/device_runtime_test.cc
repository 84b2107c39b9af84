#include "hetsp/staging/device_runtime.h"

#include <cstdio>
#include <string>

#include "hetsp/device/device.h"
#include "staging/fake_device.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::staging;

TEST(the_current_device_is_current_until_the_end) {
  FakeDevice devices;
  devices.set_device(3);
  {
    const CurrentDevice one(devices, 1);
    CHECK_EQ(devices.current_device(), 1);
    const CurrentDevice again(devices, 1);
    try {
      const CurrentDevice two(devices, 2);
      CHECK_EQ(devices.current_device(), 2);
      throw device::DeviceError("of the work");
    } catch (const device::DeviceError&) {
    }
    CHECK_EQ(devices.current_device(), 1);
  }
  CHECK_EQ(devices.current_device(), 3);
}

// Of the implementation that this library was built with: where there is a device it has to copy, elsewhere to say why not.
TEST(cuda_copies_or_says_why_not) {
  if (device::cuda_device_count() == 0) {
    std::printf("     no device: %s\n", device::cuda_absent_why());
    if (!device::cuda_compiled()) {
      CHECK_THROWS(device::DeviceError, "copying from a GPU is absent: hetsp_ext was built without CUDA", cuda_runtime());
    } else {
      CHECK_THROWS(device::DeviceError, "cuda", cuda_runtime().create_stream());
    }
    return;
  }
  DeviceRuntime& cuda = cuda_runtime();
  const CurrentDevice current(cuda, 0);
  cuda.allow_during_graph_capture();
  const DeviceRuntime::Stream stream = cuda.create_stream(), other = cuda.create_stream();
  const DeviceRuntime::Event event = cuda.create_event();
  constexpr std::int64_t kBytes = 1000003;
  auto* const source = static_cast<char*>(cuda.allocate_pinned(kBytes));
  auto* const block = static_cast<char*>(cuda.allocate(kBytes));
  std::string target(kBytes, '\0');
  for (std::int64_t i = 0; i < kBytes; ++i) source[i] = static_cast<char>(i * 7 % 251);
  cuda.pin(target.data(), kBytes);
  // Pinned memory is the device's to read, too.
  for (const GatherParams& params : gathers_of({{source, 5}, {source + 5, kBytes - 5}}, block)) cuda.gather(params, stream);
  cuda.breathe(stream);
  cuda.record(event, stream);
  cuda.wait(other, event);
  cuda.copy_to_host(target.data(), block, kBytes, other);
  cuda.record(event, other);
  cuda.synchronize_event(event);
  CHECK(cuda.done(event));
  CHECK(target == std::string(source, kBytes));
  cuda.synchronize_stream(stream);
  cuda.unpin(target.data());
  cuda.free(block);
  cuda.free_pinned(source);
  cuda.destroy_event(event);
  cuda.destroy_stream(stream);
  cuda.destroy_stream(other);
}

TEST_MAIN()
