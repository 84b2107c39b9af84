#include "hetsp/checkpoint/undo_log.h"

#include <cstring>
#include <random>
#include <vector>

#include "support/check.h"

using namespace hetsp::checkpoint;

TEST(kept_bytes_come_back) {
  std::mt19937 random(7);
  std::vector<std::byte> memory(3'000'000);
  for (auto& byte : memory) byte = static_cast<std::byte>(random());
  const std::vector<std::byte> before = memory;
  std::vector<Part> parts;
  std::int64_t kept = 0;
  for (std::int64_t at = 0; at < 2'900'000;) {
    const std::int64_t bytes = 1 + static_cast<std::int64_t>(random() % (parts.size() % 3 ? 50 : 90'000));
    parts.push_back({0, bytes, memory.data() + at, kept});
    kept += bytes;
    at += bytes + static_cast<std::int64_t>(random() % 40);
  }
  UndoLog log(kept);
  for (const Part& part : parts) {
    log.use_huge_pages(random() % 2 == 0);
    log.keep(part);
    std::memset(part.destination, 0xee, static_cast<std::size_t>(part.bytes));
  }
  CHECK(memory != before);
  for (const Part& part : parts) log.put_back(part);
  CHECK(memory == before);
}

TEST(nothing_may_be_kept) { CHECK_EQ((UndoLog(0), 0), 0); }

TEST_MAIN()
