#include "hetsp/checkpoint/seal.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <random>
#include <vector>

#include "checkpoint/faulty_file_system.h"
#include "checkpoint/scratch_directory.h"
#include "hetsp/base/error.h"
#include "hetsp/checkpoint/corrupt.h"
#include "hetsp/checkpoint/io_error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::checkpoint;

namespace {

std::vector<Checksum> checksums() {
  std::vector<Checksum> all{Checksum::crc32c};
  if (available(Checksum::xxh3_128)) all.push_back(Checksum::xxh3_128);
  return all;
}

bool whole(const std::string& sealed) {
  try {
    (void)unseal(sealed, "f");
  } catch (const Corrupt&) {
    return false;
  }
  return true;
}

}  // namespace

TEST(every_text_comes_back) {
  for (const Checksum checksum : checksums())
    for (const std::string& text : {std::string(), std::string("\n"), std::string("a"), std::string("{\"a\": 1}\n\n"),
                                    std::string("\0\0", 2), std::string(100000, 'x')}) {
      const std::string sealed = seal(text, checksum);
      CHECK(unseal(sealed, "f") == text);
      CHECK(unseal(sealed, "f", checksum) == text);
      CHECK_EQ(seal_of(sealed, "f").line() + "\n", sealed.substr(text.size() + 1));
    }
}

TEST(every_flipped_bit_and_every_cut_is_found) {
  for (const Checksum checksum : checksums()) {
    const std::string sealed = seal("{\"version\": 1, \"files\": []}", checksum);
    for (std::size_t bit = 0; bit < 8 * sealed.size(); ++bit) {
      std::string damaged = sealed;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
      check::context() = concat(name(checksum), " bit ", bit);
      CHECK(!whole(damaged));
    }
    for (std::size_t bytes = 0; bytes < sealed.size(); ++bytes) {
      check::context() = concat(name(checksum), " cut to ", bytes);
      CHECK(!whole(sealed.substr(0, bytes)));
      CHECK(!whole(sealed.substr(sealed.size() - bytes)));
      CHECK(!whole(sealed.substr(0, bytes) + std::string(sealed.size() - bytes, '\0')));
    }
    CHECK(!whole(sealed + "\n"));
    CHECK(!whole(sealed + sealed));
  }
}

TEST(what_is_wrong_is_said) {
  const std::string sealed = seal("text", Checksum::crc32c);
  CHECK_THROWS(Corrupt, "dir/f is empty", unseal("", "dir/f"));
  CHECK_THROWS(Corrupt, "f is 5 zero bytes", unseal(std::string(5, '\0'), "f"));
  CHECK_THROWS(Corrupt, "f ends after 7 bytes without the newline", unseal(sealed.substr(0, 7), "f"));
  CHECK_THROWS(Corrupt, "f has one line only", unseal("text\n", "f"));
  CHECK_THROWS(Corrupt, "f does not end with a seal", unseal("text\nmd5 0123\n", "f"));
  CHECK_THROWS(Corrupt, "f does not end with a seal", unseal("text\ncrc32c 0123456G\n", "f"));
  CHECK_THROWS(Corrupt, "f is damaged: its seal says crc32c 00000000, its 5 bytes have ",
               unseal("text\ncrc32c 00000000\n", "f"));
  CHECK_THROWS(Corrupt, "f is sealed with crc32c, must be xxh3-128", unseal(sealed, "f", Checksum::xxh3_128));
  CHECK_THROWS(InvalidArgument, "sealed already", seal(sealed, Checksum::crc32c));
  if (!available(Checksum::xxh3_128))
    CHECK_THROWS(Corrupt, "this build cannot compute", unseal("text\nxxh3-128 " + std::string(32, '0') + "\n", "f"));
}

// Whatever comes: it is refused, or it is byte for byte what seal() makes of the text that is read.
TEST(random_bytes_are_refused_or_are_what_seal_writes) {
  int accepted = 0;
  for (int seed = 0; seed < 40000; ++seed) {
    check::context() = concat("seed ", seed);
    std::mt19937 random(seed);
    const auto below = [&](std::size_t bound) { return random() % bound; };
    const Checksum checksum = checksums()[below(checksums().size())];
    const auto words = [&] {
      std::string text;
      for (std::size_t k = below(6); k > 0; --k)
        text += std::array{"\n", "crc32c ", "xxh3-128 ", "{\"a\": 1}", "00000000", "\x80"}[below(6)];
      return text;
    };
    std::string text = words();
    if (below(8)) {
      try {
        text = seal(text, checksum);
      } catch (const InvalidArgument&) {  // by chance sealed already
      }
    }
    for (std::size_t edits = below(4); edits > 0; --edits) {
      const std::size_t at = below(text.size() + 1), count = std::min(text.size() - at, below(20));
      switch (below(6)) {
        case 0:
          text.insert(at, words());
          break;
        case 1:
          text.erase(at, count);
          break;
        case 2:
          text.replace(at, count, std::string(count, '\0'));
          break;
        case 3:
          text += text.substr(at, count);
          break;
        case 4:
          text.resize(at);
          break;
        default:
          if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
      }
    }
    try {
      const std::string read = unseal(text, "f");
      CHECK(seal(read, seal_of(text, "f").checksum) == text);
      ++accepted;
    } catch (const Corrupt&) {  // refused
    }
  }
  check::context() = "";
  CHECK(5000 < accepted && accepted < 35000);
}

TEST(a_file_is_read_whole_or_refused) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem files(disk);
  const std::string text(70000, 'a');
  std::ofstream(scratch / "a") << seal(text, Checksum::crc32c);
  files.shorten({.operation = Operation::pread, .times = 5}, 1000);
  CHECK(read_sealed(files, scratch / "a") == text);
  CHECK_THROWS(IoError, "/b: No such file", read_sealed(files, scratch / "b"));
  CHECK_THROWS(Corrupt, "is a directory", read_sealed(files, scratch.path()));
  std::filesystem::resize_file(scratch / "a", 5'000'000'000);  // a hole: nothing of it is allocated, here or on disk
  CHECK_THROWS(Corrupt, "has 5000000000 bytes", read_sealed(files, scratch / "a"));
  files.fail({.operation = Operation::pread, .code = EIO});
  std::ofstream(scratch / "c") << seal(text, Checksum::crc32c);
  CHECK_THROWS(IoError, "read", read_sealed(files, scratch / "c"));
  CHECK_EQ(files.open_descriptors(), 0);
}

TEST_MAIN()
