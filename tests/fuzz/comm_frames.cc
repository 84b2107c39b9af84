// Hostile frames against one engine: every field of the header random, or a frame that it sent itself with some fields changed.
//
//   comm_frames [--frames 200000] [--seed 1]
//
// The engine has open operations of all kinds. Whatever comes, it throws nothing and writes nowhere but into the memory of open
// receives (guards around it, and ASan where it is on); it asks its transport only for what exists; and a frame of another
// group is dropped, counted and not answered.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "hetsp/comm/engine.h"

namespace {

using namespace hetsp::comm;

constexpr std::uint64_t kJob = 77;
constexpr std::size_t kGuard = 64;

[[noreturn]] void fail(const std::string& what) {
  std::printf("FAIL %s\n", what.c_str());
  std::exit(1);
}

Topology two_nodes() {
  std::vector<Node> nodes(2);
  for (int node = 0; node < 2; ++node) {
    for (int i = 0; i < 4; ++i) {
      nodes[static_cast<std::size_t>(node)].ranks.push_back(4 * node + i);
      nodes[static_cast<std::size_t>(node)].nics.push_back({"nic" + std::to_string(i), "10.0.0.1", 0});
    }
  }
  return Topology(nodes);
}

struct Wires final : Transport {
  std::deque<Header> said;  // the newest, to be changed and sent back
  std::deque<Token> sent, stored;
  std::map<Arrival, std::vector<std::byte>> held;
  std::set<Operation> ended;
  std::uint64_t frames = 0;  // handed to the wires

  void send(Link, const Header& header, std::span<const std::byte> payload, Token token) override {
    if (header.length != payload.size()) fail("a header's length is not its payload's");
    keep(header, token);
  }
  void forward(Link, const Header& header, Arrival arrival, Token token) override {
    if (!held.contains(arrival)) fail("forwards what it does not hold");
    keep(header, token);
  }
  void store(Arrival arrival, std::byte* destination, Token token) override {
    const auto found = held.find(arrival);
    if (found == held.end()) fail("stores what it does not hold");
    std::memcpy(destination, found->second.data(), found->second.size());
    stored.push_back(token);
  }
  void release(Arrival arrival) override {
    if (held.erase(arrival) == 0) fail("releases what it does not hold");
  }
  void reset(Link link) override {
    if (link.stage != Stage::rail) fail("resets what is no rail");
  }
  void complete(Operation operation, const Outcome&) override {
    if (!ended.insert(operation).second) fail("an operation ended twice");
  }

 private:
  void keep(const Header& header, Token token) {
    ++frames;
    sent.push_back(token);
    said.push_back(header);
    if (said.size() > 64) said.pop_front();
  }
};

// A receive's memory between guards.
struct Memory {
  std::vector<std::byte> bytes;
  explicit Memory(std::size_t size) : bytes(size + 2 * kGuard, std::byte{0x5a}) {}
  std::span<std::byte> inside() { return std::span(bytes).subspan(kGuard, bytes.size() - 2 * kGuard); }
  bool guarded() const {
    const auto whole = [](std::byte b) { return b == std::byte{0x5a}; };
    return std::all_of(bytes.begin(), bytes.begin() + kGuard, whole) && std::all_of(bytes.end() - kGuard, bytes.end(), whole);
  }
};

class Fuzzer {
 public:
  explicit Fuzzer(std::uint64_t seed)
      : random_(seed),
        topology_(two_nodes()),
        engine_(topology_, 1, {.job = kJob, .chunk_bytes = 4096, .eager_bytes = 512}, wires_, now_) {
    for (int rail = 0; rail < 4; ++rail)
      if (topology_.owner(0, rail) == 1) engine_.on_link_up({Stage::rail, topology_.owner(1, rail), rail}, 1);
    engine_.poll(now_);
  }

  void step() {
    now_ += static_cast<Time>(below(3'000'000));
    engine_.now(now_);
    if (below(20) == 0) post();
    if (below(500) == 0) engine_.on_link_up(rail_link(), static_cast<std::uint16_t>(below(4)));
    if (below(500) == 0) engine_.on_link_broken(rail_link(), "broken by the fuzzer");
    if (below(200) == 0 && posted_ > 0) engine_.cancel(1 + below(posted_), "canceled by the fuzzer", below(2) == 0);
    if (below(200) == 0)
      engine_.send_given_up(std::array{0, 2, 5}[below(3)], static_cast<std::int64_t>(below(3)), below(5000), 1);
    frame();
    for (; !wires_.sent.empty(); wires_.sent.pop_front()) engine_.on_sent(wires_.sent.front());
    for (; !wires_.stored.empty(); wires_.stored.pop_front()) engine_.on_stored(wires_.stored.front());
    engine_.poll(now_);
    if (engine_.deadline() < 0) fail("a deadline before the beginning of time");
    for (const Memory& memory : memory_)
      if (!memory.guarded()) fail("wrote beside a receive's memory");
  }

  // A frame of another group: nothing but the count changes.
  void foreigner() {
    Header header = any_header();
    header.job = kJob + 1 + below(1000);
    const std::uint64_t before = wires_.frames, dropped = engine_.statistics().foreign_dropped;
    const std::size_t held = wires_.held.size(), ended = wires_.ended.size();
    deliver(any_link(), header);
    if (wires_.frames != before || wires_.held.size() != held || wires_.ended.size() != ended)
      fail("a foreign frame was answered");
    if (engine_.statistics().foreign_dropped != dropped + 1) fail("a foreign frame was not counted");
  }

  std::size_t held() const { return wires_.held.size(); }
  std::uint64_t ended() const { return wires_.ended.size(); }
  std::uint64_t answered() const { return wires_.frames; }

 private:
  std::uint64_t below(std::uint64_t sides) { return random_() % sides; }
  Link rail_link() { return {Stage::rail, topology_.owner(1, 1), 1}; }
  Link any_link() {
    switch (below(3)) {
      case 0:
        return rail_link();
      case 1:
        return {Stage::control, static_cast<int>(4 + below(4)), 0};
      default:
        return {Stage::local, std::array{0, 2, 3}[below(3)], 0};
    }
  }

  void post() {
    static constexpr std::size_t kSizes[] = {0, 1, 512, 513, 4096, 4097, 40'000};
    const auto peer = static_cast<int>((2 + below(7)) % 8);
    const std::size_t size = kSizes[below(7)];
    if (memory_.size() > 200) return;
    Memory& memory = memory_.emplace_back(size);
    if (below(2) == 0)
      engine_.send(++posted_, peer == 1 ? 2 : peer, static_cast<std::int64_t>(below(3)), memory.inside(), 1);
    else
      engine_.receive(++posted_, below(4) == 0 ? any_source : (peer == 1 ? 2 : peer), static_cast<std::int64_t>(below(3)),
                      memory.inside(), 1);
  }

  std::uint64_t any_number() {
    switch (below(4)) {
      case 0:
        return below(4);
      case 1:
        return below(100'000);
      case 2:
        return ~std::uint64_t{0} - below(3);
      default:
        return random_();
    }
  }

  Header any_header() {
    Header header;
    if (!wires_.said.empty() && below(2) == 0) {
      header = wires_.said[below(wires_.said.size())];
      std::swap(header.source, header.destination);
    } else {
      header.kind = static_cast<Kind>(below(below(10) == 0 ? 256 : 16));
      header.flags = static_cast<std::uint8_t>(below(2) == 0 ? below(4) : below(256));
      header.generation = static_cast<std::uint16_t>(below(3));
      header.transfer = 1 + below(20);
      header.value = any_number();
      header.tag = static_cast<std::int64_t>(below(3));
      header.hop = static_cast<std::uint32_t>(below(2) == 0 ? 0 : any_number());
      header.source = static_cast<std::uint16_t>(below(8));
      header.destination = 1;
      header.chunk = static_cast<std::uint32_t>(below(12));
      header.rail = 1;
      header.type = 1;
    }
    header.job = kJob;
    for (std::uint64_t changes = below(3); changes > 0; --changes) {
      switch (below(10)) {
        case 0:
          header.magic = static_cast<std::uint32_t>(any_number());
          break;
        case 1:
          header.kind = static_cast<Kind>(below(256));
          break;
        case 2:
          header.flags = static_cast<std::uint8_t>(below(256));
          break;
        case 3:
          header.transfer = any_number();
          break;
        case 4:
          header.value = any_number();
          break;
        case 5:
          header.tag = static_cast<std::int64_t>(any_number());
          break;
        case 6:
          header.source = static_cast<std::uint16_t>(any_number());
          break;
        case 7:
          header.destination = static_cast<std::uint16_t>(any_number());
          break;
        case 8:
          header.rail = static_cast<std::uint16_t>(any_number());
          break;
        default:
          header.chunk = static_cast<std::uint32_t>(any_number());
          break;
      }
    }
    return header;
  }

  void frame() {
    Header header = any_header();
    // A loss ends everything, rightly: mostly keep the group alive.
    if ((header.kind == Kind::cause || header.kind == Kind::goodbye) && below(100) != 0) header.kind = Kind::chunk;
    deliver(any_link(), header);
  }

  void deliver(Link link, Header header) {
    const std::size_t sizes[] = {0, 1, 4, 511, 512, 4096, header.length % 5000};
    std::vector<std::byte> payload(sizes[below(7)]);
    for (std::byte& byte : payload) byte = static_cast<std::byte>(random_());
    if (below(4) != 0) header.length = static_cast<std::uint32_t>(payload.size());
    const Arrival arrival = payload.empty() ? 0 : ++arrivals_;
    const auto kept = arrival == 0 ? wires_.held.end() : wires_.held.emplace(arrival, std::move(payload)).first;
    engine_.on_frame(link, header, arrival,
                     arrival == 0 ? std::span<const std::byte>{} : std::span<const std::byte>(copy(kept->second)));
  }
  const std::vector<std::byte>& copy(const std::vector<std::byte>& payload) { return last_ = payload; }

  std::mt19937_64 random_;
  Wires wires_;
  Topology topology_;
  Time now_ = 1'000'000'000;
  Engine engine_;
  std::deque<Memory> memory_;
  std::vector<std::byte> last_;
  Operation posted_ = 0;
  Arrival arrivals_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t frames = 200'000, seed = 1;
  for (int i = 1; i + 1 < argc; i += 2)
    (std::string(argv[i]) == "--frames" ? frames : seed) = std::strtoull(argv[i + 1], nullptr, 10);
  constexpr std::uint64_t kLife = 2000;  // frames that one engine gets
  std::uint64_t ended = 0, answered = 0;
  for (std::uint64_t done = 0; done < frames; done += kLife, ++seed) {
    try {
      Fuzzer fuzzer(seed);
      for (std::uint64_t i = 0; i < kLife; ++i) {
        fuzzer.step();
        if (i % 10 == 0) fuzzer.foreigner();
      }
      ended += fuzzer.ended();
      answered += fuzzer.answered();
      if (fuzzer.held() > 1000) fail("holds " + std::to_string(fuzzer.held()) + " arrivals");
    } catch (const std::exception& error) {
      fail("seed " + std::to_string(seed) + ": uncaught exception: " + error.what());
    }
  }
  std::printf("%llu frames, %llu sent in answer, %llu operations ended\n", static_cast<unsigned long long>(frames),
              static_cast<unsigned long long>(answered), static_cast<unsigned long long>(ended));
  return ended > frames / 1000 && answered > frames / 10 ? 0 : 1;
}
