#include "hetsp/comm/incoming.h"

#include <vector>

#include "support/check.h"

using namespace hetsp::comm;

namespace {

Header chunk(std::uint32_t index, std::uint64_t offset, std::uint32_t length) {
  return {.kind = Kind::chunk, .value = offset, .length = length, .chunk = index};
}

}  // namespace

TEST(chunks_land_where_they_belong_and_once) {
  std::vector<std::byte> memory(25);
  Incoming in({.source = 1, .transfer = 4, .bytes = 25}, {.operation = 3, .bytes = memory}, 10);
  CHECK_EQ(in.begin(chunk(2, 20, 5)) - memory.data(), std::ptrdiff_t{20});
  CHECK(in.begin(chunk(2, 20, 5)) == nullptr);  // on its way already
  in.stored(2);
  CHECK(in.begin(chunk(2, 20, 5)) == nullptr);  // stored
  CHECK_EQ(in.begin(chunk(0, 0, 10)) - memory.data(), std::ptrdiff_t{0});
  CHECK_EQ(in.begin(chunk(1, 10, 10)) - memory.data(), std::ptrdiff_t{10});
  in.stored(0);
  CHECK(!in.complete());
  in.stored(1);
  CHECK(in.complete());
  CHECK_EQ(in.storing, std::size_t{0});
  CHECK((in.fresh == std::vector<std::uint32_t>{2, 0, 1}));
}

TEST(a_chunk_that_does_not_fit_touches_nothing) {
  std::vector<std::byte> memory(25);
  Incoming in({.source = 1, .transfer = 4, .bytes = 25}, {.operation = 3, .bytes = memory}, 10);
  CHECK(in.begin(chunk(3, 30, 10)) == nullptr);
  CHECK(in.begin(chunk(1, 11, 10)) == nullptr);
  CHECK(in.begin(chunk(2, 20, 10)) == nullptr);
  CHECK(in.begin(chunk(1, 10, 9)) == nullptr);
  in.ended = true;
  CHECK(in.begin(chunk(1, 10, 10)) == nullptr);
}

TEST_MAIN()
