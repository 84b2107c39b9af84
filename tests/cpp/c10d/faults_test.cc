// Whole groups of drivers over cables that break, stall, garble and come back while thousands of small messages pass: every
// message arrives once, with its bytes, or ends with the death of a rank that died.
#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "c10d/driver_group.h"
#include "support/check.h"

using namespace scripted;
using namespace std::chrono_literals;

namespace {

using Bytes = std::vector<std::byte>;
using Kind = comm::Outcome::Kind;

struct Message {
  int from = 0, to = 0;
  std::int64_t tag = 0;
  Bytes out, in;
  Ends sent = std::make_shared<Watched<Ending>>(), received = std::make_shared<Watched<Ending>>();
};

std::size_t random_size(std::mt19937& random) {
  constexpr std::size_t corners[] = {0, 1, 511, 512, 513, 4095, 4096, 4097, 8192};
  const auto kind = random() % 8;
  return kind == 0 ? 4096 * (random() % 40) : kind < 4 ? corners[random() % std::size(corners)] : random() % 3000;
}

std::vector<std::unique_ptr<Message>> random_messages(int ranks, int count, std::mt19937& random) {
  std::vector<std::unique_ptr<Message>> messages;
  for (int i = 0; i < count; ++i) {
    auto message = std::make_unique<Message>();
    message->from = static_cast<int>(random() % static_cast<unsigned>(ranks));
    message->to =
        static_cast<int>((message->from + 1 + random() % static_cast<unsigned>(ranks - 1)) % static_cast<unsigned>(ranks));
    message->tag = static_cast<std::int64_t>(random() % 3);
    message->out.resize(random_size(random));
    for (auto& byte : message->out) byte = static_cast<std::byte>(random());
    message->in.assign(message->out.size(), std::byte{0xcc});
    messages.push_back(std::move(message));
  }
  return messages;
}

// Each rank has a thread that posts its sends and one that posts its receives, in the order of the messages.
class Users {
 public:
  Users(DriverGroup& group, std::vector<std::unique_ptr<Message>>& messages) {
    for (int rank = 0; rank < group.topology().ranks(); ++rank) {
      threads_.emplace_back([&group, &messages, rank] {
        for (const auto& it : messages)
          if (it->from == rank) group.driver(rank).send(it->to, it->tag, it->out, 1, DriverGroup::into(it->sent));
      });
      threads_.emplace_back([&group, &messages, rank] {
        for (const auto& it : messages)
          if (it->to == rank) group.driver(rank).receive(it->from, it->tag, it->in, 1, DriverGroup::into(it->received));
      });
    }
  }
  ~Users() {
    for (auto& thread : threads_) thread.join();
  }
  Users(const Users&) = delete;
  Users& operator=(const Users&) = delete;

 private:
  std::vector<std::thread> threads_;
};

// Breaks something every few milliseconds; all is well again when it has ended, but for what the rails know.
class Faults {
 public:
  Faults(DriverGroup& group, int rails, unsigned seed) : thread_([this, &group, rails, seed] { run(group, rails, seed); }) {}
  ~Faults() {
    over_ = true;
    thread_.join();
  }
  Faults(const Faults&) = delete;
  Faults& operator=(const Faults&) = delete;
  int count() const { return count_; }

 private:
  void run(DriverGroup& group, int rails, unsigned seed) {
    std::mt19937 random(seed);
    const auto pause = [&random](unsigned most) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1 + random() % most));
    };
    while (!over_) {
      pause(20);
      const auto cables = group.exchange.cables();
      if (cables.empty()) return;
      Cable& cable = *cables[random() % cables.size()];
      const int rail = static_cast<int>(random() % static_cast<unsigned>(rails));
      ++count_;
      switch (random() % 7) {
        case 0:
          cable.cut("cut");
          break;
        case 1:
          cable.cut("cut while a frame was half in", true);
          break;
        case 2:  // for longer than a rail bears
          cable.stall(true);
          pause(200);
          cable.stall(false);
          break;
        case 3:
          cable.change_next(static_cast<int>(random() % 2), [](Bytes& bytes) { bytes.assign(bytes.size(), std::byte{0xff}); });
          break;
        case 4:  // less than a header; a payload that lacks bytes is none that a lane lets through
          cable.change_next(static_cast<int>(random() % 2), [](Bytes& bytes) { bytes.resize(sizeof(comm::Header) / 2); });
          break;
        case 5:
          cable.refuse_next(static_cast<int>(random() % 2), "refused");
          break;
        default:
          group.exchange.down(rail, true);
          cable.cut("no carrier");
          pause(50);
          group.exchange.down(rail, false);
      }
    }
  }

  std::atomic<bool> over_ = false;
  std::atomic<int> count_ = 0;
  std::thread thread_;
};

GroupOptions random_group(std::mt19937& random) {
  GroupOptions options;
  options.nodes = 2;
  options.ranks = 1 + static_cast<int>(random() % 2);
  options.nics = 1 + static_cast<int>(random() % 3);
  options.rails_up = random() % 3 != 0;
  options.engine.job = 1 + random() % 1000;
  options.engine.message_window = 128 * 1024;
  return options;
}

void check_ends(const std::vector<std::unique_ptr<Message>>& messages) {
  for (const auto& it : messages)
    for (const Ends& ends : {it->sent, it->received}) CHECK_EQ(ends->now().times, 1);
}

}  // namespace

TEST(rails_that_fail_all_the_time_lose_no_byte_seeds_0_to_4) {
  for (unsigned seed = 0; seed < 5; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    const GroupOptions options = random_group(random);
    DriverGroup group(options);
    auto messages = random_messages(group.topology().ranks(), 400, random);
    {
      const Faults faults(group, options.nics, seed);
      const Users users(group, messages);
      for (const auto& it : messages)
        for (const Ends& ends : {it->sent, it->received}) {
          CHECK(ended(ends));
          const Ending ending = ends->now();
          if (ending.outcome.kind != Kind::done) check::fail(__FILE__, __LINE__, "a message failed: " + ending.outcome.what);
        }
    }
    for (const auto& it : messages) CHECK(it->in == it->out);
    group.close(5s);
    check_ends(messages);
  }
}

TEST(a_rank_that_dies_among_faults_ends_its_messages_and_no_others_wrongly_seeds_0_to_5) {
  for (unsigned seed = 0; seed < 6; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed + 1000);
    GroupOptions options = random_group(random);
    options.nodes = 1 + static_cast<int>(seed % 2);
    options.ranks = options.nodes == 1 ? 2 + static_cast<int>(random() % 3) : options.ranks;
    DriverGroup group(options);
    const int ranks = group.topology().ranks(), dies = static_cast<int>(random() % static_cast<unsigned>(ranks));
    auto messages = random_messages(ranks, 400, random);
    {
      const Faults faults(group, options.nics, seed);
      const Users users(group, messages);
      std::this_thread::sleep_for(std::chrono::milliseconds(random() % 40));
      group.kill(dies, random() % 2 == 0);
      for (const auto& it : messages)
        for (const auto& [ends, rank] : {std::pair(it->sent, it->from), std::pair(it->received, it->to)}) {
          CHECK(ended(ends));
          const comm::Outcome outcome = ends->now().outcome;
          // To the rank that dies all others are dead.
          if (outcome.kind == Kind::done || rank == dies) continue;
          CHECK(outcome.kind == Kind::peer_lost);
          if (!outcome.what.starts_with("rank " + std::to_string(dies) + " "))
            check::fail(__FILE__, __LINE__, "rank " + std::to_string(dies) + " died, but: " + outcome.what);
        }
    }
    for (const auto& it : messages)
      if (it->received->now().outcome.kind == Kind::done) CHECK(it->in == it->out);
    group.close({});
    check_ends(messages);
  }
}

// Nobody has to wait for anybody: all leave in the middle, each in its own way, and every operation has its one end.
TEST(groups_that_end_in_the_middle_seeds_0_to_9) {
  for (unsigned seed = 0; seed < 10; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed + 2000);
    const GroupOptions options = random_group(random);
    DriverGroup group(options);
    auto messages = random_messages(group.topology().ranks(), 300, random);
    {
      const Users users(group, messages);
      if (random() % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 5000));
      std::vector<std::thread> closing;
      for (int rank = 0; rank < group.topology().ranks(); ++rank)
        closing.emplace_back(
            [&group, rank, grace = std::chrono::milliseconds(random() % 30)] { group.driver(rank).close(grace); });
      for (auto& thread : closing) thread.join();
    }
    check_ends(messages);
    for (const auto& it : messages)
      if (it->received->now().outcome.kind == Kind::done) CHECK(it->in == it->out);
  }
}

TEST_MAIN()
