#include "hetsp/checkpoint/directory.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "checkpoint/faulty_file_system.h"
#include "checkpoint/recording_file_system.h"
#include "checkpoint/scratch_directory.h"
#include "hetsp/base/error.h"
#include "hetsp/checkpoint/io_error.h"
#include "hetsp/checkpoint/seal.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::checkpoint;

namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

std::string entries(const std::string& path) {
  std::vector<std::string> names;
  PosixFileSystem().list(path, names);
  return joined(names);
}

// A save of one file under step-<step>-<uid>; returns what publish did.
std::string save(Directory& directory, const std::string& uid, int step, const PublishOptions& options = {},
                 const Directory::OnPhase& on_phase = {}) {
  directory.begin(uid);
  directory.write(uid, "rank-0", concat("data of ", step));
  return directory.publish(uid, concat("step-", step, "-", uid), concat("manifest of ", step), options, on_phase);
}

bool holds(const std::string& path, int step) {
  PosixFileSystem files;
  return read_file(path + "/rank-0") == concat("data of ", step) &&
         read_sealed(files, path + "/manifest.json") == concat("manifest of ", step);
}

}  // namespace

TEST(a_save_goes_through_its_phases_and_leaves_nothing_else) {
  const ScratchDirectory scratch;
  PosixFileSystem files;
  Directory directory(files, scratch / "a/b/");
  CHECK(directory.path() == scratch / "a/b");
  CHECK_EQ(directory.begin("u"), scratch / "a/b/.part-u");
  CHECK_EQ(directory.begin("u"), scratch / "a/b/.part-u");
  directory.write("u", "rank-0", "data of 1");
  directory.write("u", "vote-00000.json", "yes");
  std::vector<std::string> phases, names_at_phase;
  const std::string behind = directory.publish("u", "step-1-u", "manifest of 1", {}, [&](const char* phase) {
    phases.emplace_back(phase);
    names_at_phase.push_back(joined(directory.names()));
  });
  CHECK(behind.empty());
  CHECK_EQ(joined(phases), "manifest synced renamed committed latest");
  CHECK_EQ(joined(names_at_phase), "step-1-u step-1-u step-1-u");
  CHECK_EQ(entries(scratch / "a/b"), ".lock latest step-1-u");
  CHECK_EQ(entries(scratch / "a/b/step-1-u"), "manifest.json rank-0");
  CHECK(holds(directory.find("step-1-u"), 1));
  CHECK_EQ(directory.latest().value_or("none"), "step-1-u");
  save(directory, "v", 0);  // a smaller step, after a fallback
  CHECK_EQ(directory.latest().value_or("none"), "step-0-v");
  CHECK_EQ(joined(directory.names()), "step-0-v step-1-u");
  CHECK(!directory.locked());
}

TEST(a_file_is_written_once_and_appears_whole) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  RecordingFileSystem files(disk);
  Directory directory(files, scratch / "d");
  directory.begin("u");
  directory.write("u", "vote-00000.json", "yes");
  CHECK_THROWS(IoError, "File exists (EEXIST)", (directory.write("u", "vote-00000.json", "no"), 0));
  CHECK_EQ(read_file(scratch / "d/.part-u/vote-00000.json"), "yes");
  bool synced = false, named = false;
  for (const Record& record : files.records()) {
    if (record.call.operation == Operation::fsync && record.call.path.ends_with(".new-vote-00000.json")) synced = true;
    if (record.call.operation == Operation::rename && record.call.to.ends_with("/vote-00000.json")) named = synced;
  }
  CHECK(named);
}

TEST(names_are_never_reused) {
  const ScratchDirectory scratch;
  PosixFileSystem files;
  Directory directory(files, scratch / "d");
  save(directory, "u", 1);
  directory.begin("v");
  CHECK_THROWS(IoError, "step-1-u: Directory not empty", directory.publish("v", "step-1-u", "other"));
  CHECK(holds(scratch / "d/step-1-u", 1));
  directory.discard("v");
  directory.discard("v");
  CHECK_EQ(entries(scratch / "d"), ".lock latest step-1-u");
}

TEST(a_name_given_by_the_caller_is_exchanged) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem files(disk);
  Directory directory(files, scratch / "d");
  const auto replace = [&](int value) {
    const std::string uid = concat("u", value);
    directory.begin(uid);
    directory.write(uid, "rank-0", concat("data of ", value));
    return directory.publish(uid, "mine", concat("manifest of ", value), {.replace = true, .latest = false});
  };
  for (int value = 0; value < 3; ++value) {
    CHECK_EQ(replace(value), "");
    CHECK(holds(scratch / "d/mine", value));
    CHECK_EQ(entries(scratch / "d"), ".lock mine");
  }
  for (const int code : {EINVAL, ENOSYS, EOPNOTSUPP}) {
    files.fail({.operation = Operation::exchange, .code = code});
    CHECK_EQ(replace(code), "");
    CHECK(holds(scratch / "d/mine", code));
    CHECK_EQ(entries(scratch / "d"), ".lock mine");
  }
  // Any failure leaves one of the two, whole, where find() and clean() see it.
  const std::int64_t before = files.calls();
  files.fail({.operation = Operation::exchange, .code = EINVAL});
  replace(1);
  const std::int64_t calls = files.calls() - before;
  for (std::int64_t nth = 1; nth <= calls; ++nth) {
    check::context() = concat("call ", nth, " of ", calls);
    files.heal();
    files.fail({.operation = Operation::exchange, .code = EINVAL});
    files.fail({.nth = nth, .code = EIO, .times = FaultyFileSystem::kForever});
    bool failed = false;
    try {
      failed = !replace(2).empty();
    } catch (const IoError&) {
      failed = true;
    }
    files.heal();
    CHECK(failed || nth == calls);
    CHECK(holds(directory.find("mine"), 1) || holds(directory.find("mine"), 2));
    directory.discard("u2");
    directory.clean();
    CHECK_EQ(entries(scratch / "d"), ".lock mine");
    CHECK(holds(scratch / "d/mine", 1) || holds(scratch / "d/mine", 2));
    replace(1);
  }
}

TEST(a_directory_that_cannot_be_synced_has_the_old_checkpoint_back) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem files(disk);
  Directory directory(files, scratch / "d");
  const auto save = [&](int value) {
    directory.begin("u");
    directory.write("u", "rank-0", concat("data of ", value));
    return directory.publish("u", "mine", concat("manifest of ", value), {.replace = true, .latest = false});
  };
  for (const bool exchanges : {true, false}) {
    for (int old = 0; old < 2; ++old) {  // nothing at first, then the checkpoint 1
      check::context() = concat("exchanges ", exchanges, ", old ", old);
      // Syncs of a save: rank-0, the manifest, .part-u, and the directory.
      files.fail({.operation = Operation::fsync, .nth = 4, .code = EIO});
      if (!exchanges) files.fail({.operation = Operation::exchange, .code = EINVAL});
      CHECK_THROWS(IoError, "/d: ", save(2));
      files.heal();
      directory.discard("u");
      CHECK_EQ(entries(scratch / "d"), old == 0 ? ".lock" : ".lock mine");
      if (old == 1) CHECK(holds(scratch / "d/mine", 1));
      CHECK_EQ(save(1), "");
      CHECK_EQ(entries(scratch / "d"), ".lock mine");
    }
    std::filesystem::remove_all(std::filesystem::path(scratch / "d/mine"));
  }
}

TEST(a_caller_that_guards_its_name_itself_needs_no_lock) {
  const ScratchDirectory scratch;
  PosixFileSystem files;
  Directory first(files, scratch / "d"), second(files, scratch / "d");
  const PublishOptions unlocked{.replace = true, .latest = false, .lock = false};
  const auto publish = [&](Directory& directory, int value) {
    directory.begin("u");
    directory.write("u", "rank-0", concat("data of ", value));
    directory.publish("u", "mine", concat("manifest of ", value), unlocked);
    CHECK(holds(scratch / "d/mine", value));
  };
  publish(second, 1);
  CHECK_EQ(entries(scratch / "d"), "mine");
  CHECK(first.lock());
  publish(second, 2);
  CHECK(first.locked());
  CHECK(!second.locked());
  publish(first, 3);
  CHECK(first.locked());
}

TEST(prune_keeps_the_newest_whatever_it_is_told) {
  const ScratchDirectory scratch;
  PosixFileSystem files;
  {
    Directory directory(files, scratch / "d");
    for (int step = 1; step <= 4; ++step) save(directory, "u", step);
    CHECK_EQ(joined(directory.prune({"step-1-u", "step-9-u", "step-4-u"})), "step-1-u");
    CHECK_EQ(joined(directory.names()), "step-2-u step-3-u step-4-u");
    std::filesystem::remove(scratch / "d/latest");
    CHECK_EQ(joined(directory.prune(directory.names())), "step-2-u step-3-u");
    save(directory, "v", 5, {.latest = false});
  }
  Directory later(files, scratch / "d");
  CHECK_THROWS(InvalidArgument, "the newest might be among those", later.prune(later.names()));
  CHECK(later.prune({}).empty());
  std::ofstream(scratch / "d/latest") << seal("step-5-v", Checksum::crc32c);
  CHECK_EQ(joined(later.prune(later.names())), "step-4-u");
  CHECK_EQ(entries(scratch / "d"), ".lock latest step-5-v");
}

TEST(clean_removes_what_died_and_not_what_lives) {
  const ScratchDirectory scratch;
  PosixFileSystem files;
  Directory dead(files, scratch / "d");
  save(dead, "u", 1);
  dead.begin("killed");
  dead.write("killed", "rank-0", "half");
  std::filesystem::create_directories(scratch / "d/.trash-step-0-u/deep/er");
  std::ofstream(scratch / "d/latest.new") << "x";
  std::ofstream(scratch / "d/notes.txt") << "the user's own";
  Directory directory(files, scratch / "d");
  directory.begin("mine");
  CHECK_EQ(joined(directory.clean()), ".part-killed .trash-step-0-u latest.new");
  CHECK_EQ(entries(scratch / "d"), ".lock .part-mine latest notes.txt step-1-u");
  CHECK(directory.clean().empty());
}

TEST(no_vote_is_given_for_files_that_were_cleaned_away) {
  const ScratchDirectory scratch;
  PosixFileSystem files;
  Directory rank_0(files, scratch / "d"), rank_1(files, scratch / "d");
  std::ofstream(rank_1.begin("u") + "/rank-1") << "data";
  CHECK_EQ(joined(rank_0.clean()), ".part-u");  // starts later, and takes what it finds for an orphan
  CHECK_THROWS(IoError, "No such file", (rank_1.write("u", "vote-1", "yes"), 0));
  rank_0.begin("u");
  CHECK_THROWS(IoError, "(ESTALE)", (rank_1.write("u", "vote-1", "yes"), 0));
  CHECK(!std::filesystem::exists(scratch / "d/.part-u/vote-1"));
  CHECK_THROWS(IoError, "(ESTALE)", rank_1.publish("u", "step-1-u", "m"));
  rank_0.discard("u");
  CHECK_EQ(entries(scratch / "d"), ".lock");
}

TEST(a_rank_that_is_not_told_the_outcome_keeps_nothing_open) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem files(disk);
  Directory rank_0(disk, scratch / "d"), rank_1(files, scratch / "d");
  for (int step = 0; step < 5; ++step) {
    const std::string uid = concat("u", step);
    rank_1.begin(uid);
    rank_1.write(uid, "vote-1", "yes");
    CHECK_EQ(files.open_descriptors(), 1);
    if (step % 2)
      save(rank_0, uid, step);
    else
      rank_0.discard(uid);
  }
}

TEST(a_second_writer_is_told_and_harms_nothing) {
  const ScratchDirectory scratch;
  PosixFileSystem files;
  Directory first(files, scratch / "d");
  Directory second(files, scratch / "d");
  CHECK(first.lock());
  CHECK(first.locked());
  save(first, "u", 1);
  first.begin("w");
  CHECK(!second.lock());
  second.begin("v");
  CHECK_THROWS(Busy, "/d is in use by another process", second.publish("v", "step-2-v", "m"));
  CHECK_THROWS(Busy, "in use", second.prune({"step-1-u"}));
  CHECK_THROWS(Busy, "in use", second.clean());
  second.discard("v");
  CHECK_EQ(entries(scratch / "d"), ".lock .part-w latest step-1-u");
  CHECK_EQ(first.publish("w", "step-3-w", "m"), "");
  first.unlock();
  save(second, "v", 4);
  CHECK_EQ(joined(second.names()), "step-1-u step-3-w step-4-v");
}

TEST(without_locks_nothing_is_cleaned) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem files(disk);
  files.fail({.operation = Operation::lock, .code = ENOSYS, .times = FaultyFileSystem::kForever});
  Directory other(files, scratch / "d");
  other.begin("alive");
  Directory directory(files, scratch / "d");
  CHECK(directory.lock());
  CHECK(directory.clean().empty());
  save(directory, "u", 1);
  CHECK_EQ(entries(scratch / "d"), ".lock .part-alive latest step-1-u");
}

TEST(latest_is_a_hint) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem files(disk);
  Directory directory(files, scratch / "d");
  CHECK(!directory.latest());
  save(directory, "u", 1);
  for (const std::string& text : {std::string(), std::string("step-1-u"), std::string(9, '\0'), seal("../d", Checksum::crc32c),
                                  seal("step-7-u", Checksum::crc32c), seal("", Checksum::crc32c)}) {
    std::ofstream(scratch / "d/latest", std::ios::trunc) << text;
    check::context() = text;
    CHECK(!directory.latest());
  }
  files.fail({.operation = Operation::open, .code = ENOSPC, .part = "latest.new"});
  std::string last;
  const std::string behind = save(directory, "u", 2, {}, [&](const char* phase) { last = phase; });
  CHECK(behind.find("No space left on device (ENOSPC)") != std::string::npos);
  CHECK(last == "committed");
  CHECK(holds(scratch / "d/step-2-u", 2));
}

TEST(any_call_may_fail_and_what_is_committed_stays) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  for (const int code : {EIO, ENOSPC}) {
    std::int64_t nth = 1;
    for (bool struck = true; struck; ++nth) {
      check::context() = concat("code ", code, " at call ", nth);
      const std::string path = scratch / concat("d", code, "-", nth);
      {
        Directory directory(disk, path);
        save(directory, "u", 1);
        save(directory, "u", 2);
      }
      FaultyFileSystem files(disk);
      files.fail({.nth = nth, .code = code, .times = nth % 2 ? 1 : FaultyFileSystem::kForever});
      std::string behind;
      bool committed = false, failed = false;
      try {
        Directory directory(files, path);
        behind = save(directory, "v", 3, {}, [&](const char* phase) { committed |= std::string(phase) == "committed"; });
        directory.prune({"step-1-u"});
        directory.clean();
      } catch (const IoError&) {
        failed = true;
      }
      struck = files.injected() > 0;
      files.heal();
      CHECK_EQ(files.open_descriptors(), 0);
      // What fails without a word: syncing parents that others made, closing, a lock let go.
      CHECK(failed || committed);
      Directory after(disk, path);
      CHECK(holds(path + "/step-2-u", 2));
      const std::vector<std::string> names = after.names();
      const auto there = [&](const char* name) { return std::find(names.begin(), names.end(), name) != names.end(); };
      CHECK(!committed || there("step-3-v"));
      CHECK(!there("step-3-v") || holds(path + "/step-3-v", 3));
      CHECK(!there("step-1-u") || holds(path + "/step-1-u", 1));
      after.clean();
      save(after, "w", 4);
      CHECK_EQ(after.latest().value_or("none"), "step-4-w");
      std::filesystem::remove_all(path);
    }
    CHECK(nth > 40);
  }
}

TEST(names_that_could_lead_elsewhere_are_refused) {
  const ScratchDirectory scratch;
  PosixFileSystem files;
  Directory directory(files, scratch / "d");
  directory.begin("u");
  for (const std::string& name : {std::string(), std::string("a/b"), std::string(".."), std::string(".lock"),
                                  std::string("a\nb"), std::string(201, 'a')}) {
    check::context() = name;
    CHECK_THROWS(InvalidArgument, "must be 1 to 200 characters", directory.begin(name));
    CHECK_THROWS(InvalidArgument, "must be 1 to 200 characters", (directory.write("u", name, ""), 0));
    CHECK_THROWS(InvalidArgument, "must be 1 to 200 characters", directory.publish("u", name, ""));
    CHECK_THROWS(InvalidArgument, "must be 1 to 200 characters", directory.prune({name}));
    CHECK_THROWS(InvalidArgument, "must be 1 to 200 characters", directory.find(name));
  }
  CHECK_THROWS(InvalidArgument, "is empty", Directory(files, ""));
  std::ofstream(scratch / "file") << "x";
  CHECK_THROWS(IoError, "/file", Directory(files, scratch / "file"));
  CHECK_THROWS(IoError, "Not a directory", Directory(files, scratch / "file/d"));
}

TEST_MAIN()
