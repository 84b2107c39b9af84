#include "hetsp/checkpoint/legs.h"

#include <random>
#include <string>
#include <tuple>

#include "support/check.h"

using namespace hetsp::checkpoint;

namespace {

using Byte = std::tuple<int, std::int64_t, std::int64_t>;  // device, span, place in it

std::vector<Byte> bytes_of(std::int64_t header, const std::vector<Span>& spans) {
  std::vector<Byte> bytes;
  for (std::int64_t i = 0; i < header; ++i) bytes.emplace_back(kHost, -1, i);
  for (std::size_t s = 0; s < spans.size(); ++s)
    for (std::int64_t i = 0; i < spans[s].bytes; ++i) bytes.emplace_back(spans[s].device, static_cast<std::int64_t>(s), i);
  return bytes;
}

}  // namespace

// Against the list of all bytes, one by one: in order, none twice, none left out, each leg as long as may be.
TEST(legs_are_the_file_in_order_and_as_long_as_may_be) {
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937_64 random(seed);
    const std::int64_t header = 1 + static_cast<std::int64_t>(random() % 40),
                       chunk = 1 + static_cast<std::int64_t>(random() % 50);
    std::vector<Span> spans(random() % 8);
    for (Span& span : spans) {
      const std::int64_t sizes[] = {0, 1, chunk - 1, chunk, chunk + 1, 3 * chunk, 17};
      span.bytes = sizes[random() % std::size(sizes)];
      span.device = static_cast<int>(random() % 3) - 1;
    }
    const std::vector<Byte> expected = bytes_of(header, spans);
    std::vector<Byte> walked;
    Legs legs(header, spans, chunk);
    while (!legs.done()) {
      const std::int64_t room = 1 + static_cast<std::int64_t>(random() % 100);
      CHECK_EQ(legs.offset(), static_cast<std::int64_t>(walked.size()));
      const int device = legs.device();
      const Leg leg = legs.next(room);
      CHECK_EQ(leg.offset, static_cast<std::int64_t>(walked.size()));
      CHECK_EQ(leg.device, device);
      CHECK(leg.bytes > 0 && leg.bytes <= room && (device == kHost || leg.bytes <= chunk));
      for (const Leg::Piece& piece : leg.pieces) {
        CHECK(piece.bytes > 0);
        for (std::int64_t i = 0; i < piece.bytes; ++i) walked.emplace_back(leg.device, piece.span, piece.begin + i);
      }
      CHECK_EQ(leg.offset + leg.bytes, static_cast<std::int64_t>(walked.size()));
      const bool full = leg.bytes == room || (device != kHost && leg.bytes == chunk);
      CHECK(full || walked.size() == expected.size() || std::get<0>(expected[walked.size()]) != device);
    }
    CHECK(walked == expected);
  }
}

TEST_MAIN()
