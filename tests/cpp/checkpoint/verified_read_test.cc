// Long because the random worlds and the reference that they are held against serve every test here.
#include "hetsp/checkpoint/verified_read.h"

#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <random>

#include "checkpoint/faulty_file_system.h"
#include "checkpoint/scratch_directory.h"
#include "hetsp/base/error.h"
#include "hetsp/checkpoint/io_error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::checkpoint;

namespace {

constexpr std::int64_t kMiB = std::int64_t{1} << 20;

// Files of random bytes with true specs, pieces of them to random places, and what memory must hold afterwards.
class World {
 public:
  World(int seed, Checksum checksum, int count, std::int64_t extent_bytes) : random_(seed) {
    for (int i = 0; i < count; ++i) {
      FileSpec spec{scratch / concat("f", i), 0, {}, {}};
      const std::int64_t header = up_to(2) ? kPage : up_to(3 * kPage);
      std::int64_t at = header;
      for (std::int64_t k = up_to(extent_bytes < kMiB ? 40 : 5); k > 0; --k) {
        const std::int64_t bytes = up_to(3) ? up_to(extent_bytes) : up_to(extent_bytes / kPage) * kPage;
        spec.extents.push_back({at, at + bytes, {}});
        at += bytes;
      }
      spec.size = at;
      std::string text(static_cast<std::size_t>(at), '\0');
      for (std::size_t k = 0; k + 8 <= text.size(); k += 8) {
        const std::uint64_t word = random_();
        std::memcpy(text.data() + k, &word, 8);
      }
      spec.header_hash = hash(checksum, text.data(), static_cast<std::size_t>(spec.header_bytes()));
      for (Extent& extent : spec.extents)
        extent.hash = hash(checksum, text.data() + extent.begin, static_cast<std::size_t>(extent.end - extent.begin));
      std::ofstream(spec.path, std::ios::binary) << text;
      texts.push_back(std::move(text));
      specs.push_back(std::move(spec));
    }
    options.checksum = checksum;
  }

  void choose_pieces(int count) {
    struct Choice {
      int file;
      std::int64_t offset, bytes, at;
    };
    std::vector<Choice> choices;
    std::int64_t total = 0;
    for (int i = 0; i < count; ++i) {
      const int file = static_cast<int>(up_to(static_cast<std::int64_t>(specs.size()) - 1));
      const std::int64_t from = specs[file].header_bytes(), size = specs[file].size;
      const std::int64_t offset = from + up_to(size - from), most = size - offset;
      const std::int64_t bytes = up_to(3) ? up_to(most) : most;
      choices.push_back({file, offset, bytes, total});
      total += bytes + up_to(3);
    }
    memory.resize(static_cast<std::size_t>(total));
    for (auto& byte : memory) byte = static_cast<std::byte>(0xa5);
    before = expected = memory;
    pieces.clear();
    for (const Choice& c : choices) {
      pieces.push_back({c.file, c.offset, c.bytes, memory.data() + c.at});
      std::memcpy(expected.data() + c.at, texts[c.file].data() + c.offset, static_cast<std::size_t>(c.bytes));
    }
  }

  void damage(int file, std::int64_t at, const std::string& bytes) const {
    std::fstream(specs[file].path, std::ios::in | std::ios::out | std::ios::binary)
        .seekp(at)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  void flip(int file, std::int64_t at) const { damage(file, at, {static_cast<char>(texts[file][at] ^ 16)}); }
  void mend(int file) const { std::ofstream(specs[file].path, std::ios::binary | std::ios::trunc) << texts[file]; }

  Restoration read(FileSystem& with) const { return verified_read(with, specs, pieces, options); }
  Restoration read() { return read(files); }
  std::vector<Fault> verify() { return verify_files(files, specs, options); }

  std::int64_t up_to(std::int64_t most) { return static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(most + 1)); }

  ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem files{disk};
  ReadOptions options;
  std::vector<std::string> texts;
  std::vector<FileSpec> specs;
  std::vector<Piece> pieces;
  std::vector<std::byte> memory, before, expected;

 private:
  std::mt19937_64 random_;
};

std::string describe(const std::vector<Fault>& faults) {
  std::string text;
  for (const Fault& fault : faults) text += concat(fault.file, " [", fault.begin, ", ", fault.end, ") ", fault.what, "; ");
  return text;
}

Checksum some_checksum(int seed) { return seed % 2 || !available(Checksum::xxh3_128) ? Checksum::crc32c : Checksum::xxh3_128; }

}  // namespace

TEST(random_pieces_arrive) {
  int tried = 0;
  for (int seed = 0; seed < 120; ++seed) {
    check::context() = concat("seed ", seed);
    World world(seed, some_checksum(seed), 1 + seed % 4, seed % 5 ? 3 * kPage : 4 * kMiB);
    world.choose_pieces(1 + seed % 7);
    world.options.undo = seed % 3 == 0;
    world.options.direct = seed % 7 != 0;
    world.options.ring_bytes = seed % 4 * 10 * kMiB;
    if (seed % 5) {
      world.options.slot_bytes = 4 * kPage;  // many reads, so that every way is tried
      world.options.window = 1 + seed % 2;
    }
    world.options.hold = seed % 2;
    if (seed % 4 == 1) world.options.free_memory = 0;
    Restoration done = world.read();
    CHECK_EQ(describe(done.faults), "");
    tried += done.undo != "none" && done.kept > 0 && done.kept < done.bytes;
    if (world.options.hold) {
      CHECK(world.options.undo == (world.memory != world.expected) || done.kept == done.bytes);
      done.finish();
      CHECK_EQ(describe(done.faults), "");
    }
    CHECK(world.memory == world.expected);
    CHECK(world.verify().empty());
    std::int64_t bytes = 0;
    for (const Piece& piece : world.pieces) bytes += piece.bytes;
    CHECK_EQ(done.bytes, bytes);
    if (world.options.undo && done.kept == done.bytes) {
      done.rollback();
      CHECK(world.memory == world.before);
      done.rollback();
    } else if (done.bytes > 0) {
      CHECK_THROWS(InvalidArgument, "had not been kept", (done.rollback(), 0));
    }
    CHECK_EQ(world.files.open_descriptors(), 0);
  }
  check::context() = "";
  CHECK(tried > 3);  // reads of which some bytes were kept and some only checked
}

TEST(no_byte_of_a_bad_extent_arrives_and_good_ones_are_taken_back) {
  for (int seed = 0; seed < 60; ++seed) {
    check::context() = concat("seed ", seed);
    World world(1000 + seed, some_checksum(seed), 1 + seed % 3, seed % 5 ? 5 * kPage : 4 * kMiB);
    world.choose_pieces(1 + seed % 5);
    world.options.undo = true;
    if (seed % 2) world.options.free_memory = 0;
    if (seed % 5 && seed % 3) {
      world.options.slot_bytes = 8 * kPage;
      world.options.window = 1;
    }
    world.options.hold = seed % 7 == 0;
    const Piece& piece =
        world.pieces[static_cast<std::size_t>(world.up_to(static_cast<std::int64_t>(world.pieces.size()) - 1))];
    if (piece.bytes == 0) continue;
    const std::int64_t at = piece.offset + world.up_to(piece.bytes - 1);
    world.flip(piece.file, at);
    Restoration done = world.read();
    CHECK_EQ(done.faults.size(), std::size_t{1});
    for (const Fault& fault : done.faults) {
      CHECK_EQ(fault.file, piece.file);
      CHECK(fault.begin <= at && at < fault.end);
      CHECK(fault.what.find(", must be ") != std::string::npos);
      for (const Piece& p : world.pieces)
        for (std::int64_t k = 0; k < p.bytes; ++k)
          if (p.file == fault.file && fault.begin <= p.offset + k && p.offset + k < fault.end &&
              p.destination[k] != std::byte{0xa5})
            return check::fail(__FILE__, __LINE__, "a byte of the bad extent arrived");
    }
    done.rollback();
    CHECK(world.memory == world.before);
    if (world.options.free_memory) CHECK(done.undo == "checked first");
    world.mend(piece.file);
    done = world.read();
    done.finish();
    CHECK(done.faults.empty());
    CHECK(world.memory == world.expected);
  }
}

TEST(every_kind_of_damage_is_named) {
  World world(5, some_checksum(0), 0, 0);
  std::string text(static_cast<std::size_t>(kPage + 3 * kMiB), 'x');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 2654435761U >> 13);
  for (const char* name : {"a", "b"}) {
    FileSpec spec{world.scratch / name, static_cast<std::int64_t>(text.size()), {}, {}};
    text[5000] = *name;
    for (std::int64_t k = 0; k < 3; ++k) spec.extents.push_back({kPage + k * kMiB, kPage + (k + 1) * kMiB, {}});
    spec.header_hash = hash(world.options.checksum, text.data(), kPage);
    for (Extent& extent : spec.extents) extent.hash = hash(world.options.checksum, text.data() + extent.begin, kMiB);
    world.texts.push_back(text);
    world.specs.push_back(spec);
    world.mend(static_cast<int>(world.specs.size()) - 1);
  }
  world.choose_pieces(0);
  world.memory.resize(static_cast<std::size_t>(3 * kMiB));
  world.pieces = {{0, kPage, 3 * kMiB, world.memory.data()}};
  const auto expect = [&](const std::string& case_name, const std::string& parts) {
    check::context() = case_name;
    const std::string read = describe(world.read().faults), verified = describe(world.verify());
    CHECK(read.find(parts) != std::string::npos && read.find("; ") != std::string::npos);
    CHECK(read == verified);
    std::filesystem::remove_all(world.specs[0].path);
    world.mend(0);
  };
  world.flip(0, 3);
  expect("header", "0 [0, 4096) ");
  world.flip(0, kPage);
  expect("first bit of data", concat("0 [4096, ", kPage + kMiB, ") "));
  world.flip(0, kPage + 3 * kMiB - 1);
  expect("last bit of data", concat("0 [", kPage + 2 * kMiB, ", ", kPage + 3 * kMiB, ") "));
  world.damage(0, kPage + kMiB, std::string(static_cast<std::size_t>(kMiB), '\0'));
  expect("hole", "all bytes are 0");
  std::filesystem::resize_file(world.specs[0].path, kPage + kMiB + 7);
  expect("cut", concat("0 [", kPage + kMiB, ", ", kPage + 2 * kMiB, ") the file ends at ", kPage + kMiB + 7));
  std::filesystem::resize_file(world.specs[0].path, 0);
  expect("empty", concat("0 [0, ", kPage + 3 * kMiB, ") is 0 bytes long, must be ", kPage + 3 * kMiB));
  std::ofstream(world.specs[0].path, std::ios::app) << "x";
  expect("longer", concat("is ", kPage + 3 * kMiB + 1, " bytes long"));
  std::filesystem::remove(world.specs[0].path);
  expect("missing", concat("0 [0, ", kPage + 3 * kMiB, ") is missing"));
  std::filesystem::copy_file(world.specs[1].path, world.specs[0].path, std::filesystem::copy_options::overwrite_existing);
  expect("another rank's file", concat("0 [4096, ", kPage + kMiB, ") "));
  std::filesystem::remove(world.specs[0].path);
  std::filesystem::create_directory(world.specs[0].path);
  expect("a directory", "0 [0, ");
  CHECK(world.read().faults.empty());
}

TEST(a_disk_that_cannot_read_is_a_fault_and_a_process_that_cannot_is_an_error) {
  World world(3, some_checksum(0), 3, 3 * kPage);
  world.choose_pieces(9);
  world.options.undo = true;
  world.options.slot_bytes = 4 * kPage;
  world.files.fail({.operation = Operation::pread, .code = EIO});
  Restoration done = world.read();
  CHECK(describe(done.faults).find("Input/output error (EIO)") != std::string::npos);
  done.rollback();
  CHECK(world.memory == world.before);
  for (const int code : {EMFILE, ENOMEM})
    for (const Operation operation : {Operation::open, Operation::pread}) {
      world.files.heal();
      world.files.fail({.operation = operation, .nth = 2, .code = code, .times = FaultyFileSystem::kForever});
      CHECK_THROWS(IoError, describe_errno(code).c_str(), world.read());
      CHECK(world.memory == world.before);
      CHECK_EQ(world.files.open_descriptors(), 0);
    }
  world.files.heal();
  CHECK(world.read().faults.empty());
  CHECK(world.memory == world.expected);
}

TEST(any_call_may_fail_or_come_back_short) {
  for (int nth = 1, struck = 1; struck; ++nth) {
    check::context() = concat("call ", nth);
    World world(4, some_checksum(0), 3, 4 * kPage);
    world.choose_pieces(5);
    world.options.undo = true;
    const Operation kinds[] = {Operation::open, Operation::pread, Operation::fstat, Operation::close};
    struck = 0;
    for (const Operation kind : kinds)
      for (const int code : {EIO, EINTR, EINVAL}) {
        FaultyFileSystem files(world.disk);
        files.fail({.operation = kind, .nth = nth, .code = code});
        Restoration done = world.read(files);
        struck += files.injected() > 0;
        if (done.faults.empty()) CHECK(world.memory == world.expected);
        done.rollback();
        CHECK(world.memory == world.before);
        CHECK_EQ(files.open_descriptors(), 0);
      }
    FaultyFileSystem files(world.disk);
    files.shorten({.operation = Operation::pread, .nth = nth, .times = 2}, kPage);
    CHECK(world.read(files).faults.empty());
    CHECK(world.memory == world.expected);
  }
}

// Flips a byte of every read after the first `good` ones.
class TurningBad : public HookedFileSystem {
 public:
  TurningBad(FileSystem& inner, int good) : HookedFileSystem(inner), left_(good) {}
  std::int64_t pread(int fd, void* data, std::int64_t bytes, std::int64_t offset) override {
    const std::int64_t got = HookedFileSystem::pread(fd, data, bytes, offset);
    if (got > 0 && --left_ < 0) static_cast<char*>(data)[got - 1] ^= 1;
    return got;
  }

 private:
  std::atomic<int> left_;
};

TEST(a_disk_that_answers_differently_the_second_time_is_caught) {
  World world(12, some_checksum(0), 1, 8 * kPage);
  world.choose_pieces(9);
  world.options.undo = true;
  world.options.free_memory = 0;
  TurningBad files(world.disk, 1);  // the file fits one read
  Restoration done = world.read(files);
  CHECK(done.undo == "checked first");
  CHECK(!done.faults.empty());
  CHECK(done.faults[0].what.ends_with("; it was right a moment ago"));
  CHECK(world.memory == world.before);  // of this one read nothing was copied
  done.rollback();
}

TEST(until_finish_everything_can_be_taken_back) {
  World world(12, some_checksum(0), 1, 8 * kPage);
  world.choose_pieces(9);
  world.options.undo = world.options.hold = true;
  for (const std::optional<std::int64_t> free_memory : {std::optional<std::int64_t>(), std::optional<std::int64_t>(0)}) {
    world.options.free_memory = free_memory;
    Restoration done = world.read();
    CHECK(done.bytes > 0 && done.faults.empty());
    CHECK(done.kept == (free_memory ? 0 : done.bytes));
    done.rollback();
    CHECK(world.memory == world.before);
    done.finish();  // nothing any more
    CHECK(world.memory == world.before);
  }
  Restoration done = world.read();
  world.flip(0, world.pieces[0].offset);
  done.finish();
  CHECK(!done.faults.empty());
  CHECK_THROWS(InvalidArgument, "faults, so nothing more may be copied",
               (
                   [&] {
                     Restoration again = world.read();
                     again.finish();
                   }(),
                   0));
}

TEST(refusals_of_direct_reads_are_reported) {
  World world(8, some_checksum(0), 2, 3 * kPage);
  world.choose_pieces(6);
  world.files.fail({.operation = Operation::open, .code = EINVAL, .times = FaultyFileSystem::kForever, .flags = O_DIRECT});
  const Restoration done = world.read();
  CHECK(done.faults.empty());
  CHECK(world.memory == world.expected);
  CHECK(done.refusal.find("Invalid argument (EINVAL)") != std::string::npos);
}

TEST(a_header_longer_than_a_slot_is_checked_too) {
  World world(9, some_checksum(0), 0, 0);
  std::string text(static_cast<std::size_t>(20 * kMiB + 100), 'x');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 2654435761U >> 13);
  FileSpec spec{world.scratch / "a", static_cast<std::int64_t>(text.size()), {}, {{20 * kMiB + 50, 20 * kMiB + 100, {}}}};
  spec.header_hash = hash(world.options.checksum, text.data(), static_cast<std::size_t>(20 * kMiB + 50));
  spec.extents[0].hash = hash(world.options.checksum, text.data() + 20 * kMiB + 50, 50);
  world.texts = {text};
  world.specs = {spec};
  world.mend(0);
  world.memory.resize(50);
  world.pieces = {{0, 20 * kMiB + 50, 50, world.memory.data()}};
  CHECK(world.read().faults.empty());
  CHECK(std::memcmp(world.memory.data(), text.data() + 20 * kMiB + 50, 50) == 0);
  for (const std::int64_t at : {std::int64_t{0}, 8 * kMiB + 2 * kPage, 20 * kMiB + 49}) {
    world.flip(0, at);
    CHECK(describe(world.read().faults).starts_with(concat("0 [0, ", 20 * kMiB + 50, ") ")));
    world.mend(0);
  }
}

TEST(nothing_kept_is_nothing_to_roll_back) {
  World world(11, some_checksum(0), 1, 8 * kPage);
  world.choose_pieces(3);
  Restoration done = world.read();
  CHECK(done.bytes > 0);
  CHECK(done.undo == "none");
  CHECK_THROWS(InvalidArgument, "bytes were written over old ones that had not been kept (undo: none)", (done.rollback(), 0));
  world.options.undo = true;
  done = world.read();
  done.forget();
  done.rollback();
  CHECK(world.memory == world.expected);
  if (!available(Checksum::xxh3_128)) {
    world.options.checksum = Checksum::xxh3_128;
    CHECK_THROWS(InvalidArgument, "this build cannot compute", world.read());
    world.options.checksum = some_checksum(1);
  }
  world.options.ring_bytes = -1;
  CHECK_THROWS(InvalidArgument, "ring_bytes is -1", world.read());
}

TEST_MAIN()
