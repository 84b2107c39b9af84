// Spans of random bytes in memory, and what a file of them must hold: the slow reference of the capture and engine tests.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "hetsp/checkpoint/capture.h"
#include "hetsp/checkpoint/checksum.h"
#include "support/check.h"

namespace hetsp::checkpoint {

struct StateInMemory {
  std::vector<std::string> sources;
  std::vector<std::int64_t> groups;
  std::string header;

  // Sizes biased to corners: nothing, a byte, odd lengths, larger than a slot of 8 KiB and than an extent; sources unaligned.
  explicit StateInMemory(std::uint64_t seed, std::size_t most_spans = 20) {
    std::mt19937_64 random(seed);
    const std::size_t sizes[] = {0, 1, 3, 64, 4095, 4096, 4097, 8192, 70001, std::size_t{1} << 20, (std::size_t{4} << 20) + 5};
    header.assign(1 + random() % 9000, 'h');
    for (std::size_t s = random() % (most_spans + 1); s > 0; --s) {
      sources.push_back(random_text(random, sizes[random() % (random() % 8 == 0 ? std::size(sizes) : 9)]));
      groups.push_back(static_cast<std::int64_t>(random() % 4));
    }
  }

  static std::string random_text(std::mt19937_64& random, std::size_t bytes) {
    std::string text(bytes, '\0');
    std::uint64_t word = random();
    for (std::size_t i = 0; i < bytes; ++i) {
      if (i % 8 == 0) word = word * 6364136223846793005U + 1442695040888963407U;
      text[i] = static_cast<char>(word >> (8 * (i % 8)));
    }
    return text;
  }

  [[nodiscard]] std::vector<Span> spans() const {
    std::vector<Span> spans;
    for (std::size_t s = 0; s < sources.size(); ++s)
      spans.push_back({sources[s].data(), static_cast<std::int64_t>(sources[s].size()), groups[s]});
    return spans;
  }
  [[nodiscard]] std::string file() const {
    std::string text = header;
    for (const auto& source : sources) text += source;
    return text;
  }
};

// The written file's bytes, its checksums and the lengths that were reported.
inline void check_written(const Capture& capture, const StateInMemory& state, const std::string& bytes, Checksum checksum) {
  const std::string expected = state.file();
  CHECK(bytes == expected);
  CHECK(capture.captured() && capture.written() && !capture.failed());
  CHECK_EQ(capture.bytes(), static_cast<std::int64_t>(expected.size()));
  CHECK_EQ(capture.bytes_captured(), capture.bytes());
  CHECK_EQ(capture.bytes_written(), capture.bytes());
  CHECK(capture.changed().empty());
  CHECK(capture.header_hash() == hash(checksum, state.header.data(), state.header.size()));
  auto at = static_cast<std::int64_t>(state.header.size());
  for (const Extent& e : capture.extents()) {
    CHECK_EQ(e.begin, at);
    at = e.end;
    CHECK(e.hash == hash(checksum, expected.data() + e.begin, static_cast<std::size_t>(e.end - e.begin)));
  }
  CHECK_EQ(at, capture.bytes());
}

}  // namespace hetsp::checkpoint
