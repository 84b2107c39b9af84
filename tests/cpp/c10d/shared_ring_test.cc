#include "c10d/shared_ring.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "support/check.h"

using namespace hetsp::routed;
using hetsp::comm::Header;

namespace {

using Clock = Bell::Clock;

// Of exactly the shape's size, so that the sanitizers see a step beyond it.
std::shared_ptr<std::byte> memory_of(const RingShape& shape) {
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(RingShape::page, shape.bytes()));
  std::memset(memory, 0, shape.bytes());
  return {memory, [](std::byte* done) { std::free(done); }};
}

Header header_of(std::uint64_t number, std::size_t length) {
  return {.value = number, .length = static_cast<std::uint32_t>(length)};
}

// What frame `number` holds at `i`: any mix of two frames shows.
std::byte pattern(std::uint64_t number, std::size_t i) {
  return static_cast<std::byte>((number * 167 + i * 13 + (i >> 8u)) & 255u);
}

std::vector<std::byte> payload_of(std::uint64_t number, std::size_t length) {
  std::vector<std::byte> bytes(length);
  for (std::size_t i = 0; i < length; ++i) bytes[i] = pattern(number, i);
  return bytes;
}

bool intact(std::uint64_t number, std::span<const std::byte> bytes) {
  for (std::size_t i = 0; i < bytes.size(); ++i)
    if (bytes[i] != pattern(number, i)) return false;
  return true;
}

void sleep_at(Bell& bell, const std::function<bool()>& ready) {
  for (std::uint32_t armed = bell.arm(); !ready(); armed = bell.arm())
    bell.wait(armed, Clock::now() + std::chrono::seconds(20));
  bell.disarm();
}

// Corners: nothing, one byte, the largest, sizes around it.
std::size_t some_length(std::mt19937& random, std::size_t most) {
  switch (random() % 5) {
    case 0:
      return 0;
    case 1:
      return 1 + random() % 8;
    case 2:
      return most - random() % std::min<std::size_t>(most, 20);
    default:
      return random() % (most + 1);
  }
}

}  // namespace

TEST(frames_arrive_whole_and_in_order_whatever_their_size_and_whenever_slots_come_back) {
  for (unsigned seed = 0; seed < 12; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    const RingShape shape{.ring_bytes = 4096u << (seed % 3),
                          .slot_payload = 1 + random() % 9000,
                          .slots = static_cast<std::uint32_t>(1 + random() % 8)};
    const auto memory = memory_of(shape);
    Bell reader_bell, writer_bell;
    const auto reader = std::make_shared<RingReader>(memory, shape, writer_bell);
    constexpr std::uint64_t frames = 4000;

    std::thread writing([&, seed] {
      std::mt19937 own(seed + 1000);
      RingWriter writer(memory, shape, reader_bell);
      for (std::uint64_t number = 0; number < frames; ++number) {
        const bool in_slot = own() % 3 == 0;
        const auto bytes = payload_of(number, some_length(own, in_slot ? shape.slot_payload : shape.inline_payload()));
        const Header header = header_of(number, bytes.size());
        auto put = RingWriter::Put::full;
        sleep_at(writer_bell, [&] {
          put = writer.put(header, bytes, in_slot);
          if (put != RingWriter::Put::full) return true;
          writer.want_ring();
          writer.want_slots(shape.slots - 1);
          put = writer.put(header, bytes, in_slot);
          return put != RingWriter::Put::full;
        });
        if (put != RingWriter::Put::done) return check::fail(__FILE__, __LINE__, "a frame was refused");
      }
    });

    std::mutex mutex;
    std::deque<std::pair<int, std::uint64_t>> later;  // slots to give back from another thread
    std::atomic<bool> ended{false};
    std::thread releasing([&, seed] {
      std::mt19937 own(seed + 2000);
      for (;;) {
        const bool last = ended.load();
        std::unique_lock lock(mutex);
        if (later.empty()) {
          if (last) return;
          lock.unlock();
          std::this_thread::yield();
          continue;
        }
        const auto at = later.begin() + static_cast<std::ptrdiff_t>(own() % later.size());
        const int slot = at->first;
        later.erase(at);
        lock.unlock();
        reader->release(slot);
      }
    });

    std::uint64_t next = 0;
    while (next < frames) {
      sleep_at(reader_bell, [&] { return !reader->empty(); });
      RingReader::Frame frame;
      std::string why;
      const auto taken = reader->take(frame, why);
      if (taken != RingReader::Take::frame) {
        check::fail(__FILE__, __LINE__, "no frame: " + why);
        break;
      }
      CHECK_EQ(frame.header.value, next);
      CHECK_EQ(frame.payload.size(), std::size_t{frame.header.length});
      CHECK(intact(next, frame.payload));
      ++next;
      reader->pop();
      if (frame.slot >= 0) {
        const std::scoped_lock lock(mutex);
        later.emplace_back(frame.slot, frame.header.value);
      }
    }
    writing.join();
    ended = true;
    releasing.join();
    CHECK_EQ(reader->held(), 0u);
    CHECK(reader->empty());
  }
  check::context().clear();
}

TEST(a_slot_keeps_its_bytes_until_it_is_released) {
  const RingShape shape{.ring_bytes = 4096, .slot_payload = 100, .slots = 2};
  const auto memory = memory_of(shape);
  RingWriter writer(memory, shape, Bell());
  RingReader reader(memory, shape, Bell());
  const auto put = [&](std::uint64_t number) { return writer.put(header_of(number, 100), payload_of(number, 100), true); };
  CHECK(put(1) == RingWriter::Put::done);
  CHECK(put(2) == RingWriter::Put::done);
  CHECK(put(3) == RingWriter::Put::full);
  RingReader::Frame first, second, third;
  std::string why;
  CHECK(reader.take(first, why) == RingReader::Take::frame);
  CHECK(reader.take(first, why) == RingReader::Take::frame);  // the same again
  reader.pop();
  CHECK(reader.take(second, why) == RingReader::Take::frame);
  reader.pop();
  CHECK_EQ(reader.held(), 2u);
  CHECK(put(3) == RingWriter::Put::full);
  CHECK_EQ(writer.slots_used(), 2u);
  reader.release(second.slot);
  CHECK_EQ(writer.slots_used(), 1u);
  CHECK(put(3) == RingWriter::Put::done);
  CHECK(reader.take(third, why) == RingReader::Take::frame);
  reader.pop();
  CHECK_EQ(third.slot, second.slot);
  CHECK(intact(1, first.payload));
  CHECK(intact(3, third.payload));
  CHECK(reader.take(third, why) == RingReader::Take::nothing);
}

TEST(small_frames_pass_while_all_slots_are_held) {
  const RingShape shape{.ring_bytes = 4096, .slot_payload = 100, .slots = 1};
  const auto memory = memory_of(shape);
  RingWriter writer(memory, shape, Bell());
  RingReader reader(memory, shape, Bell());
  RingReader::Frame frame;
  std::string why;
  CHECK(writer.put(header_of(0, 100), payload_of(0, 100), true) == RingWriter::Put::done);
  CHECK(reader.take(frame, why) == RingReader::Take::frame);
  reader.pop();
  for (std::uint64_t number = 1; number < 200; ++number) {
    CHECK(writer.put(header_of(number, 50), payload_of(number, 50), false) == RingWriter::Put::done);
    CHECK(reader.take(frame, why) == RingReader::Take::frame);
    CHECK_EQ(frame.header.value, number);
    CHECK(intact(number, frame.payload));
    reader.pop();
  }
}

// Every byte that the other process can write may be anything: an answer, never a step outside the memory.
TEST(a_peer_that_scribbles_breaks_the_link_and_nothing_else) {
  std::size_t broken = 0, frames = 0;
  for (unsigned seed = 0; seed < 3000; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    const RingShape shape{.ring_bytes = 4096, .slot_payload = 200, .slots = static_cast<std::uint32_t>(1 + random() % 4)};
    const auto memory = memory_of(shape);
    RingWriter writer(memory, shape, Bell());
    RingReader reader(memory, shape, Bell());
    std::vector<int> held;
    for (int step = 0; step < 40; ++step) {
      const bool in_slot = random() % 2 == 0;
      const auto bytes = payload_of(step, some_length(random, in_slot ? shape.slot_payload : shape.inline_payload()));
      std::uint64_t head = 0;
      std::memcpy(&head, memory.get(), sizeof head);
      (void)writer.put(header_of(step, bytes.size()), bytes, in_slot);
      if (random() % 4 == 0) {
        // Anywhere, or where it hurts: the positions, the frame that comes next.
        const std::size_t next = RingShape::page + (random() % 4 == 0 ? 0 : head % shape.ring_bytes);
        const std::size_t places[] = {random() % shape.bytes(),           0, 64, 128, next, next, next + 8,
                                      next + 8 + offsetof(Header, length)};
        const std::uint32_t values[] = {0,
                                        1,
                                        0xFFFFFFFF,
                                        0x736b6970,
                                        0x72696e67,
                                        static_cast<std::uint32_t>(random() % 300),
                                        static_cast<std::uint32_t>(random())};
        const std::size_t where = std::min(places[random() % 8], shape.bytes() - 4);
        std::memcpy(memory.get() + where, &values[random() % 7], 4);
      }
      RingReader::Frame frame;
      std::string why;
      const auto taken = reader.take(frame, why);
      if (taken == RingReader::Take::broken) {
        ++broken;
        CHECK(!why.empty());
        CHECK(reader.take(frame, why) == RingReader::Take::broken);  // for good
        break;
      }
      if (taken == RingReader::Take::nothing) continue;
      ++frames;
      unsigned sum = 0;
      for (const std::byte byte : frame.payload) sum += static_cast<unsigned>(byte);  // all of it can be read
      CHECK(sum < 1u << 30u);
      reader.pop();
      if (frame.slot >= 0) held.push_back(frame.slot);
      if (!held.empty() && random() % 2 == 0) {
        reader.release(held.back());
        held.pop_back();
      }
    }
  }
  check::context().clear();
  CHECK(broken > 300);
  CHECK(frames > 3000);
}

TEST(a_writer_that_is_killed_leaves_whole_frames_and_a_reader_that_wakes) {
  const RingShape shape{.ring_bytes = 8192, .slot_payload = 5000, .slots = 3};
  for (unsigned seed = 0; seed < 12; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    auto* both = static_cast<std::byte*>(
        mmap(nullptr, RingShape::page + shape.bytes(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    const std::shared_ptr<std::byte> memory(both, [&shape](std::byte* done) { munmap(done, RingShape::page + shape.bytes()); });
    const std::shared_ptr<std::byte> link(memory, both + RingShape::page);
    Bell reader_bell(std::shared_ptr<Bell::Word>(memory, reinterpret_cast<Bell::Word*>(both)));
    Bell writer_bell(std::shared_ptr<Bell::Word>(memory, reinterpret_cast<Bell::Word*>(both + 64)));
    const pid_t child = fork();
    if (child == 0) {
      RingWriter writer(link, shape, reader_bell);
      for (std::uint64_t number = 0;; ++number) {
        const bool in_slot = number % 2 == 0;
        const auto bytes = payload_of(number, in_slot ? shape.slot_payload : 100);
        sleep_at(writer_bell, [&] {
          if (writer.put(header_of(number, bytes.size()), bytes, in_slot) == RingWriter::Put::done) return true;
          writer.want_ring();
          writer.want_slots(1);
          return writer.put(header_of(number, bytes.size()), bytes, in_slot) == RingWriter::Put::done;
        });
      }
    }
    CHECK(child > 0);
    RingReader reader(link, shape, writer_bell);
    std::uint64_t next = 0;
    const auto drain = [&] {
      RingReader::Frame frame;
      std::string why;
      while (reader.take(frame, why) == RingReader::Take::frame) {
        CHECK_EQ(frame.header.value, next);
        CHECK(intact(next, frame.payload));
        ++next;
        reader.pop();
        if (frame.slot >= 0) reader.release(frame.slot);
      }
      CHECK(why.empty());
    };
    const std::uint64_t enough = 200 + 37 * seed;
    while (next < enough) {
      sleep_at(reader_bell, [&] { return !reader.empty(); });
      drain();
    }
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status));
    drain();
    CHECK(reader.empty());
  }
  check::context().clear();
}

TEST_MAIN()
