#include "c10d/wire.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "c10d/events.h"
#include "c10d/scripted_lane.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::routed;
using scripted::Cable;
using scripted::Reports;
using scripted::Watched;

namespace {

constexpr std::size_t room = 1000;

std::byte pattern(std::uint64_t value, std::size_t i) { return static_cast<std::byte>(value * 31 + i * 7); }

// One end of a cable at work.
class Station {
 public:
  Station(const std::shared_ptr<Cable>& cable, int side, int depth = 4)
      : pool_(std::make_shared<BufferPool>(room, 8)),
        wire_(std::make_unique<Wire>(
            cable->end(side), pool_, depth,
            WireEvents{.arrived = [this](const std::shared_ptr<Buffer>& buffer) { arrived(*buffer); },
                       .sent = [this](comm::Token token) { add([&](Reports& r) { r.sent.push_back(token); }); },
                       .broken = [this](const std::string& why) { add([&](Reports& r) { r.broken.push_back(why); }); }})) {}
  ~Station() { close(); }
  Station(const Station&) = delete;
  Station& operator=(const Station&) = delete;

  void send(std::uint64_t value, std::size_t length) {
    std::shared_ptr<Buffer> buffer = pool_->take();
    comm::Header header;
    header.value = value;
    header.length = static_cast<std::uint32_t>(length);
    buffer->set_header(header);
    for (std::size_t i = 0; i < length; ++i) buffer->payload()[i] = pattern(value, i);
    wire_->send(std::move(buffer), length, value + 1);
  }
  void close() {
    if (wire_) wire_->close();
    wire_.reset();
    closed_ = true;
  }

  Watched<Reports> reports;
  bool after_close() const { return late_; }

 private:
  template <class Change>
  void add(Change how) {
    if (closed_) late_ = true;
    reports.change(how);
  }
  void arrived(Buffer& buffer) {
    const comm::Header header = buffer.header();
    bool well = true;
    for (std::size_t i = 0; i < header.length; ++i) well &= buffer.payload()[i] == pattern(header.value, i);
    add([&](Reports& r) {
      r.arrived.push_back(header.value);
      r.lengths.push_back(header.length);
      r.well &= well;
    });
  }

  std::atomic<bool> closed_ = false, late_ = false;
  std::shared_ptr<BufferPool> pool_;
  std::unique_ptr<Wire> wire_;
};

std::vector<std::uint64_t> upto(std::uint64_t count, std::uint64_t first = 0) {
  std::vector<std::uint64_t> numbers;
  for (std::uint64_t i = 0; i < count; ++i) numbers.push_back(first + i);
  return numbers;
}

}  // namespace

TEST(frames_arrive_in_order_with_their_payloads_both_ways_at_once) {
  constexpr std::uint64_t frames = 2000;
  const auto cable = Cable::make();
  Station a(cable, 0), b(cable, 1);
  std::mt19937 random(1);
  std::vector<std::size_t> lengths;
  for (std::uint64_t i = 0; i < frames; ++i) lengths.push_back(i % 3 == 0 ? 0 : i % 5 == 0 ? room : random() % room);
  const auto send_all = [&](Station& from) {
    for (std::uint64_t i = 0; i < frames; ++i) from.send(i, lengths[i]);
  };
  std::thread other([&] { send_all(b); });
  send_all(a);
  other.join();
  for (Station* station : {&a, &b}) {
    CHECK(station->reports.until([](const Reports& r) { return r.arrived.size() == frames && r.sent.size() == frames; }));
    const Reports reports = station->reports.now();
    CHECK(reports.arrived == upto(frames));
    CHECK(reports.lengths == lengths);
    CHECK(reports.sent == upto(frames, 1));
    CHECK(reports.well);
    CHECK(reports.broken.empty());
  }
  a.close();
  CHECK(b.reports.until([](const Reports& r) { return r.broken.size() == 1; }));
  b.close();
  CHECK_EQ(cable->open_ends(), 0);
  CHECK_EQ(cable->forgotten(), 0u);
}

TEST(a_cut_is_told_once_and_every_frame_under_way_is_reported_as_sent) {
  for (const bool half_in : {false, true})
    for (const std::uint64_t before : {0, 1, 20}) {
      check::context() = std::string(half_in ? "half in, " : "between frames, ") + std::to_string(before) + " frames before";
      const auto cable = Cable::make();
      Station a(cable, 0), b(cable, 1);
      for (std::uint64_t i = 0; i < before; ++i) a.send(i, i * 10);
      CHECK(b.reports.until([&](const Reports& r) { return r.arrived.size() == before; }));
      cable->stall(true);
      for (std::uint64_t i = 0; i < 20; ++i) a.send(before + i, 100);
      cable->cut("the cable was cut", half_in);
      // What is half in hides the cut from the end that waits for it, until that end sends.
      if (half_in) a.send(before + 20, 1), b.send(0, 1);
      const std::uint64_t all = before + 20 + static_cast<std::uint64_t>(half_in);
      CHECK(a.reports.until([&](const Reports& r) { return r.sent.size() == all && r.broken.size() == 1; }));
      CHECK(b.reports.until([](const Reports& r) { return r.broken.size() == 1; }));
      a.send(all, 10);  // refused, reported
      CHECK(a.reports.until([&](const Reports& r) { return r.sent.size() == all + 1; }));
      a.close();
      b.close();
      CHECK(a.reports.now().sent == upto(all + 1, 1));
      CHECK_EQ(b.reports.now().arrived.size(), before);
      for (Station* station : {&a, &b}) {
        CHECK(station->reports.now().broken == std::vector<std::string>{"the cable was cut"});
      }
      CHECK_EQ(cable->forgotten(), 0u);
    }
}

TEST(close_ends_what_is_blocked_and_breaks_nothing_here) {
  for (const int frames : {0, 1, 50}) {
    check::context() = std::to_string(frames) + " frames that nobody takes";
    const auto cable = Cable::make();
    Station a(cable, 0);
    for (int i = 0; i < frames; ++i) a.send(static_cast<std::uint64_t>(i), 100);
    a.close();
    CHECK_EQ(a.reports.now().sent.size(), static_cast<std::size_t>(frames));
    CHECK(a.reports.now().broken.empty());
    CHECK(!a.after_close());
    CHECK_EQ(cable->open_ends(), 0);
    CHECK_EQ(cable->forgotten(), 0u);
  }
}

TEST(what_is_no_frame_breaks_the_wire_and_is_not_handed_on) {
  struct Case {
    const char* name;
    Cable::Change change;
    const char* why;
  };
  const auto with_header = [](auto how) {
    return [how](std::vector<std::byte>& bytes) {
      comm::Header header;
      std::memcpy(&header, bytes.data(), sizeof header);
      how(header);
      std::memcpy(bytes.data(), &header, sizeof header);
    };
  };
  const std::vector<Case> cases = {
      {"garbage", [](auto& bytes) { std::fill(bytes.begin(), bytes.end(), std::byte{0x5a}); }, "no frame"},
      {"wrong magic", with_header([](comm::Header& header) { header.magic ^= 1; }), "no frame"},
      {"oversized length", with_header([](comm::Header& header) { header.length = room + 1; }), "no frame"},
      {"greatest length", with_header([](comm::Header& header) { header.length = 0xffffffff; }), "no frame"},
      {"nothing", [](auto& bytes) { bytes.clear(); }, "no frame"},
      {"half a header", [](auto& bytes) { bytes.resize(sizeof(comm::Header) / 2 - 30); }, "no frame"},
      {"larger than the room", [](auto& bytes) { bytes.resize(sizeof(comm::Header) + room + 1); }, "larger than its room"},
  };
  for (const Case& it : cases) {
    check::context() = it.name;
    const auto cable = Cable::make();
    Station a(cable, 0), b(cable, 1, 2);
    // Buffers go round: what arrives later must not be taken for what a buffer held before.
    for (std::uint64_t i = 0; i < 30; ++i) a.send(i, 50);
    CHECK(b.reports.until([](const Reports& r) { return r.arrived.size() == 30; }));
    cable->change_next(0, it.change);
    a.send(30, 50);
    a.send(31, 50);
    if (std::string(it.why) == "larger than its room") b.send(0, 0);  // it is half in
    CHECK(b.reports.until([](const Reports& r) { return r.broken.size() == 1; }));
    b.close();
    const Reports reports = b.reports.now();
    CHECK_EQ(reports.arrived.size(), 30u);
    CHECK(reports.well);
    CHECK_EQ(reports.broken.size(), 1u);
    CHECK(!reports.broken.empty() && reports.broken.front().find(it.why) != std::string::npos);
    CHECK(a.reports.until([](const Reports& r) { return r.broken.size() == 1 && r.sent.size() == 32; }));
  }
}

TEST(a_lane_that_refuses_breaks_the_wire) {
  for (const char* why : {"no route to host", ""}) {
    check::context() = std::string("refused: ") + why;
    const auto cable = Cable::make();
    Station a(cable, 0), b(cable, 1);
    a.send(0, 10);
    CHECK(b.reports.until([](const Reports& r) { return r.arrived.size() == 1; }));
    CHECK(a.reports.until([](const Reports& r) { return r.sent.size() == 1; }));
    cable->refuse_next(0, why);
    a.send(1, 10);
    CHECK(a.reports.until([](const Reports& r) { return r.sent.size() == 2 && r.broken.size() == 1; }));
    a.close();
    CHECK(a.reports.now().broken == std::vector<std::string>{*why == 0 ? "connection broken" : why});
    CHECK(b.reports.until([](const Reports& r) { return r.broken.size() == 1; }));
  }
  // Also the receives that it begins with.
  const auto cable = Cable::make();
  cable->refuse_next(0, "no room");
  Station a(cable, 0);
  CHECK(a.reports.until([](const Reports& r) { return r.broken.size() == 1 && r.broken.front() == "no room"; }));
}

// Frames, stalls, a cut at any time, a close from either end at any time: what arrives is the first frames in order, every
// frame is reported as sent once, a break at most once, and nothing after the close.
TEST(any_end_at_any_time_seeds_0_to_149) {
  for (unsigned seed = 0; seed < 150; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    const auto cable = Cable::make();
    Station a(cable, 0, 1 + static_cast<int>(random() % 4)), b(cable, 1, 1 + static_cast<int>(random() % 4));
    const std::uint64_t frames[2] = {random() % 200, random() % 200};
    const auto how = random() % 4, pause = random() % 400, stalls = random() % 2;
    std::thread sends[2];
    for (int side : {0, 1})
      sends[side] = std::thread([&, side] {
        Station& from = side == 0 ? a : b;
        for (std::uint64_t i = 0; i < frames[side]; ++i) from.send(i, i % room);
      });
    if (stalls != 0) cable->stall(true);
    std::this_thread::sleep_for(std::chrono::microseconds(pause));
    if (stalls != 0) cable->stall(false);
    if (how == 1) cable->cut("cut");
    if (how == 2) cable->cut("cut", true);
    for (auto& thread : sends) thread.join();
    if (how == 3) b.close();
    a.close();
    b.close();
    for (Station* station : {&a, &b}) {
      const int side = station == &a ? 0 : 1;
      const Reports reports = station->reports.now();
      CHECK(reports.arrived == upto(reports.arrived.size()));
      CHECK(reports.arrived.size() <= frames[1 - side]);
      CHECK(reports.sent == upto(frames[side], 1));
      CHECK(reports.well);
      CHECK(reports.broken.size() <= 1);
      CHECK(!station->after_close());
    }
    CHECK_EQ(cable->forgotten(), 0u);
    CHECK_EQ(cable->open_ends(), 0);
  }
}

TEST_MAIN()
