#include "c10d/shared_link.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "support/check.h"

using namespace hetsp::routed;
using namespace hetsp::comm;

namespace {

constexpr std::size_t chunk = 1000;
constexpr RingShape shape{.ring_bytes = 4096, .slot_payload = chunk, .slots = 16};

std::shared_ptr<std::byte> zeros(const RingShape& of = shape) {
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(RingShape::page, of.bytes()));
  std::memset(memory, 0, of.bytes());
  return {memory, [](std::byte* done) { std::free(done); }};
}

// Two ends in one thread: what rings a bell is looked at anyway.
struct Pair {
  std::shared_ptr<std::byte> there = zeros(), back = zeros();
  SharedLink a{std::make_shared<RingReader>(back, shape, Bell()), RingWriter(there, shape, Bell())};
  SharedLink b{std::make_shared<RingReader>(there, shape, Bell()), RingWriter(back, shape, Bell())};
  std::vector<Token> sent;

  void send(std::uint64_t number, Kind kind, std::size_t length) {
    const std::vector<std::byte> bytes(length, static_cast<std::byte>(number));
    Header header{.kind = kind, .value = number, .length = static_cast<std::uint32_t>(length)};
    a.send(header, bytes, number + 1, sent);
  }
};

bool holds(std::span<const std::byte> bytes, std::uint64_t number) {
  for (const std::byte byte : bytes)
    if (byte != static_cast<std::byte>(number)) return false;
  return true;
}

}  // namespace

TEST(tokens_are_answered_at_once_until_the_reader_falls_behind) {
  Pair pair;
  std::vector<std::shared_ptr<Buffer>> slots;
  for (std::uint64_t i = 0; i < 12; ++i) pair.send(i, Kind::chunk, chunk);
  CHECK_EQ(pair.sent.size(), std::size_t{SharedLink::calm});
  RingReader::Frame frame;
  for (std::uint64_t i = 0; i < 12; ++i) {
    CHECK(pair.b.take(frame));
    CHECK_EQ(frame.header.value, i);
    pair.b.next();
    slots.push_back(pair.b.slot(frame));
  }
  pair.a.flush(pair.sent);
  CHECK_EQ(pair.sent.size(), std::size_t{SharedLink::calm});  // taken, but held
  CHECK(!pair.a.ready());
  CHECK(pair.b.scarce());
  slots.resize(SharedLink::caught_up);
  CHECK(pair.a.ready());
  pair.a.flush(pair.sent);
  CHECK_EQ(pair.sent.size(), std::size_t{12});
  for (std::uint64_t i = 0; i < slots.size(); ++i) CHECK(holds({slots[i]->payload(), chunk}, i));
}

TEST(without_room_frames_wait_in_order_small_behind_large) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    Pair pair;
    std::uint64_t sent = 0, heard = 0;
    constexpr std::uint64_t frames = 300;
    std::vector<std::shared_ptr<Buffer>> slots;
    while (heard < frames) {
      if (sent < frames && random() % 5 < 3) {
        pair.send(sent++, random() % 2 == 0 ? Kind::chunk : Kind::grant, random() % (chunk + 1));
        continue;
      }
      if (random() % 3 == 0 && !slots.empty())
        slots.erase(slots.begin() + static_cast<std::ptrdiff_t>(random() % slots.size()));
      if (random() % 2 == 0) pair.a.flush(pair.sent);
      RingReader::Frame frame;
      if (!pair.b.take(frame)) {
        if (sent == frames || slots.size() == shape.slots) {
          slots.clear();
          pair.a.flush(pair.sent);
        }
        continue;
      }
      CHECK_EQ(frame.header.value, heard);
      CHECK(holds(frame.payload, heard));
      pair.b.next();
      if (frame.slot >= 0) slots.push_back(pair.b.slot(frame));
      ++heard;
    }
    slots.clear();
    pair.a.flush(pair.sent);
    std::sort(pair.sent.begin(), pair.sent.end());
    CHECK_EQ(pair.sent.size(), std::size_t{frames});  // each once
    CHECK(std::adjacent_find(pair.sent.begin(), pair.sent.end()) == pair.sent.end());
  }
  check::context().clear();
}

TEST(a_frame_too_large_for_the_ring_goes_into_a_slot_whatever_its_kind) {
  constexpr RingShape large{.ring_bytes = 4 * SharedLink::most_in_ring, .slot_payload = 200000, .slots = 16};
  const auto memory = zeros(large);
  SharedLink out(std::make_shared<RingReader>(zeros(large), large, Bell()), RingWriter(memory, large, Bell()));
  SharedLink in(std::make_shared<RingReader>(memory, large, Bell()), RingWriter(zeros(large), large, Bell()));
  std::vector<Token> sent;
  for (const std::size_t length : {SharedLink::most_in_ring, SharedLink::most_in_ring + 1, std::size_t{200000}}) {
    const std::vector<std::byte> bytes(length, std::byte{3});
    out.send({.kind = Kind::offer, .length = static_cast<std::uint32_t>(length)}, bytes, length, sent);
    RingReader::Frame frame;
    CHECK(in.take(frame));
    CHECK_EQ(frame.slot >= 0, length > SharedLink::most_in_ring);
    CHECK(std::equal(bytes.begin(), bytes.end(), frame.payload.begin(), frame.payload.end()));
    in.next();
    if (frame.slot >= 0) in.slot(frame).reset();
  }
  CHECK_EQ(sent.size(), std::size_t{3});
}

TEST(a_link_that_ends_answers_what_it_holds_back_and_what_waits_and_drops_the_rest) {
  Pair pair;
  for (std::uint64_t i = 0; i < 20; ++i) pair.send(i, Kind::chunk, chunk);
  pair.send(20, Kind::fin, 0);
  CHECK_EQ(pair.sent.size(), std::size_t{SharedLink::calm});
  pair.a.end(pair.sent);
  CHECK_EQ(pair.sent.size(), std::size_t{21});
  pair.send(21, Kind::fin, 0);
  CHECK_EQ(pair.sent.size(), std::size_t{22});
  CHECK(!pair.a.ready());
  RingReader::Frame frame;
  std::uint64_t there = 0;
  while (pair.b.take(frame)) {
    pair.b.next();
    pair.b.slot(frame).reset();
    ++there;
  }
  CHECK_EQ(there, std::uint64_t{16});  // what was in the memory before is still heard
}

TEST(nonsense_in_the_memory_is_a_failure_of_the_link) {
  Pair pair;
  pair.send(0, Kind::fin, 0);
  std::memset(pair.there.get() + RingShape::page, 0xAB, 200);
  RingReader::Frame frame;
  CHECK(!pair.b.take(frame));
  CHECK(pair.b.failure().find("shared memory") != std::string::npos);
  CHECK(pair.b.ready());  // to be told
  std::memset(pair.there.get() + 64, 0xCD, 8);  // the tail
  pair.send(1, Kind::fin, 0);
  CHECK(!pair.a.failure().empty());
}

TEST_MAIN()
