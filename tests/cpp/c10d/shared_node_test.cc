#include "c10d/shared_node.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "c10d/driver.h"
#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp::routed;
using hetsp::comm::Outcome;

namespace {

int file_of(std::size_t bytes) {
  const int descriptor = memfd_create("hetsp test", MFD_CLOEXEC);
  CHECK(descriptor >= 0);
  CHECK_EQ(ftruncate(descriptor, static_cast<off_t>(bytes)), 0);
  return descriptor;
}

// A node of ranks that are drivers of this process, each with mappings of its own.
struct Group {
  explicit Group(int ranks, std::size_t chunk_bytes) {
    hetsp::comm::EngineOptions options;
    options.job = 77;
    options.chunk_bytes = chunk_bytes;
    hetsp::comm::Node node;
    for (int rank = 0; rank < ranks; ++rank) node.ranks.push_back(rank);
    const SharedShape shape = SharedShape::of(options, ranks);
    std::vector<int> files;
    for (int rank = 0; rank < ranks; ++rank) files.push_back(file_of(shape.bytes()));
    std::vector<SharedNode> nodes(static_cast<std::size_t>(ranks));
    for (int rank = 0; rank < ranks; ++rank) {
      SharedNode& own = nodes[static_cast<std::size_t>(rank)];
      own.shape = shape;
      own.rank = own.place = rank;
      own.memory = map_shared(files[static_cast<std::size_t>(rank)], shape.bytes());
      for (int peer = 0; peer < ranks; ++peer) {
        if (peer != rank)
          own.neighbours.push_back({peer, peer, map_shared(files[static_cast<std::size_t>(peer)], shape.bytes()), {}});
      }
    }
    for (int rank = 0; rank < ranks; ++rank) {
      for (int peer = rank + 1; peer < ranks; ++peer) {
        int ends[2] = {-1, -1};
        CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        nodes[static_cast<std::size_t>(rank)].neighbours[static_cast<std::size_t>(peer - 1)].watched = {ends[0]};
        nodes[static_cast<std::size_t>(peer)].neighbours[static_cast<std::size_t>(rank)].watched = {ends[1]};
      }
    }
    for (const int file : files) close(file);
    for (int rank = 0; rank < ranks; ++rank) {
      drivers.push_back(std::make_unique<Driver>(hetsp::comm::Topology({node}), rank, options, std::vector<LinkEnd>{},
                                                 Dialler{}, std::nullopt, std::move(nodes[static_cast<std::size_t>(rank)])));
    }
  }
  // All at once: each waits for the others' goodbyes.
  void close_all(std::chrono::milliseconds grace) {
    std::vector<std::thread> closing;
    for (auto& driver : drivers) closing.emplace_back([&driver, grace] { driver->close(grace); });
    for (auto& thread : closing) thread.join();
  }
  std::vector<std::unique_ptr<Driver>> drivers;
};

class Outcomes {
 public:
  Driver::Done next() {
    const std::scoped_lock lock(mutex_);
    ++open_;
    return [this](const Outcome& outcome, int) {
      const std::scoped_lock lock(mutex_);
      --open_;
      all_.push_back(outcome);
      wake_.notify_all();
    };
  }
  std::vector<Outcome> all() {  // once none is open
    std::unique_lock lock(mutex_);
    CHECK(wake_.wait_for(lock, std::chrono::seconds(60), [this] { return open_ == 0; }));
    return all_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::size_t open_ = 0;
  std::vector<Outcome> all_;
};

struct Transfer {
  int source = 0, destination = 0;
  std::vector<std::byte> out, in;
};

}  // namespace

TEST(four_ranks_of_a_node_send_each_other_messages_of_all_sizes) {
  for (unsigned seed = 0; seed < 4; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    std::vector<std::byte> noise(1u << 20u);
    for (std::byte& byte : noise) byte = static_cast<std::byte>(random());
    Group group(4, 4096u << (seed % 3));
    for (int round = 0; round < 5; ++round) {
      std::vector<Transfer> transfers(80);
      Outcomes outcomes;
      for (Transfer& transfer : transfers) {
        transfer.source = static_cast<int>(random() % 4);
        transfer.destination = static_cast<int>((transfer.source + 1 + random() % 3) % 4);
        const std::size_t sizes[] = {0, 1 + random() % 100, 32768, 32769, random() % 200000, random() % 500000};
        const std::size_t size = sizes[random() % 6], from = random() % (noise.size() - size);
        transfer.out.assign(noise.begin() + static_cast<std::ptrdiff_t>(from),
                            noise.begin() + static_cast<std::ptrdiff_t>(from + size));
        transfer.in.resize(transfer.out.size());
      }
      // Tags keep apart what one pair sends; posted in two orders.
      std::vector<std::size_t> order(transfers.size());
      for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
      std::shuffle(order.begin(), order.end(), random);
      for (const std::size_t i : order)
        group.drivers[static_cast<std::size_t>(transfers[i].source)]->send(
            transfers[i].destination, static_cast<std::int64_t>(i), transfers[i].out, 1, outcomes.next());
      std::shuffle(order.begin(), order.end(), random);
      for (const std::size_t i : order)
        group.drivers[static_cast<std::size_t>(transfers[i].destination)]->receive(
            transfers[i].source, static_cast<std::int64_t>(i), transfers[i].in, 1, outcomes.next());
      for (const Outcome& outcome : outcomes.all()) CHECK_EQ(outcome.what, std::string());
      for (const Transfer& transfer : transfers) CHECK(transfer.in == transfer.out);
    }
    group.close_all(std::chrono::seconds(2));
  }
  check::context().clear();
}

TEST(a_rank_that_leaves_in_peace_is_heard_to_the_end_before_its_silence) {
  for (int round = 0; round < 10; ++round) {
    Group group(3, 65536);
    Outcomes outcomes;
    std::vector<std::byte> out(300000, std::byte{5}), in(out.size()), never(8);
    group.drivers[0]->send(1, 0, out, 1, outcomes.next());
    group.drivers[1]->receive(0, 0, in, 1, outcomes.next());
    for (const Outcome& outcome : outcomes.all()) CHECK_EQ(outcome.what, std::string());
    CHECK(in == out);
    group.drivers[0]->close(std::chrono::seconds(2));
    Outcomes late;
    group.drivers[1]->receive(0, 1, never, 1, late.next());
    const auto ended = late.all();
    CHECK(ended.front().kind == Outcome::Kind::peer_lost);
    CHECK(ended.front().what.find("rank 0 left the group") != std::string::npos);  // not: is lost
    std::vector<std::byte> between(100000, std::byte{6}), got(between.size());
    Outcomes others;
    group.drivers[2]->send(1, 0, between, 1, others.next());
    group.drivers[1]->receive(2, 0, got, 1, others.next());
    for (const Outcome& outcome : others.all()) CHECK_EQ(outcome.what, std::string());
    CHECK(got == between);
    group.close_all(std::chrono::seconds(2));
  }
}

TEST(sizes_that_differ_and_memory_that_is_none_are_told) {
  const int file = file_of(8192);
  CHECK_THROWS(hetsp::InvalidArgument, "8192 bytes, not 4096", map_shared(file, 4096));
  close(file);
  CHECK_THROWS(hetsp::InvalidArgument, "no shared memory", map_shared(-1, 4096));
}

TEST_MAIN()
