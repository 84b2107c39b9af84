#include "hetsp/comm/outgoing.h"

#include <vector>

#include "support/check.h"

using namespace hetsp::comm;

namespace {

Outgoing message(std::vector<std::byte>& data, std::size_t window) {
  Outgoing made(data.size(), 10, window);
  made.bytes = data;
  return made;
}

}  // namespace

TEST(chunks_cover_the_message_once) {
  std::vector<std::byte> data(25);
  Outgoing out = message(data, 8);
  CHECK_EQ(out.chunks(), 3u);
  CHECK_EQ(out.waiting(), std::size_t{3});
  for (std::uint32_t chunk = 0; chunk < 3; ++chunk) {
    CHECK_EQ(out.take(1, 100).value(), chunk);
    CHECK_EQ(out.piece(chunk).data() - data.data(), 10 * static_cast<std::ptrdiff_t>(chunk));
  }
  CHECK_EQ(out.piece(2).size(), std::size_t{5});
  CHECK(!out.take(1, 100));
  CHECK(out.tail());
  CHECK_EQ(out.arrived(1)->sent, Time{100});
  CHECK(!out.arrived(1));  // said again
  CHECK(!out.arrived(7));  // no such chunk
  out.arrived(0);
  out.arrived(2);
  CHECK(!out.tail());
}

TEST(no_more_than_the_window_is_under_way) {
  std::vector<std::byte> data(100);
  Outgoing out = message(data, 2);
  CHECK(out.take(0, 0) && out.take(0, 0) && !out.take(0, 0));
  CHECK_EQ(out.waiting(), std::size_t{0});
  out.arrived(1);
  CHECK_EQ(out.waiting(), std::size_t{1});
  CHECK_EQ(out.take(0, 0).value(), 2u);
}

TEST(what_a_rail_gives_back_goes_again_before_the_rest) {
  std::vector<std::byte> data(100);
  Outgoing out = message(data, 9);
  for (int i = 0; i < 4; ++i) out.take(i % 2, 5);
  CHECK(!out.give_back(0, 1));  // it went over rail 0
  CHECK(out.give_back(0, 0));
  CHECK(!out.give_back(0, 0));  // said again
  CHECK_EQ(out.give_back_all(1), std::size_t{2});
  CHECK_EQ(out.take(2, 6).value(), 0u);
  CHECK_EQ(out.attempt(0), std::uint16_t{1});
  CHECK_EQ(out.take(2, 6).value(), 1u);
  out.arrived(3);  // by its first copy after all
  CHECK_EQ(out.take(2, 6).value(), 4u);
  CHECK_EQ(out.attempt(4), std::uint16_t{0});
}

TEST(the_last_copy_counts) {
  std::vector<std::byte> data(10);
  Outgoing out = message(data, 9);
  out.take(0, 5);
  out.again(0, 3, 9);
  CHECK(!out.give_back(0, 0));
  CHECK_EQ(out.flights().at(0).attempts, std::uint16_t{2});
  CHECK(out.give_back(0, 3));
  CHECK_EQ(out.take(1, 10).value(), 0u);
  CHECK_EQ(out.arrived(0)->attempts, std::uint16_t{3});
}

TEST(nothing_to_send_is_no_chunk) {
  Outgoing out(0, 10, 4);
  CHECK_EQ(out.chunks(), 0u);
  CHECK(!out.take(0, 0) && !out.tail());
}

TEST_MAIN()
