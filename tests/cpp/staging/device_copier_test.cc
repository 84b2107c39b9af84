#include "hetsp/staging/device_copier.h"

#include <algorithm>
#include <random>
#include <string>
#include <thread>

#include "hetsp/base/error.h"
#include "staging/fake_device.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::staging;

namespace {

std::string random_text(std::mt19937_64& random, std::size_t bytes) {
  std::string text(bytes, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

// Pinned memory of the host.
struct Target {
  Target(FakeDevice& fake_device, std::size_t bytes) : fake(fake_device), text(bytes, '\x7f') {
    fake.pin(text.data(), static_cast<std::int64_t>(bytes));
  }
  ~Target() { fake.unpin(text.data()); }
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  FakeDevice& fake;
  std::string text;
};

}  // namespace

// Runs long and short, neighbours in memory, empty ones; several chunks under way; against concatenation.
TEST(chunks_are_their_pieces_back_to_back) {
  constexpr std::int64_t kChunk = std::int64_t{1} << 20;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937_64 random(seed);
    FakeDevice fake(seed);
    const DeviceRuntime::Stream producer = fake.stream(1);
    const std::string text = random_text(random, std::size_t{2} << 20);
    char* const memory = fake.memory(1, std::string(text.size(), '\0'));
    fake.write(producer, memory, text);  // later than open(), but for the fence
    const int depth = 1 + static_cast<int>(random() % 3);
    Target target(fake, static_cast<std::size_t>(kChunk) * 8);
    std::string expected;
    {
      DeviceCopier copier(fake, 1, {kChunk, depth});
      const auto moment = copier.open(producer, {}, {});
      std::vector<std::int64_t> begins, ends;
      std::int64_t finished = 0;
      const auto finish = [&] {
        copier.finish();
        const auto from = static_cast<std::size_t>(begins[static_cast<std::size_t>(finished)]),
                   to = static_cast<std::size_t>(ends[static_cast<std::size_t>(finished++)]);
        CHECK(std::equal(target.text.begin() + static_cast<std::ptrdiff_t>(from),
                         target.text.begin() + static_cast<std::ptrdiff_t>(to),
                         expected.begin() + static_cast<std::ptrdiff_t>(from)));
      };
      for (int chunk = 0; chunk < 8; ++chunk) {
        std::vector<DevicePiece> pieces;
        std::int64_t room = kChunk;
        const std::int64_t sizes[] = {
            0, 1, 100, 4096, 100000, DeviceCopier::kShortestTransfer - 1, DeviceCopier::kShortestTransfer, 500000, kChunk};
        std::int64_t at = 0;
        begins.push_back(static_cast<std::int64_t>(expected.size()));
        for (int p = 0; p < 6; ++p) {
          const std::int64_t bytes = std::min(room, sizes[random() % std::size(sizes)]);
          if (random() % 3 != 0) at = static_cast<std::int64_t>(random() % (std::size_t{1} << 20));
          pieces.push_back({memory + at, bytes});
          expected += text.substr(static_cast<std::size_t>(at), static_cast<std::size_t>(bytes));
          at += bytes, room -= bytes;
          if (at > (std::int64_t{1} << 20)) at = 0;
        }
        ends.push_back(static_cast<std::int64_t>(expected.size()));
        while (copier.full()) finish();
        copier.begin(*moment, pieces, target.text.data() + begins.back());
        CHECK(copier.in_flight() >= 1 && copier.in_flight() <= depth);
      }
      while (copier.in_flight() > 0) finish();
      CHECK(target.text.substr(0, expected.size()) == expected);
      CHECK(target.text[expected.size()] == '\x7f');
    }
    CHECK_EQ(fake.live(), 2);  // the target, the producer
  }
}

TEST(eager_pieces_are_as_they_are_at_open_and_noted_ones_come_with_the_first_chunk) {
  FakeDevice fake(5);
  const DeviceRuntime::Stream producer = fake.stream(0);
  char* const statistics = fake.memory(0, std::string(1000, 'a'));
  char* const weights = fake.memory(0, std::string(5000, 'w'));
  Target target(fake, 6000);
  DeviceCopier copier(fake, 0, {6000, 2});
  fake.write(producer, statistics, std::string(1000, 'b'));
  const auto moment =
      copier.open(producer, {{statistics, 300}, {statistics + 500, 500}}, {{weights, 64}, {weights + 4990, 10}});
  fake.write(producer, statistics, std::string(1000, 'c'));  // the forward pass goes on
  copier.begin(*moment, {{weights, 5000}, {moment->eager(), 800}}, target.text.data());
  copier.finish();
  CHECK(target.text == std::string(5000, 'w') + std::string(800, 'b') + std::string(200, '\x7f'));
  CHECK(std::string(moment->noted(), 74) == std::string(74, 'w'));
}

// Two chunks never stand back to back on the stream, and no more than `depth` are queued.
TEST(between_two_chunks_under_way_the_engine_may_breathe) {
  FakeDevice fake(1);
  const DeviceRuntime::Stream producer = fake.stream(0);
  char* const memory = fake.memory(0, std::string(600000, 'w'));
  Target target(fake, 600000);
  std::mutex gate;
  gate.lock();
  fake.run(producer, [&] { const std::lock_guard wait(gate); });  // training is busy
  DeviceCopier copier(fake, 0, {300000, 2});
  const auto moment = copier.open(producer, {}, {});
  copier.begin(*moment, {{memory, 300000}}, target.text.data());
  CHECK(!copier.full());
  copier.begin(*moment, {{memory + 300000, 300000}}, target.text.data() + 300000);
  CHECK(copier.full());
  CHECK(!copier.landed());
  const std::vector<DeviceRuntime::Stream> streams = fake.streams();
  const auto ours = std::find_if(streams.begin(), streams.end(), [&](DeviceRuntime::Stream s) { return s != producer; });
  CHECK(fake.log(*ours) == (std::vector<std::string>{"wait", "copy", "record", "breathe", "copy", "record"}));
  gate.unlock();
  copier.finish();
  copier.finish();
  CHECK(target.text == std::string(600000, 'w'));
  copier.begin(*moment, {{memory, 4}}, target.text.data());  // nothing is before it: it need not breathe
  copier.finish();
  CHECK_EQ(fake.calls("breathe"), 1);
}

TEST(short_pieces_go_by_one_transfer_and_each_alone_where_there_is_no_memory) {
  for (const bool room : {true, false}) {
    FakeDevice fake(2);
    std::string expected;
    std::vector<DevicePiece> pieces;
    for (int i = 0; i < 500; ++i) {
      const std::string text(static_cast<std::size_t>(i % 7), static_cast<char>('a' + i % 26));
      expected += text;
      pieces.push_back({fake.memory(0, text), static_cast<std::int64_t>(text.size())});
    }
    Target target(fake, expected.size());
    const DeviceRuntime::Stream producer = fake.stream(0);
    DeviceCopier copier(fake, 0, {std::int64_t{1} << 20, 2});
    const auto moment = copier.open(producer, {}, {});
    if (!room) fake.fail("allocate", 1, 1000);
    copier.begin(*moment, pieces, target.text.data());
    copier.finish();
    CHECK(target.text == expected);
    CHECK_EQ(fake.calls("copy_to_host"), room ? 1 : 428);
    CHECK_EQ(fake.calls("gather"), room ? 1 : 0);
  }
}

// Each call that can fail, each time it is made: what threw is named, nothing is under way, and then all goes as before.
TEST(every_call_that_fails_leaves_nothing_under_way) {
  const auto go = [](DeviceCopier& copier, DeviceRuntime::Stream producer, const char* memory, Target& target) {
    const auto moment = copier.open(producer, {{memory, 100}}, {{memory + 7, 64}});
    for (int i = 0; i < 4; ++i) {
      if (copier.full()) copier.finish();
      copier.begin(*moment, {{memory, 270000}, {memory + 300000, 10}, {memory + 300020, 10}, {moment->eager(), 100}},
                   target.text.data() + i * 270120);
    }
    while (copier.in_flight() > 0) {
      (void)copier.landed();
      copier.finish();
    }
  };
  std::map<std::string, std::int64_t> calls;
  const std::string text(300030, 'x');
  for (std::int64_t run = -1, all = 0; run < all; ++run) {
    FakeDevice fake(3);
    const DeviceRuntime::Stream producer = fake.stream(2);
    char* const memory = fake.memory(2, text);
    Target target(fake, 4 * 270120);
    DeviceCopier copier(fake, 2, {std::int64_t{1} << 20, 2});
    const auto before = fake.all_calls();
    if (run < 0) {
      go(copier, producer, memory, target);
      for (const auto& [name, count] : fake.all_calls()) {
        const std::int64_t made = count - (before.count(name) > 0 ? before.at(name) : 0);
        if (name != "free" && name.rfind("destroy", 0) != 0) calls[name] = made, all += made;
      }
      CHECK(all > 40);
      continue;
    }
    std::int64_t nth = run + 1;
    auto call = calls.begin();
    while (nth > call->second) nth -= call->second, ++call;
    check::context() = call->first + " " + std::to_string(nth);
    fake.fail(call->first, nth);
    bool threw = false;
    try {
      go(copier, producer, memory, target);
    } catch (const device::DeviceError& error) {
      threw = true;
      CHECK(std::string(error.what()) == call->first + ": cudaErrorLaunchFailure: unspecified launch failure");
    }
    // One without memory for the block does without; one that cannot set the old device again is told by the next call.
    CHECK(threw || call->first == "allocate" || call->first == "set_device");
    if (call->first == "synchronize_event" || call->first == "done") copier.drain();  // begin() has done it by itself
    CHECK_EQ(copier.in_flight(), 0);
    fake.set_device(0);
    std::fill(target.text.begin(), target.text.end(), '\0');  // ThreadSanitizer would see what still writes to it
    const auto moment = copier.open(producer, {}, {});
    copier.begin(*moment, {{memory, 5000}}, target.text.data());
    copier.finish();
    CHECK(target.text.substr(0, 5001) == text.substr(0, 5000) + '\0');
  }
}

TEST(a_block_is_used_again_when_nothing_writes_to_it_any_more) {
  FakeDevice fake(6);
  const DeviceRuntime::Stream one = fake.stream(0), two = fake.stream(0);
  char* const memory = fake.memory(0, std::string(100, 'm'));
  DeviceCopier copier(fake, 0, {4096, 2});
  std::mutex gate;
  gate.lock();
  fake.run(one, [&] { const std::lock_guard wait(gate); });
  const char* busy = nullptr;
  {
    const auto dropped = copier.open(one, {{memory, 100}}, {});  // its gather waits behind the gate
    busy = dropped->eager();
  }
  {
    const auto moment = copier.open(two, {{memory, 100}}, {});
    CHECK(moment->eager() != busy);
  }
  gate.unlock();
  fake.synchronize_stream(one), fake.synchronize_stream(two);
  const std::int64_t before = fake.calls("allocate");
  for (int i = 0; i < 20; ++i) {
    const auto moment = copier.open(i % 2 == 0 ? one : two, {{memory, 100}}, {});
    fake.synchronize_stream(i % 2 == 0 ? one : two);
  }
  CHECK_EQ(fake.calls("allocate"), before);
}

TEST(destroyed_with_copies_under_way_and_on_a_device_that_is_lost) {
  for (const bool broken : {false, true})
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      check::context() = "seed " + std::to_string(seed);
      FakeDevice fake(seed, 300);
      const DeviceRuntime::Stream producer = fake.stream(0);
      char* const memory = fake.memory(0, std::string(600000, 'm'));
      Target target(fake, 600000);
      {
        DeviceCopier copier(fake, 0, {300000, 2});
        const auto moment = copier.open(producer, {{memory, 10}}, {{memory, 10}});
        copier.begin(*moment, {{memory, 300000}}, target.text.data());
        copier.begin(*moment, {{memory, 300000}}, target.text.data() + 300000);
        if (broken) fake.break_down();
        if (broken) CHECK_THROWS(device::DeviceError, "cudaErrorIllegalAddress", copier.finish());
      }
      std::fill(target.text.begin(), target.text.end(), 'z');  // nobody else writes to it now
      if (!broken) CHECK_EQ(fake.live(), 2);
    }
}

TEST(bad_options_are_named) {
  FakeDevice fake;
  CHECK_THROWS(InvalidArgument, "chunk_bytes is 0", DeviceCopier(fake, 0, {0, 2}));
  CHECK_THROWS(InvalidArgument, "depth is -1", DeviceCopier(fake, 0, {4096, -1}));
}

TEST_MAIN()
