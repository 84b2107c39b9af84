#include "c10d/collective_thread.h"

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "c10d/driver_group.h"
#include "c10d/errors.h"
#include "support/check.h"

using namespace scripted;
using namespace std::chrono_literals;

namespace {

using Bytes = std::vector<std::byte>;
using Place = CollectiveThread::Place;

struct Result {
  int times = 0;
  std::string failure;  // empty: none
};
using Results = std::shared_ptr<Watched<Result>>;

std::string text_of(const std::exception_ptr& failure) {
  if (!failure) return "";
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& error) {
    return error.what();
  }
}

// A group whose ranks run collectives.
class Collectives {
 public:
  explicit Collectives(const GroupOptions& options) : group(options) {
    for (int rank = 0; rank < size(); ++rank) threads_.push_back(std::make_unique<CollectiveThread>(group.driver(rank)));
  }
  ~Collectives() { close(); }
  Collectives(const Collectives&) = delete;
  Collectives& operator=(const Collectives&) = delete;

  int size() const { return group.topology().ranks(); }
  Results post(int rank, Program program, std::function<void()>* cancel = nullptr, Place place = Place::numbered) {
    auto result = std::make_shared<Watched<Result>>();
    auto how = threads_[rank]->post(
        std::move(program), 1,
        [result](const std::exception_ptr& failure) {
          result->change([&](Result& of) {
            ++of.times;
            of.failure = text_of(failure);
          });
        },
        place);
    if (cancel != nullptr) *cancel = std::move(how);
    return result;
  }
  Ring ring(int rank) const {
    Ring ring;
    ring.order.resize(static_cast<std::size_t>(size()));
    std::iota(ring.order.begin(), ring.order.end(), 0);
    ring.position = rank;
    return ring;
  }
  void close() {
    group.close(1s);
    for (const auto& thread : threads_) thread->close();
  }

  DriverGroup group;

 private:
  std::vector<std::unique_ptr<CollectiveThread>> threads_;
};

bool over(const Results& result) {
  return result->until([](const Result& of) { return of.times > 0; });
}

Program barrier(const Collectives& ranks, int rank) {
  Program program;
  dissemination_barrier(program, rank, ranks.size());
  return program;
}

}  // namespace

TEST(many_collectives_posted_at_once_run_in_order_on_every_rank) {
  for (const GroupOptions& options : {GroupOptions{.nodes = 1, .ranks = 3}, GroupOptions{.nodes = 2, .ranks = 2, .nics = 2}}) {
    Collectives ranks(options);
    constexpr int count = 40;
    const std::size_t piece = 3000;
    const auto size = static_cast<std::size_t>(ranks.size());
    std::vector<std::vector<Bytes>> memory(size, std::vector<Bytes>(count, Bytes(piece * size)));
    std::vector<Results> results;
    std::vector<std::vector<int>> finished(size);
    for (int rank = 0; rank < ranks.size(); ++rank)
      for (int i = 0; i < count; ++i) {
        Bytes& bytes = memory[rank][i];
        Pieces pieces;
        for (std::size_t of = 0; of < size; ++of) pieces.push_back(std::span(bytes).subspan(of * piece, piece));
        std::fill(pieces[rank].begin(), pieces[rank].end(), static_cast<std::byte>(rank * 16 + i));
        Program program;
        if (i % 3 == 0) {
          flat_allgather(program, rank, pieces);
        } else if (i % 3 == 1) {
          ring_allgather(program, ranks.ring(rank), pieces);
        } else {  // from rank i
          std::fill(bytes.begin(), bytes.end(), static_cast<std::byte>(rank * 16 + i));
          chain_broadcast(program, ranks.ring(rank), i % ranks.size(), bytes, 1000);
        }
        program.back().then = [&finished, rank, i] { finished[rank].push_back(i); };
        results.push_back(ranks.post(rank, std::move(program)));
      }
    for (const Results& it : results) CHECK(over(it));
    ranks.close();
    for (const Results& it : results) {
      CHECK_EQ(it->now().times, 1);
      CHECK_EQ(it->now().failure, std::string());
    }
    for (int rank = 0; rank < ranks.size(); ++rank)
      for (int i = 0; i < count; ++i) {
        CHECK_EQ(finished[rank][i], i);
        for (std::size_t at = 0; at < piece * size; ++at) {
          const int from = i % 3 == 2 ? i % ranks.size() : static_cast<int>(at / piece);
          if (memory[rank][i][at] != static_cast<std::byte>(from * 16 + i)) {
            check::fail(__FILE__, __LINE__, "rank " + std::to_string(rank) + ", collective " + std::to_string(i));
            break;
          }
        }
      }
  }
}

TEST(one_that_is_given_up_fails_everywhere_and_the_next_is_well) {
  Collectives ranks({.nodes = 1, .ranks = 3});
  // Rank 2 is held up by what it does before, and gives up meanwhile: the others wait for it until then.
  std::promise<void> goes_on;
  std::vector<Results> before, first, second;
  for (int rank = 0; rank < 3; ++rank) {
    Program program(1);
    if (rank == 2) program[0].then = [&goes_on] { goes_on.get_future().wait(); };
    before.push_back(ranks.post(rank, std::move(program)));
  }
  std::function<void()> cancel;
  for (int rank = 0; rank < 3; ++rank) first.push_back(ranks.post(rank, barrier(ranks, rank), rank == 2 ? &cancel : nullptr));
  cancel();
  goes_on.set_value();
  for (const Results& it : first) {
    CHECK(over(it));
    CHECK(!it->now().failure.empty());
  }
  CHECK(first[2]->now().failure.find("aborted on this rank") != std::string::npos);
  cancel();  // changes nothing
  for (int rank = 0; rank < 3; ++rank) second.push_back(ranks.post(rank, barrier(ranks, rank)));
  for (const Results& it : second) {
    CHECK(over(it));
    CHECK_EQ(it->now().failure, std::string());
  }
  ranks.close();
  for (const auto* all : {&first, &second})
    for (const Results& it : *all) CHECK_EQ(it->now().times, 1);
}

// What fails between two rounds of one rank: it still posts and cancels the rest, so that nobody waits for it.
TEST(a_failure_between_rounds_reaches_those_that_would_wait) {
  Collectives ranks({.nodes = 1, .ranks = 4});
  std::vector<Results> results;
  for (int rank = 0; rank < 4; ++rank) {
    Program program = barrier(ranks, rank);
    if (rank == 1) program.front().then = [] { throw std::runtime_error("no memory for the sum"); };
    results.push_back(ranks.post(rank, std::move(program)));
  }
  for (const Results& it : results) CHECK(over(it));
  CHECK(results[1]->now().failure.find("no memory for the sum") != std::string::npos);
  CHECK(!results[3]->now().failure.empty());  // the second round is between 1 and 3, and between 0 and 2
  ranks.close();
  for (const Results& it : results) CHECK_EQ(it->now().times, 1);
}

// Each rank alone, in every collective: whoever needs it fails, nobody waits, and the next collective is well.
TEST(every_rank_gives_up_every_collective) {
  for (int kind = 0; kind < 3; ++kind)
    for (int fails = 0; fails < 3; ++fails) {
      check::context() = "kind " + std::to_string(kind) + ", rank " + std::to_string(fails);
      Collectives ranks({.nodes = 1, .ranks = 3});
      std::vector<Bytes> memory(3, Bytes(30'000));
      std::promise<void> goes_on;
      std::vector<Results> results;
      for (int rank = 0; rank < 3; ++rank) {
        Program held(1);
        if (rank == fails) held[0].then = [&goes_on] { goes_on.get_future().wait(); };
        ranks.post(rank, std::move(held));
        Program program;
        Pieces pieces;
        for (std::size_t of = 0; of < 3; ++of) pieces.push_back(std::span(memory[rank]).subspan(of * 10'000, 10'000));
        if (kind == 0) flat_allgather(program, rank, pieces);
        if (kind == 1) ring_allgather(program, ranks.ring(rank), pieces);
        if (kind == 2) chain_broadcast(program, ranks.ring(rank), 0, memory[rank], 100);
        std::function<void()> cancel;
        results.push_back(ranks.post(rank, std::move(program), &cancel));
        if (rank == fails) cancel();
      }
      goes_on.set_value();
      for (int rank = 0; rank < 3; ++rank) {
        CHECK(over(results[rank]));
        CHECK(!results[rank]->now().failure.empty());
      }
      std::vector<Results> next;
      for (int rank = 0; rank < 3; ++rank) next.push_back(ranks.post(rank, barrier(ranks, rank)));
      for (const Results& it : next) {
        CHECK(over(it));
        CHECK_EQ(it->now().failure, std::string());
      }
    }
}

TEST(a_death_ends_what_is_under_way_and_what_comes_later) {
  Collectives ranks({.nodes = 1, .ranks = 3});
  std::vector<Results> results;
  for (int rank = 0; rank < 2; ++rank)
    for (int i = 0; i < 5; ++i) results.push_back(ranks.post(rank, barrier(ranks, rank)));
  ranks.group.kill(2);
  for (const Results& it : results) {
    CHECK(over(it));
    CHECK(it->now().failure.starts_with("rank 2 "));
  }
  ranks.close();
  const Results late = ranks.post(0, barrier(ranks, 0));
  CHECK(over(late));
  CHECK_EQ(late->now().failure, std::string("the group was shut down"));
}

// Rank 1 is about to leave while rank 0 has begun a collective: neither takes the other's messages for its own.
TEST(a_farewell_is_not_taken_for_a_collective) {
  Collectives ranks({.nodes = 1, .ranks = 2});
  std::function<void()> cancel;
  const Results early = ranks.post(0, barrier(ranks, 0), &cancel);
  const Results leaves = ranks.post(1, barrier(ranks, 1), nullptr, Place::farewell);
  std::this_thread::sleep_for(100ms);  // in which they would meet
  cancel();
  const Results follows = ranks.post(0, barrier(ranks, 0), nullptr, Place::farewell);
  for (const Results& it : {early, leaves, follows}) CHECK(over(it));
  CHECK(early->now().failure.find("aborted on this rank") != std::string::npos);
  CHECK_EQ(leaves->now().failure, std::string());
  CHECK_EQ(follows->now().failure, std::string());
  ranks.close();
}

TEST_MAIN()
