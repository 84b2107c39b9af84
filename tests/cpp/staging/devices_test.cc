#include "hetsp/staging/devices.h"

#include <string>

#include "staging/fake_device.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::staging;

TEST(a_copier_is_made_once_for_each_device) {
  FakeDevice fake;
  {
    Devices devices(&fake, {4096, 1});
    CHECK_EQ(fake.calls("create_stream"), 0);
    CHECK(&devices.at(0) == &devices.at(0));
    CHECK(&devices.at(0) != &devices.at(5));
    CHECK_EQ(fake.calls("create_stream"), 2);
    CHECK_EQ(devices.at(5).options().chunk_bytes, 4096);
  }
  CHECK_EQ(fake.live(), 0);
}

TEST(memory_is_pinned_once_and_unpinned_at_the_end) {
  FakeDevice fake;
  std::string memory(1000, 'm');
  {
    Devices devices(&fake, {});
    devices.enter(memory.data(), 1000);
    devices.enter(memory.data(), 1000);
    CHECK_EQ(fake.calls("pin"), 1);
    CHECK_EQ(fake.calls("allow_during_graph_capture"), 1);
    CHECK_EQ(fake.live(), 1);
  }
  CHECK_EQ(fake.live(), 0);
}

TEST(what_is_refused_is_tried_again) {
  FakeDevice fake;
  std::string memory(1000, 'm');
  Devices devices(&fake, {});
  fake.fail("pin");
  CHECK_THROWS(device::DeviceError, "pin: cudaErrorLaunchFailure", devices.enter(memory.data(), 1000));
  devices.enter(memory.data(), 1000);
  CHECK_EQ(fake.live(), 1);
  for (const char* call : {"create_stream", "create_event", "set_device"}) {
    check::context() = call;
    fake.fail(call);
    CHECK_THROWS(device::DeviceError, "cudaErrorLaunchFailure", devices.at(1));
    CHECK_EQ(fake.live(), 1);
  }
  (void)devices.at(1);
}

TEST(without_a_device_the_reason_is_given) {
  Devices devices(nullptr, {});
  if (device::cuda_device_count() == 0) {
    CHECK_THROWS(device::DeviceError, "", devices.at(0));
  }
}

TEST_MAIN()
