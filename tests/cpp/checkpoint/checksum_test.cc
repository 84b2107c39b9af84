#include "hetsp/checkpoint/checksum.h"

#include <cstdio>
#include <random>
#include <vector>

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::checkpoint;

namespace {

std::vector<Checksum> here() {
  std::vector<Checksum> found;
  for (const Checksum checksum : {Checksum::xxh3_128, Checksum::crc32c})
    if (available(checksum)) found.push_back(checksum);
  return found;
}

std::string random_bytes(std::mt19937_64& random, std::size_t bytes) {
  std::string text(bytes, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

}  // namespace

TEST(published_values) {
  CHECK_EQ(hash(Checksum::crc32c, "123456789", 9), "e3069283");  // the check value of the CRC catalogues
  CHECK_EQ(hash(Checksum::crc32c, "", 0), "00000000");
  if (!available(Checksum::xxh3_128)) {
    std::printf("note: xxh3-128 is not in this build, so no test runs it\n");
    return;
  }
  CHECK_EQ(hash(Checksum::xxh3_128, "", 0), "99aa06d3014798d86001c324468d497f");
  CHECK_EQ(hash(Checksum::xxh3_128, "abc", 3), "06b05ab6733a618578af5f94892f3950");
  CHECK_EQ(hash(Checksum::xxh3_128, std::string(1000, 'a').data(), 1000), "b01da365eddaa29cb3e7af627147db7c");
}

TEST(names_go_both_ways_and_unknown_ones_are_named) {
  for (const Checksum checksum : {Checksum::xxh3_128, Checksum::crc32c}) CHECK(checksum_of(name(checksum)) == checksum);
  CHECK(available(best_checksum()));
  CHECK(available(Checksum::crc32c));
  CHECK_THROWS(InvalidArgument, "\"md5\", must be one of xxh3-128, crc32c", checksum_of("md5"));
}

TEST(an_absent_checksum_is_refused) {
  if (!available(Checksum::xxh3_128))
    CHECK_THROWS(InvalidArgument, "xxh3-128 is not in this build", Hasher(Checksum::xxh3_128));
}

TEST(cuts_and_instruction_sets_make_no_difference) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937_64 random(seed);
    const std::size_t sizes[] = {0, 1, 3, 16, 17, 128, 129, 240, 241, 255, 256, 257, 1023, 1024, 4096, 65537, 300000};
    const std::string text = random_bytes(random, sizes[random() % std::size(sizes)] + random() % 3);
    for (const Checksum checksum : here()) {
      const std::string whole = hash(checksum, text.data(), text.size());
      for (const Isa isa : supported_isas()) {
        Hasher hasher(checksum, isa);
        hasher.update("stale", 5);
        hasher.reset();
        for (std::size_t done = 0; done < text.size();) {
          const std::size_t next =
              std::min<std::size_t>(text.size() - done, random() % 3 == 0 ? random() % 9 : random() % 70000);
          hasher.update(text.data() + done, next);
          done += next;
        }
        CHECK(hasher.hex() == whole);
        CHECK(hasher.hex() == whole);  // asking changes nothing
      }
    }
  }
}

TEST(every_flipped_bit_shows) {
  std::mt19937_64 random(5);
  std::string text = random_bytes(random, 700);
  for (const Checksum checksum : here()) {
    const std::string whole = hash(checksum, text.data(), text.size());
    for (std::size_t bit = 0; bit < 8 * text.size(); ++bit) {
      text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << (bit % 8)));
      CHECK(hash(checksum, text.data(), text.size()) != whole);
      text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << (bit % 8)));
    }
  }
}

TEST_MAIN()
