#include "hetsp/checkpoint/capture.h"

#include <thread>

#include "checkpoint/faulty_file_system.h"
#include "checkpoint/scratch_directory.h"
#include "checkpoint/state_in_memory.h"
#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::checkpoint;

namespace {

constexpr std::int64_t kSlot = 8192;

struct Fixture {
  explicit Fixture(int slots = 4, int writers = 1, IoMode mode = IoMode::direct)
      : best(mode), ring(slots * kSlot, kSlot), queue(std::in_place, fs, WriteQueue::Options{mode, writers}) {}

  // Occupies the only writer while `gate` is locked.
  void block(std::mutex& gate) {
    const auto blocker = std::make_shared<OutputFile>(disk, scratch / "blocker", kSlot, IoMode::buffered);
    static const std::vector<char> page(kSlot);
    queue->write({blocker.get(), page.data(), kSlot, 0, [blocker, &gate](const auto&) { const std::lock_guard wait(gate); }});
  }

  std::shared_ptr<Capture> begin(const StateInMemory& state, const std::string& name = "a") {
    return std::make_shared<Capture>(fs,
                                     Capture::Request{scratch / name, state.header, state.spans(), best_checksum(), best, 1});
  }

  IoMode best;
  ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem fs{disk};
  staging::Ring ring;
  std::optional<WriteQueue> queue;
};

}  // namespace

TEST(the_file_is_header_and_spans_whatever_their_sizes) {
  for (std::uint64_t seed = 0; seed < 60; ++seed)
    for (const int slots : {1, 3}) {
      check::context() = "seed " + std::to_string(seed) + ", slots " + std::to_string(slots);
      Fixture f(slots, 1 + static_cast<int>(seed % 3), static_cast<IoMode>(seed / 3 % 3));
      const StateInMemory state(seed);
      const auto capture = f.begin(state);
      CHECK_EQ(f.fs.calls(Operation::open), 0);  // no file is touched by beginning
      capture->run(f.ring, *f.queue);
      CHECK(capture->wait_written().has_value());
      check_written(*capture, state, read_file(f.scratch / "a"), best_checksum());
      CHECK(capture->rehash().empty());
      CHECK_EQ(f.fs.open_descriptors(), 0);
    }
}

TEST(ten_thousand_tiny_spans) {
  Fixture f;
  StateInMemory state(1, 0);
  for (int i = 0; i < 10000; ++i)
    state.sources.push_back(std::string(i % 5, static_cast<char>(i))), state.groups.push_back(i % 7);
  const auto capture = f.begin(state);
  capture->run(f.ring, *f.queue);
  CHECK(capture->wait_written().has_value());
  check_written(*capture, state, read_file(f.scratch / "a"), best_checksum());
}

TEST(each_checksum_that_is_here) {
  for (const Checksum checksum : {Checksum::xxh3_128, Checksum::crc32c}) {
    if (!available(checksum)) continue;
    Fixture f;
    const StateInMemory state(7);
    const auto capture = std::make_shared<Capture>(
        f.fs, Capture::Request{f.scratch / "a", state.header, state.spans(), checksum, IoMode::buffered, 1});
    capture->run(f.ring, *f.queue);
    CHECK(capture->wait_written().has_value());
    check_written(*capture, state, read_file(f.scratch / "a"), checksum);
  }
}

TEST(groups_are_released_in_order_while_the_disk_is_stuck) {
  Fixture f(2);
  StateInMemory state(1, 0);
  state.header.assign(100, 'h');
  state.sources = {std::string(3000, 'a'), std::string(3000, 'b'), std::string(40000, 'c')};
  state.groups = {5, -1, 5};
  std::mutex gate;
  gate.lock();
  f.block(gate);
  const auto capture = f.begin(state);
  CHECK_EQ(*capture->wait_group(99), 0.0);
  CHECK(!capture->wait_group(-1, 0.0).has_value());
  std::thread copier([&] { capture->run(f.ring, *f.queue); });
  CHECK(capture->wait_group(-1).has_value());  // two slots hold it
  CHECK(!capture->wait_group(5, 0.01).has_value());
  CHECK(!capture->wait_captured(0.01).has_value());
  CHECK(!capture->wait_written(0.01).has_value());
  CHECK(!capture->captured());
  CHECK_THROWS(InvalidArgument, "extents of", capture->extents());
  CHECK_THROWS(InvalidArgument, "header_hash of", capture->header_hash());
  gate.unlock();
  copier.join();
  CHECK(capture->wait_group(5).has_value());
  CHECK(capture->wait_written().has_value());
  check_written(*capture, state, read_file(f.scratch / "a"), best_checksum());
  CHECK(capture->seconds().ring_full > 0);
  CHECK(capture->seconds().capture > 0 && capture->seconds().write >= capture->seconds().capture);
}

TEST(a_span_that_changed_before_its_copy_is_reported) {
  Fixture f;
  StateInMemory state(3, 0);
  state.sources = {std::string(100, 'a'), std::string(5 << 20, 'b'), std::string(100, 'c')};
  state.groups = {0, 0, 0};
  const auto capture = f.begin(state);
  for (char& c : state.sources[1]) c = 'z';
  capture->run(f.ring, *f.queue);
  CHECK(capture->wait_written().has_value());  // the engine reports, the caller decides
  CHECK(capture->changed() == std::vector<std::int64_t>{1});
}

TEST(a_change_that_the_probes_miss_is_found_by_hashing_again) {
  Fixture f;
  StateInMemory state(3, 0);
  state.sources = {std::string(2 << 20, 'a'), std::string(10, 'b'), std::string(3 << 20, 'c'), std::string(7, 'd'), "", "e"};
  state.groups.assign(6, 0);
  const auto capture = f.begin(state);
  CHECK_THROWS(InvalidArgument, "before it is captured", capture->rehash());
  capture->run(f.ring, *f.queue);
  CHECK(capture->rehash().empty());
  state.sources[2][1000000] = 'x';
  CHECK(capture->rehash() == std::vector<std::int64_t>{2});
  state.sources[5][0] = 'x';  // shares an extent with what lies beside it
  CHECK(capture->rehash() == (std::vector<std::int64_t>{2, 3, 5}));
}

TEST(every_call_that_fails_fails_the_capture_and_nothing_else) {
  const StateInMemory state(11);
  for (const IoMode mode : {IoMode::buffered, IoMode::direct, IoMode::io_uring}) {
    std::int64_t calls = 0;
    {
      Fixture f(4, 1, mode);
      const auto capture = f.begin(state);
      capture->run(f.ring, *f.queue);
      CHECK(capture->wait_written().has_value());
      calls = f.fs.calls() - f.fs.calls(Operation::io_ring);
    }
    for (std::int64_t n = 1; n <= calls; ++n)
      for (const int code : {EIO, ENOSPC}) {
        check::context() = std::string(name(mode)) + ", call " + std::to_string(n) + ", errno " + std::to_string(code);
        Fixture f(4, 1, mode);
        f.fs.fail({.nth = n, .code = code});
        const auto capture = f.begin(state);
        capture->run(f.ring, *f.queue);
        CHECK_EQ(*capture->wait_group(0), 0.0);
        CHECK(capture->captured());
        CHECK_THROWS(IoError, "/a: ", (void)capture->wait_written());
        CHECK(capture->failed() && !capture->written());
        CHECK(!std::filesystem::exists(f.scratch / "a"));
        CHECK_EQ(f.fs.open_descriptors(), 0);
        const auto next = f.begin(state, "b");  // ring and queue are as before
        next->run(f.ring, *f.queue);
        CHECK(next->wait_written().has_value());
        check_written(*next, state, read_file(f.scratch / "b"), best_checksum());
      }
  }
}

TEST(every_call_may_be_interrupted_or_short) {
  const StateInMemory state(12);
  for (const IoMode mode : {IoMode::buffered, IoMode::direct, IoMode::io_uring})
    for (std::int64_t n = 1; n <= 12; ++n) {
      check::context() = std::string(name(mode)) + ", call " + std::to_string(n);
      Fixture f(4, 1, mode);
      f.fs.fail({.nth = n, .code = EINTR, .times = 2});
      f.fs.shorten({.operation = Operation::pwrite, .nth = n, .times = 3}, 1 + n * 700);
      const auto capture = f.begin(state);
      capture->run(f.ring, *f.queue);
      CHECK(capture->wait_written().has_value());
      check_written(*capture, state, read_file(f.scratch / "a"), best_checksum());
    }
}

TEST(cancelled_before_and_during_and_after) {
  const StateInMemory state(13);
  {
    Fixture f;
    const auto capture = f.begin(state);
    capture->cancel();
    CHECK(capture->captured());
    CHECK_EQ(*capture->wait_captured(), 0.0);
    capture->run(f.ring, *f.queue);
    CHECK_THROWS(IoError, "(ECANCELED)", (void)capture->wait_written());
    CHECK_EQ(f.fs.calls(Operation::open), 0);
  }
  {
    Fixture f(1);
    StateInMemory large(1, 0);
    large.sources = {std::string(100000, 'a')};
    large.groups = {0};
    std::mutex gate;
    gate.lock();
    f.block(gate);
    const auto capture = f.begin(large);
    std::thread copier([&] { capture->run(f.ring, *f.queue); });
    while (capture->bytes_captured() == 0) std::this_thread::yield();
    capture->cancel();  // while it waits for a slot
    CHECK(capture->wait_captured().has_value());
    copier.join();
    gate.unlock();
    CHECK_THROWS(IoError, "(ECANCELED)", (void)capture->wait_written());
    CHECK(!std::filesystem::exists(f.scratch / "a"));
  }
  {
    Fixture f;
    const auto capture = f.begin(state);
    capture->run(f.ring, *f.queue);
    CHECK(capture->wait_written().has_value());
    capture->cancel();
    CHECK(capture->wait_written().has_value());
    check_written(*capture, state, read_file(f.scratch / "a"), best_checksum());
  }
}

TEST(bad_requests_are_named) {
  PosixFileSystem fs;
  const auto make = [&](Capture::Request request) { return std::make_shared<Capture>(fs, std::move(request)); };
  CHECK_THROWS(InvalidArgument, "path is empty", make({"", "h", {}}));
  CHECK_THROWS(InvalidArgument, "header is empty", make({"a", "", {}}));
  CHECK_THROWS(InvalidArgument, "span 1 has -1 bytes", make({"a", "h", {{nullptr, 0, 0}, {"x", -1, 0}}}));
  CHECK_THROWS(InvalidArgument, "span 0 of 5 bytes has no address", make({"a", "h", {{nullptr, 5, 0}}}));
}

TEST_MAIN()
