// CPU time of the protocol itself: two nodes of four engines on wires that carry at once and copy nothing, so that what is left
// is matching, credit, hop numbers, acks and bookkeeping. Beside it memcpy of a chunk, which the wire and the destination do.
#include "hetsp/comm/engine.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <limits>
#include <memory>
#include <vector>

namespace {

using namespace hetsp::comm;

Topology two_nodes() {
  std::vector<Node> nodes(2);
  for (int node = 0; node < 2; ++node)
    for (int i = 0; i < 4; ++i) {
      nodes[static_cast<std::size_t>(node)].ranks.push_back(4 * node + i);
      nodes[static_cast<std::size_t>(node)].nics.push_back({"nic" + std::to_string(i), "10.0.0.1", 50e9});
    }
  return Topology(nodes);
}

class Group {
 public:
  Group() : topology_(two_nodes()) {
    for (int rank = 0; rank < topology_.ranks(); ++rank) {
      ends_.push_back(std::make_unique<End>(*this, rank));
      engines_.push_back(std::make_unique<Engine>(topology_, rank, EngineOptions{.job = 1}, *ends_.back(), now_));
    }
    for (int k = 0; k < 4; ++k) {
      engine(k).on_link_up({Stage::rail, 4 + k, k}, 1);
      engine(4 + k).on_link_up({Stage::rail, k, k}, 1);
    }
    for (int i = 0; i < 20; ++i) step();  // the rails are tried
  }

  Engine& engine(int rank) { return *engines_[static_cast<std::size_t>(rank)]; }
  int ended = 0;

  void until(int count) {
    while (ended < count) step();
  }

 private:
  struct Event {
    int rank = 0;
    Link link;
    Header header;
    Token sent = 0, stored = 0;
    std::vector<std::byte> payload{};  // of control frames; chunks all show the same bytes
  };

  struct End final : Transport {
    Group& group;
    int rank;
    Arrival arrivals = 0;
    End(Group& of, int self) : group(of), rank(self) {}
    void send(Link link, const Header& header, std::span<const std::byte> payload, Token token) override {
      if (header.kind == Kind::chunk) payload = {};
      group.events_.push_back({link.peer, {link.stage, rank, link.rail}, header, 0, 0, {payload.begin(), payload.end()}});
      group.events_.push_back({rank, link, {}, token, 0});
    }
    void forward(Link link, const Header& header, Arrival, Token token) override { send(link, header, {}, token); }
    void store(Arrival, std::byte*, Token token) override { group.events_.push_back({rank, {}, {}, 0, token}); }
    void release(Arrival) override {}
    void reset(Link) override {}
    void complete(Operation, const Outcome&) override { ++group.ended; }
  };

  void step() {
    now_ += 1000;
    if (events_.empty()) {  // nothing but time can help
      Time next = std::numeric_limits<Time>::max();
      for (const auto& engine : engines_) next = std::min(next, engine->deadline());
      now_ = std::max(now_, next);
    }
    for (auto& engine : engines_) engine->now(now_);
    std::deque<Event> events;
    events.swap(events_);
    for (const Event& event : events) {
      Engine& to = engine(event.rank);
      if (event.sent != 0)
        to.on_sent(event.sent);
      else if (event.stored != 0)
        to.on_stored(event.stored);
      else
        to.on_frame(event.link, event.header,
                    event.header.length == 0 ? 0 : ++ends_[static_cast<std::size_t>(event.rank)]->arrivals,
                    event.payload.empty() ? std::span<const std::byte>(bytes_).first(event.header.length)
                                          : std::span<const std::byte>(event.payload));
    }
    for (auto& engine : engines_) engine->poll(now_);
  }

  Topology topology_;
  Time now_ = 1'000'000'000;
  std::vector<std::byte> bytes_ = std::vector<std::byte>(1 << 20);
  std::vector<std::unique_ptr<End>> ends_;
  std::vector<std::unique_ptr<Engine>> engines_;
  std::deque<Event> events_;
};

// One message of `range(0)` bytes from node to node, all eight engines together.
void message(benchmark::State& state) {
  const auto bytes = static_cast<std::size_t>(state.range(0));
  Group group;
  std::vector<std::byte> out(bytes), in(bytes);
  Operation operation = 0;
  for (auto _ : state) {
    const int before = group.ended;
    group.engine(4).receive(++operation, 0, 0, in, 0);
    group.engine(0).send(++operation, 4, 0, out, 0);
    group.until(before + 2);
  }
  const std::size_t chunks = (bytes + (256 * 1024) - 1) / (256 * 1024);
  state.counters["per chunk"] = benchmark::Counter(static_cast<double>(chunks),
                                                   benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}
BENCHMARK(message)->Arg(8)->Arg(32 * 1024)->Arg(256 * 1024)->Arg(64 << 20);

// A hundred small messages posted at once.
void small_messages(benchmark::State& state) {
  Group group;
  std::vector<std::byte> out(1024), in(1024);
  Operation operation = 0;
  for (auto _ : state) {
    const int before = group.ended;
    for (int i = 0; i < 100; ++i) {
      group.engine(4).receive(++operation, 0, 0, in, 0);
      group.engine(0).send(++operation, 4, 0, out, 0);
    }
    group.until(before + 200);
  }
  state.counters["per message"] =
      benchmark::Counter(100, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}
BENCHMARK(small_messages);

void memcpy_of_a_chunk(benchmark::State& state) {
  std::vector<std::byte> from(64 << 20), to(64 << 20);
  std::size_t at = 0;
  for (auto _ : state) {
    std::memcpy(to.data() + at, from.data() + at, 256 * 1024);
    benchmark::DoNotOptimize(to.data());
    at = (at + 256 * 1024) % to.size();
  }
}
BENCHMARK(memcpy_of_a_chunk);

}  // namespace
