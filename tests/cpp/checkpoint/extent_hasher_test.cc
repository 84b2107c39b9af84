#include "hetsp/checkpoint/extent_hasher.h"

#include <algorithm>
#include <random>

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::checkpoint;

TEST(each_extent_gets_its_hash_however_the_bytes_come) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937_64 random(seed);
    std::string file(1 + random() % 3000, '\0');
    for (char& c : file) c = static_cast<char>(random());
    const auto length = static_cast<std::int64_t>(file.size()), header = 1 + static_cast<std::int64_t>(random() % file.size());
    std::vector<Extent> extents;
    for (std::int64_t at = header; at < length;) {
      const std::int64_t end = std::min(length, at + 1 + static_cast<std::int64_t>(random() % 700));
      extents.push_back({at, end, {}});
      at = end;
    }
    std::string header_hash;
    ExtentHasher hasher(best_checksum(), header, header_hash, extents);
    while (hasher.offset() < length) {
      const std::int64_t bytes = std::min(length - hasher.offset(), static_cast<std::int64_t>(random() % 1000));
      hasher.update(file.data() + hasher.offset(), bytes);
    }
    CHECK(header_hash == hash(best_checksum(), file.data(), static_cast<std::size_t>(header)));
    for (const Extent& e : extents)
      CHECK(e.hash == hash(best_checksum(), file.data() + e.begin, static_cast<std::size_t>(e.end - e.begin)));
    CHECK_THROWS(BrokenInvariant, "behind the last extent", hasher.update("x", 1));
  }
}

TEST_MAIN()
