#include "hetsp/checkpoint/engine.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "checkpoint/faulty_file_system.h"
#include "checkpoint/scratch_directory.h"
#include "checkpoint/state_in_memory.h"
#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::checkpoint;

namespace {

Engine::Options small(int slots = 4, int writers = 1) {
  return {.ring_bytes = slots * 8192, .slot_bytes = 8192, .writers = writers};
}

std::string file_name(std::uint64_t i) { return "save-" + std::to_string(i); }

}  // namespace

TEST(one_save_after_another_through_one_ring) {
  for (const int writers : {1, 3}) {
    const ScratchDirectory scratch;
    Engine engine(small(3, writers));
    std::vector<StateInMemory> states;
    std::vector<std::shared_ptr<Capture>> captures;
    for (std::uint64_t i = 0; i < 12; ++i) states.emplace_back(i);
    for (std::uint64_t i = 0; i < 12; ++i)  // the next begins while the last is being written
      captures.push_back(engine.begin(scratch / file_name(i), states[i].header, states[i].spans()));
    for (std::uint64_t i = 0; i < 12; ++i) {
      check::context() = file_name(i);
      CHECK(captures[i]->wait_captured().has_value());
      CHECK(captures[i]->wait_written().has_value());
      check_written(*captures[i], states[i], read_file(scratch / file_name(i)), engine.checksum());
    }
    CHECK(engine.io() == captures.back()->io());
  }
}

TEST(close_waits_for_what_was_begun) {
  const ScratchDirectory scratch;
  const StateInMemory state(5);
  Engine engine(small());
  std::vector<std::shared_ptr<Capture>> captures;
  for (std::uint64_t i = 0; i < 4; ++i) captures.push_back(engine.begin(scratch / file_name(i), state.header, state.spans()));
  engine.close();
  for (std::uint64_t i = 0; i < 4; ++i)
    check_written(*captures[i], state, read_file(scratch / file_name(i)), engine.checksum());
  engine.close();
  CHECK_THROWS(InvalidArgument, "after close()", engine.begin(scratch / "late", state.header, state.spans()));
}

TEST(destroyed_with_saves_in_flight) {
  for (int round = 0; round < 30; ++round) {
    const ScratchDirectory scratch;
    std::vector<std::shared_ptr<Capture>> captures;
    const StateInMemory state(static_cast<std::uint64_t>(round));
    {
      Engine engine(small(1 + round % 3));
      for (std::uint64_t i = 0; i < 3; ++i)
        captures.push_back(engine.begin(scratch / file_name(i), state.header, state.spans()));
      if (round % 2 == 0) CHECK(captures[0]->wait_captured().has_value());
    }
    for (std::uint64_t i = 0; i < 3; ++i) {
      CHECK(captures[i]->captured());
      CHECK(captures[i]->written() != captures[i]->failed());
      CHECK_EQ(captures[i]->written(), std::filesystem::exists(scratch / file_name(i)));
      if (captures[i]->written()) CHECK(read_file(scratch / file_name(i)) == state.file());
      if (captures[i]->failed()) CHECK_THROWS(IoError, "(ECANCELED)", (void)captures[i]->wait_written());
    }
    if (round % 2 == 0) CHECK(captures[0]->written());  // what was copied is not thrown away
  }
}

TEST(a_full_disk_fails_one_save_and_the_next_succeeds) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem fs(disk);
  fs.fail({.operation = Operation::pwrite, .nth = 1, .code = ENOSPC, .times = FaultyFileSystem::kForever, .part = "save-0"});
  const StateInMemory state(11);
  Engine engine(small(), fs);
  const auto failing = engine.begin(scratch / "save-0", state.header, state.spans());
  const auto next = engine.begin(scratch / "save-1", state.header, state.spans());
  CHECK_THROWS(IoError, "/save-0: No space left on device (ENOSPC)", (void)failing->wait_written());
  CHECK(next->wait_written().has_value());
  check_written(*next, state, read_file(scratch / "save-1"), engine.checksum());
}

TEST(a_file_that_may_not_grow_fails_by_the_kernels_own_word) {
  const ScratchDirectory scratch;
  StateInMemory state(1, 0);
  state.sources = {std::string(1 << 20, 'a')};
  state.groups = {0};
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small_files{100000, before.rlim_max};
  for (const IoMode best : {IoMode::buffered, IoMode::direct, IoMode::io_uring}) {
    Engine engine({.ring_bytes = 4 * 8192, .slot_bytes = 8192, .best = best});
    ::setrlimit(RLIMIT_FSIZE, &small_files);  // SIGXFSZ would end the process, were it delivered
    const auto capture = engine.begin(scratch / "a", state.header, state.spans());
    CHECK_THROWS(IoError, "/a: File too large (EFBIG)", (void)capture->wait_written());
    ::setrlimit(RLIMIT_FSIZE, &before);
    CHECK(!std::filesystem::exists(scratch / "a"));
  }
}

TEST(many_threads_begin_wait_and_cancel) {
  const ScratchDirectory scratch;
  Engine engine(small(2, 2));
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (std::uint64_t i = 0; i < 10; ++i) {
        const StateInMemory state(100 * t + i, 4);
        const std::string path = scratch / file_name(100 * t + i);
        const auto capture = engine.begin(path, state.header, state.spans());
        if (i % 3 == 2) {
          capture->cancel();
          CHECK(capture->wait_captured().has_value());
          continue;
        }
        CHECK(capture->wait_group(2).has_value());
        CHECK(capture->wait_written().has_value());
        CHECK(read_file(path) == state.file());
      }
    });
  for (auto& thread : threads) thread.join();
}

// Any mix of failures, interruptions, short writes, refusals and cancels: each save ends written with the right bytes or failed
// without a file, and when the disk is well again the same engine writes as before.
TEST(random_faults) {
  for (std::uint64_t seed = 0; seed < 80; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937_64 random(seed);
    const ScratchDirectory scratch;
    PosixFileSystem disk;
    FaultyFileSystem fs(disk);
    // Not unlink: a disk that refuses it keeps the file of a failed save.
    const Operation operations[] = {Operation::pwrite, Operation::pwrite,    Operation::pwrite, Operation::open,
                                    Operation::fsync,  Operation::ftruncate, Operation::close,  Operation::fallocate};
    const int codes[] = {EIO, ENOSPC, EINTR, EINTR, EAGAIN, ENOMEM, EINVAL, EPERM, EOPNOTSUPP};
    for (std::uint64_t i = random() % 6; i > 0; --i) {
      const FaultyFileSystem::Fault fault{.operation = operations[random() % std::size(operations)],
                                          .nth = 1 + static_cast<std::int64_t>(random() % 20),
                                          .code = codes[random() % std::size(codes)],
                                          .times = 1 + static_cast<std::int64_t>(random() % 3)};
      random() % 3 == 0 ? fs.shorten(fault, static_cast<std::int64_t>(random() % 9000)) : fs.fail(fault);
    }
    Engine::Options options = small(1 + static_cast<int>(random() % 4), 1 + static_cast<int>(random() % 2));
    options.best = static_cast<IoMode>(random() % 3);
    std::vector<StateInMemory> states;
    std::vector<std::shared_ptr<Capture>> captures;
    for (std::uint64_t i = 0; i < 5; ++i) states.emplace_back(seed * 10 + i, 8);
    Engine engine(options, fs);
    for (std::uint64_t i = 0; i < 5; ++i) {
      if (i == 4) {
        for (const auto& capture : captures) capture->cancel();  // those that have ended stay as they are
        for (const auto& capture : captures) CHECK(capture->wait_captured().has_value());
        fs.heal();
      }
      captures.push_back(engine.begin(scratch / file_name(i), states[i].header, states[i].spans()));
      if (random() % 2 == 0) CHECK(captures.back()->wait_group(1).has_value());
      if (random() % 4 == 0 && i < 4) captures.back()->cancel();
    }
    engine.close();
    for (std::uint64_t i = 0; i < 5; ++i) {
      const std::string path = scratch / file_name(i);
      CHECK(captures[i]->written() != captures[i]->failed());
      CHECK(captures[i]->written() || i < 4);
      CHECK_EQ(captures[i]->written(), std::filesystem::exists(path));
      if (captures[i]->written()) check_written(*captures[i], states[i], read_file(path), engine.checksum());
    }
    CHECK_EQ(fs.open_descriptors(), 0);
  }
}

TEST(a_forked_child_is_told_and_can_let_go) {
  const ScratchDirectory scratch;
  const StateInMemory state(5);
  auto engine = std::make_unique<Engine>(small());
  auto capture = engine->begin(scratch / "a", state.header, state.spans());
  const pid_t child = ::fork();
  if (child == 0) {
    int wrong = 0;
    try {
      (void)engine->begin(scratch / "b", state.header, state.spans());
      wrong = 1;
    } catch (const InvalidArgument& error) {
      if (std::string(error.what()).find("forked child") == std::string::npos) wrong = 2;
    }
    try {
      (void)capture->wait_written(5.0);
      wrong = 3;
    } catch (const InvalidArgument&) {
    }
    capture.reset();
    engine.reset();  // must neither hang nor touch the parent's file
    ::_exit(wrong);
  }
  int status = 0;
  CHECK_EQ(::waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 0);
  CHECK(capture->wait_written().has_value());
  check_written(*capture, state, read_file(scratch / "a"), engine->checksum());
}

// A normal thread, once woken, would take the core of the training thread that has called begin().
TEST(the_copier_preempts_nobody) {
  const ScratchDirectory scratch;
  Engine engine(small());
  const StateInMemory state(1);
  (void)engine.begin(scratch / "save", state.header, state.spans())->wait_captured();  // by now it has set its policy
  int batch = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task"))
    batch += ::sched_getscheduler(std::stoi(task.path().filename())) == SCHED_BATCH;
  CHECK_EQ(batch, 1);
}

TEST(bad_options_are_named) {
  CHECK_THROWS(InvalidArgument, "slot_bytes is 100", Engine({.ring_bytes = 8192, .slot_bytes = 100}));
  CHECK_THROWS(InvalidArgument, "must hold at least one slot", Engine({.ring_bytes = 4096, .slot_bytes = 8192}));
  CHECK_THROWS(InvalidArgument, "writers is -1", Engine({.ring_bytes = 8192, .slot_bytes = 8192, .writers = -1}));
}

TEST_MAIN()
