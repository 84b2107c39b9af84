// Captures of device memory by the engine, over a run time of threads: what a GPU and its streams may do in any order.
#include <filesystem>
#include <random>
#include <thread>

#include "checkpoint/faulty_file_system.h"
#include "checkpoint/scratch_directory.h"
#include "checkpoint/state_in_memory.h"
#include "hetsp/base/error.h"
#include "hetsp/checkpoint/engine.h"
#include "staging/fake_device.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::checkpoint;
using staging::FakeDevice;

namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr std::uint64_t kSeeds = 8;
#else
constexpr std::uint64_t kSeeds = 40;
#endif

constexpr std::int64_t kSlot = 8192;

Engine::Options options(FakeDevice& fake, int slots = 4, std::int64_t slot_bytes = kSlot) {
  return {.ring_bytes = slots * slot_bytes, .slot_bytes = slot_bytes, .runtime = &fake};
}

// A state of which random spans lie on one of two devices, eager or not, written by kernels that are still queued; and what
// training does next, which a capture must not see.
struct StateOnDevices {
  StateOnDevices(FakeDevice& fake_device, std::uint64_t seed, std::size_t most = 20) : fake(fake_device), state(seed, most) {
    std::mt19937_64 random(seed);
    for (int device = 0; device < 2; ++device) producers[device] = fake.stream(device);
    for (std::size_t s = 0; s < state.sources.size(); ++s) {
      Span span{state.sources[s].data(), static_cast<std::int64_t>(state.sources[s].size()), state.groups[s]};
      if (random() % 4 != 0) {
        span.device = static_cast<int>(random() % 2);
        span.eager = random() % 4 == 0;
        char* const memory = fake.memory(span.device, std::string(state.sources[s].size(), '\0'));
        fake.write(producers[span.device], memory, state.sources[s]);
        span.data = memory;
      }
      spans.push_back(span);
    }
  }
  // Batch statistics and the like change at once.
  void go_on() {
    for (const Span& span : spans)
      if (span.eager)
        fake.write(producers[span.device], static_cast<char*>(const_cast<void*>(span.data)),
                   std::string(static_cast<std::size_t>(span.bytes), '!'));
  }
  // The optimizer writes a group when the capture has let go of it.
  void step(Capture& capture) {
    for (std::int64_t group = 0; group < 4; ++group) {
      CHECK(capture.wait_group(group).has_value());
      for (std::size_t s = 0; s < spans.size(); ++s)
        if (spans[s].group == group && spans[s].device != kHost && !spans[s].eager)
          fake.write(producers[spans[s].device], static_cast<char*>(const_cast<void*>(spans[s].data)),
                     std::string(static_cast<std::size_t>(spans[s].bytes), '?'));
    }
  }

  FakeDevice& fake;
  StateInMemory state;
  std::map<int, void*> producers;
  std::vector<Span> spans;
};

StateInMemory one_tensor(std::size_t bytes) {
  StateInMemory state(1, 0);
  state.header.assign(100, 'h');
  state.sources = {std::string(bytes, 'w')};
  state.groups = {0};
  return state;
}

}  // namespace

TEST(the_file_is_the_state_at_begin_whatever_the_devices_do_next) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const ScratchDirectory scratch;
    FakeDevice fake(seed);
    {
      Engine engine(options(fake, 1 + static_cast<int>(seed % 4), seed % 3 == 0 ? kSlot : std::int64_t{1} << 20));
      StateOnDevices state(fake, seed);
      fake.set_device(1);
      const auto capture = engine.begin(scratch / "a", state.state.header, state.spans, state.producers);
      CHECK_EQ(fake.current_device(), 1);
      state.go_on();
      state.step(*capture);
      CHECK(capture->wait_captured().has_value());
      CHECK(capture->wait_written().has_value());
      check_written(*capture, state.state, read_file(scratch / "a"), engine.checksum());
      if (fake.calls("gather") > 0) CHECK_THROWS(InvalidArgument, "lies on device", capture->rehash());
    }
    CHECK_EQ(fake.live(), 2);  // the producers
  }
}

TEST(one_save_after_another_through_one_pinned_ring) {
  const ScratchDirectory scratch;
  FakeDevice fake(1);
  {
    Engine engine(options(fake));
    std::vector<std::unique_ptr<StateOnDevices>> states;
    std::vector<std::shared_ptr<Capture>> captures;
    for (std::uint64_t i = 0; i < 8; ++i) {  // the next begins while the last is on its way
      states.push_back(std::make_unique<StateOnDevices>(fake, 100 + i, 6));
      StateOnDevices& s = *states.back();
      captures.push_back(engine.begin(scratch / std::to_string(i), s.state.header, s.spans, s.producers));
      s.go_on();
    }
    for (std::uint64_t i = 0; i < 8; ++i) {
      check::context() = "save " + std::to_string(i);
      CHECK(captures[i]->wait_written().has_value());
      check_written(*captures[i], states[i]->state, read_file(scratch / std::to_string(i)), engine.checksum());
    }
    CHECK_EQ(fake.calls("pin"), 1);
  }
}

TEST(a_group_is_held_while_its_producer_is_busy) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem fs(disk);
  FakeDevice fake(2);
  Engine engine(options(fake, 4), fs);
  const StateInMemory state = one_tensor(3 * kSlot);
  const auto stream = fake.stream(0);
  std::mutex gate;
  gate.lock();
  fake.run(stream, [&] { const std::lock_guard wait(gate); });  // the producer is busy
  const std::vector<Span> spans{{fake.memory(0, state.sources[0]), 3 * kSlot, 0, 0, false}};
  const auto capture = engine.begin(scratch / "a", state.header, spans, {{0, stream}});
  CHECK(!capture->wait_group(0, 0.02).has_value());
  CHECK_EQ(fs.calls(Operation::pwrite), 0);
  gate.unlock();
  CHECK(capture->wait_group(0).has_value());
  CHECK(capture->wait_captured().has_value());
  CHECK(capture->captured());
  CHECK(capture->wait_written().has_value());
  check_written(*capture, state, read_file(scratch / "a"), engine.checksum());
}

// Written after save() and before its copy, as a whole or in part; what is eager may change.
TEST(a_write_inside_the_window_is_reported) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const ScratchDirectory scratch;
    FakeDevice fake(seed);
    Engine engine(options(fake, 3));
    const auto stream = fake.stream(0);
    StateInMemory state(1, 0);
    state.header.assign(1 + seed * 97, 'h');
    state.sources = {std::string(100 + seed * 61, 'a'), std::string(300000, 'b'), std::string(70, 'c'), std::string(9000, 'd')};
    state.groups = {0, 0, 0, 0};
    std::vector<Span> spans = state.spans();
    std::vector<char*> memory;
    for (std::size_t s = 0; s < spans.size(); ++s) {
      memory.push_back(fake.memory(0, state.sources[s]));
      spans[s].data = memory[s], spans[s].device = 0, spans[s].eager = s == 3;
    }
    const bool whole = seed % 2 == 0;
    const std::size_t untouched = whole ? 0 : 150000;  // by then no copy behind it has begun
    fake.before(whole ? "wait" : "copy_to_host", whole ? 1 : 10, [&] {
      fake.write(stream, memory[1] + untouched, std::string(300000 - untouched, 'z'));
      fake.write(stream, memory[3], std::string(9000, 'z'));
      fake.synchronize_stream(stream);
    });
    const auto capture = engine.begin(scratch / "a", state.header, spans, {{0, stream}});
    CHECK(capture->wait_captured().has_value());
    CHECK(capture->changed() == std::vector<std::int64_t>{1});
    CHECK(capture->wait_written().has_value());
    const auto next = engine.begin(scratch / "b", state.header, spans, {{0, stream}});
    CHECK(next->wait_written().has_value());
    CHECK(next->changed().empty());
    const std::string changed = std::string(untouched, 'b') + std::string(300000 - untouched, 'z');
    const std::string before = state.header + state.sources[0] + changed + state.sources[2];
    CHECK(read_file(scratch / "a") == before + state.sources[3]);
    CHECK(read_file(scratch / "b") == before + std::string(9000, 'z'));
  }
}

// Each call of the run time that may fail, each time: that capture fails by its name, its groups are let go and its file is
// gone; the next capture is as if nothing had been.
TEST(every_call_that_fails_fails_the_capture_and_nothing_else) {
  const ScratchDirectory scratch;
  std::map<std::string, std::int64_t> calls;
  for (std::int64_t run = -1, all = 0; run < all; ++run) {
    FakeDevice fake(7);
    StateInMemory memory(1, 0);
    for (int i = 0; i < 6; ++i)
      memory.sources.push_back(std::string(5000, static_cast<char>('a' + i))), memory.groups.push_back(i);
    std::vector<Span> spans = memory.spans();
    for (std::size_t s = 0; s < spans.size(); ++s)
      if (s % 3 != 2) {
        spans[s].device = static_cast<int>(s / 3);
        spans[s].data = fake.memory(spans[s].device, memory.sources[s]);
        spans[s].eager = s == 4;
      }
    const std::map<int, void*> producers{{0, fake.stream(0)}, {1, fake.stream(1)}};
    const auto before = fake.all_calls();
    Engine engine(options(fake, 2));
    std::int64_t nth = run + 1;
    auto call = calls.begin();
    while (run >= 0 && nth > call->second) nth -= call->second, ++call;
    if (run >= 0) {
      check::context() = call->first + " " + std::to_string(nth);
      fake.fail(call->first, nth);
    }
    const auto capture = engine.begin(scratch / "a", memory.header, spans, producers);
    for (std::int64_t group = 0; group < 6; ++group) CHECK(capture->wait_group(group).has_value());
    CHECK(capture->wait_captured().has_value());
    bool threw = false;
    try {
      (void)capture->wait_written();
      check_written(*capture, memory, read_file(scratch / "a"), engine.checksum());
      std::filesystem::remove(std::string(scratch / "a"));
    } catch (const IoError& error) {
      threw = true;
      CHECK_EQ(error.code(), EIO);
      CHECK(std::string(error.what()) == "device copy " + std::string(scratch / "a") + ": " + call->first +
                                             ": cudaErrorLaunchFailure: unspecified launch failure");
      CHECK(!std::filesystem::exists(std::string(scratch / "a")));
    }
    if (run < 0) {
      CHECK(!threw);
      for (const auto& [name, count] : fake.all_calls()) {
        const std::int64_t made = count - (before.count(name) > 0 ? before.at(name) : 0);
        if (name != "free" && name.rfind("destroy", 0) != 0 && name != "synchronize_stream") calls[name] = made, all += made;
      }
      CHECK(all > 40);
    } else {
      // Without memory it goes on, slower. The others are made as often as time has it: fewer of them than in the first run,
      // and the fault was never reached.
      CHECK(threw || call->first == "allocate" || call->first == "set_device" || call->first == "done" ||
            call->first == "breathe");
    }
    fake.heal();
    const auto next = engine.begin(scratch / "b", memory.header, spans, producers);
    CHECK(next->wait_written().has_value());
    check_written(*next, memory, read_file(scratch / "b"), engine.checksum());
    std::filesystem::remove(std::string(scratch / "b"));
  }
}

TEST(a_full_disk_lets_go_of_the_groups_after_what_is_under_way) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const ScratchDirectory scratch;
    PosixFileSystem disk;
    FaultyFileSystem fs(disk);
    fs.fail({.operation = Operation::pwrite, .nth = 2, .code = ENOSPC, .times = FaultyFileSystem::kForever, .part = "/a"});
    FakeDevice fake(seed, 200);
    const StateInMemory memory = one_tensor(20 * kSlot);
    const auto stream = fake.stream(0);
    char* const weights = fake.memory(0, memory.sources[0]);
    const std::vector<Span> spans{{weights, 20 * kSlot, 0, 0, false}};
    Engine engine(options(fake, 3), fs);
    const auto failing = engine.begin(scratch / "a", memory.header, spans, {{0, stream}});
    CHECK(failing->wait_group(0).has_value());
    fake.write(stream, weights, memory.sources[0]);  // the optimizer: no copy may still be reading
    CHECK_THROWS(IoError, "(ENOSPC)", (void)failing->wait_written());
    const auto next = engine.begin(scratch / "b", memory.header, spans, {{0, stream}});
    CHECK(next->wait_written().has_value());
    check_written(*next, memory, read_file(scratch / "b"), engine.checksum());
  }
}

TEST(destroyed_with_copies_under_way) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const ScratchDirectory scratch;
    FakeDevice fake(seed, 100);
    std::vector<std::shared_ptr<Capture>> captures;
    StateOnDevices state(fake, seed);
    {
      Engine engine(options(fake, 1 + static_cast<int>(seed % 3)));
      for (const char* name : {"a", "b", "c"})
        captures.push_back(engine.begin(scratch / name, state.state.header, state.spans, state.producers));
      if (seed % 3 == 0) CHECK(captures[0]->wait_group(1).has_value());
      if (seed % 3 == 1) captures[1]->cancel();
    }
    CHECK_EQ(fake.live(), 2);
    for (const auto& capture : captures) CHECK(capture->captured() && capture->written() != capture->failed());
    state.go_on();  // written again, with nobody reading
  }
}

TEST(a_device_that_is_lost_fails_each_capture_and_hangs_none) {
  const ScratchDirectory scratch;
  FakeDevice fake(3, 200);
  const StateInMemory memory = one_tensor(50 * kSlot);
  const auto stream = fake.stream(0);
  const std::vector<Span> spans{{fake.memory(0, memory.sources[0]), 50 * kSlot, 0, 0, false}};
  Engine engine(options(fake));
  const auto first = engine.begin(scratch / "a", memory.header, spans, {{0, stream}});
  while (first->bytes_captured() < kSlot) std::this_thread::yield();
  fake.break_down();
  CHECK_THROWS(IoError, "/a: ", (void)first->wait_written());
  const auto second = engine.begin(scratch / "b", memory.header, spans, {{0, stream}});
  CHECK(second->captured());
  CHECK_THROWS(IoError, "cudaErrorIllegalAddress: an illegal memory access", (void)second->wait_written());
  const StateInMemory host(4);
  const auto third = engine.begin(scratch / "c", host.header, host.spans());
  CHECK(third->wait_written().has_value());
  check_written(*third, host, read_file(scratch / "c"), engine.checksum());
}

TEST(bad_requests_are_named) {
  FakeDevice fake;
  Engine engine(options(fake));
  char* const memory = fake.memory(0, "abc");
  CHECK_THROWS(InvalidArgument, "span 0 lies on device 0, of which no stream is named",
               engine.begin("/x", "h", {{memory, 3, 0, 0, false}}, {{1, nullptr}}));
  CHECK_THROWS(InvalidArgument, "span 0 lies on device -2", engine.begin("/x", "h", {{memory, 3, 0, -2, false}}));
  CHECK_THROWS(InvalidArgument, "span 0 is eager and of the host", engine.begin("/x", "h", {{memory, 3, 0, kHost, true}}));
  CHECK_EQ(fake.calls("create_stream"), 0);
}

TEST_MAIN()
