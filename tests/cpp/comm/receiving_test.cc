#include "hetsp/comm/receiving.h"

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "comm/wires.h"
#include "hetsp/comm/endpoint.h"
#include "support/check.h"

using namespace wires;

namespace {

const EngineOptions options{.job = 7, .chunk_bytes = 4096, .eager_bytes = 512, .direct_bytes = 4096};

struct Deaf final : Transport {
  void send(Link, const Header&, std::span<const std::byte>, Token) override {}
  void forward(Link, const Header&, Arrival, Token) override {}
  void store(Arrival, std::byte*, Token) override {}
  void release(Arrival) override {}
  void reset(Link) override {}
  void complete(Operation, const Outcome&) override {}
};

}  // namespace

// A rank that cancels without end what it never offers takes a bounded piece of memory, and the cancels that matter first stay.
TEST(cancels_before_their_offers_are_bounded) {
  Deaf transport;
  Endpoint endpoint(grid(2, 2, 1), 1, options, transport, 0);
  std::mt19937_64 random(1);
  for (int i = 0; i < 100'000; ++i) {
    for (const std::uint16_t source : {std::uint16_t{0}, std::uint16_t{2}, std::uint16_t{3}}) {
      const std::uint64_t transfer = i % 2 == 0 ? 5'000 + random() % 1'000'000 : random() | (std::uint64_t{1} << 40);
      Header header{.kind = Kind::cancel, .job = options.job, .transfer = transfer, .source = source, .destination = 1};
      endpoint.on_frame({Stage::control, source, 0}, header, 0, {});
      if (i == 50'000) {
        header.transfer = 4'999;
        endpoint.on_frame({Stage::control, source, 0}, header, 0, {});
      }
    }
  }
  for (const int source : {0, 2, 3}) {
    CHECK_EQ(endpoint.receiving.canceled_early(source).size(), Receiving::kCanceledEarly);
    CHECK_EQ(*endpoint.receiving.canceled_early(source).begin(), std::uint64_t{4'999});
  }
  CHECK(endpoint.receiving.canceled_early(1).empty());
}

// Only an eager offer brings its message; what comes with another, of as many bytes as the receive has, is not written
// anywhere.
TEST(an_offer_that_is_not_eager_brings_nothing) {
  Deaf transport;
  Endpoint endpoint(grid(2, 2, 1), 1, options, transport, 0);
  const std::vector<std::byte> untouched(32, std::byte{0x5a}), payload(16);
  std::vector<std::byte> memory = untouched;
  endpoint.operations.begin(1, false, 0, 0);
  endpoint.receiving.begin({.operation = 1, .peer = 0, .tag = 5, .bytes = std::span(memory).first(0)});
  const Header header{
      .kind = Kind::offer, .job = options.job, .transfer = 1, .tag = 5, .length = 16, .source = 0, .destination = 1};
  endpoint.on_frame({Stage::local, 0, 0}, header, 0, payload);
  CHECK(memory == untouched);
  CHECK(endpoint.operations.find(1) != nullptr);
}

// A bundle tells the source of many chunks at once, and the end alone ends the message there.
TEST(what_has_been_stored_is_told_in_bundles) {
  Group group(grid(1, 2, 1), options);
  const auto sent = noise(40 * options.chunk_bytes, 5);
  std::vector<std::byte> got(sent.size());
  group.engine(1).receive(2, 0, 5, got, 0);
  group.engine(0).send(1, 1, 5, sent, 0);
  group.settle();
  CHECK(group.done(1) && group.done(2) && got == sent);
  std::size_t told = 0, ends = 0;
  for (const Header& header : group.seen) {
    if (header.kind == Kind::received) told += header.length / sizeof(std::uint32_t);
    ends += header.kind == Kind::fin ? 1 : 0;
    CHECK(header.kind != Kind::received || header.length <= 16 * sizeof(std::uint32_t) || ends == 0);
  }
  CHECK(told >= 8 && told < 40);  // the end says the rest
  CHECK_EQ(ends, std::size_t{1});
}

TEST_MAIN()
