#include "c10d/nccl_library.h"

#include <string>

#include "c10d/device_group.h"

using namespace device_group;

TEST(versions_are_told_as_people_write_them) {
  CHECK_EQ(NcclLibrary::version_text(22809), std::string("2.28.9"));
  CHECK_EQ(NcclLibrary::version_text(23007), std::string("2.30.7"));
  CHECK_EQ(NcclLibrary::version_text(2708), std::string("2.7.8"));
}

TEST(what_is_no_nccl_says_what_it_lacks) {
  CHECK_THROWS(NcclAbsent, "/nowhere/libnccl.so.2: ", NcclLibrary::open("/nowhere/libnccl.so.2"));
  CHECK_THROWS(NcclAbsent, "libm.so.6 has no function ncclGetVersion", NcclLibrary::open("libm.so.6"));
  CHECK_THROWS(NcclAbsent, "has no function ncclGetUniqueId", NcclLibrary::open(HETSP_BARE_NCCL));
  Stub stub;
  stub.set("version", 21005);
  CHECK_THROWS(NcclAbsent, " is NCCL 2.10.5; at least 2.18.0 is needed", NcclLibrary::open(HETSP_STUB_NCCL));
  stub.set("version", 0);
}

// This process has loaded no libnccl.so.2; what the loader finds, if anything, is the machine's affair.
TEST(a_file_asked_for_comes_before_what_the_loader_finds) {
  Stub stub;
  CHECK_EQ(NcclLibrary::find(HETSP_STUB_NCCL, "")->path(), std::string(HETSP_STUB_NCCL));
  CHECK_EQ(NcclLibrary::find(HETSP_STUB_NCCL, "")->version(), std::string("2.28.9"));
  CHECK_THROWS(NcclAbsent, "/nowhere/libnccl.so: ", NcclLibrary::find("/nowhere/libnccl.so", HETSP_STUB_NCCL));
  CHECK(NcclLibrary::find("", HETSP_STUB_NCCL) != nullptr);
}

// The stub is what finds wrong calls in the other tests: here it is shown to find them.
TEST(the_stub_finds_calls_that_break_the_rules) {
  Stub stub;
  FakeDevice fake;
  stub.use(fake);
  const auto library = stub.library();
  const nccl::Api& api = library->api();
  const auto stream = fake.stream(0), other = fake.stream(1);
  char* const memory = fake.memory(0, std::string(64, 'x'));
  const auto misused = [&](const nccl::Result result) {
    static std::int64_t before = 0;
    const std::int64_t now = stub.count("misuses");
    const bool found = now == before + 1 && result != nccl::success;
    before = now;
    return found;
  };
  nccl::UniqueId id{};
  CHECK_EQ(api.get_unique_id(&id), nccl::success);
  nccl::Config config;
  config.blocking = 0;
  config.min_ctas = config.max_ctas = 1;
  nccl::Comm *sender = nullptr, *receiver = nullptr;
  nccl::Config wrong = config;
  wrong.blocking = 1;
  CHECK(misused(api.comm_init_rank_config(&sender, 2, id, 0, &wrong)));
  wrong.magic = 1;
  CHECK(misused(api.comm_init_rank_config(&sender, 2, id, 0, &wrong)));
  CHECK_EQ(api.comm_init_rank_config(&sender, 2, id, 0, &config), nccl::in_progress);
  CHECK(misused(api.comm_init_rank_config(&receiver, 2, id, 0, &config)));
  CHECK(misused(api.send(memory, 8, nccl::int8, 1, sender, stream)));  // before it is ready
  nccl::Result error = nccl::success;
  CHECK(api.comm_get_async_error(sender, &error) == nccl::success && error == nccl::in_progress);
  CHECK_EQ(api.comm_init_rank_config(&receiver, 2, id, 1, &config), nccl::in_progress);
  CHECK(api.comm_get_async_error(sender, &error) == nccl::success && error == nccl::success);
  CHECK(api.comm_get_async_error(receiver, &error) == nccl::success && error == nccl::success);
  CHECK(misused(api.receive(memory, 8, nccl::int8, 1, sender, stream)));
  CHECK(misused(api.send(memory, 8, nccl::int8, 0, sender, stream)));
  CHECK_EQ(api.send(memory, 8, nccl::int8, 1, sender, stream), nccl::success);
  CHECK_EQ(api.receive(memory + 8, 9, nccl::int8, 0, receiver, other), nccl::success);
  fake.synchronize_stream(stream);
  fake.synchronize_stream(other);
  CHECK(api.comm_get_async_error(receiver, &error) == nccl::success);
  CHECK(misused(error));
  CHECK_EQ(std::string(api.get_last_error(receiver)),
           std::string("a send of 8 bytes of type 0 meets a receive of 9 of type 0"));
  stub.set("slow", 2);
  CHECK_EQ(api.send(memory, 8, nccl::int8, 1, sender, stream), nccl::in_progress);
  CHECK(misused(api.send(memory, 8, nccl::int8, 1, sender, stream)));  // the last one is not over
  CHECK(stub.misuse().find("a communicator that blocks") == 0);
  api.comm_abort(sender);
  api.comm_abort(receiver);
  fake.synchronize_stream(stream);
  CHECK_EQ(stub.count("live"), std::int64_t{0});
}

TEST_MAIN()
