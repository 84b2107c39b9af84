#include "c10d/collective_thread.h"

#include <chrono>
#include <functional>
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
  Results post(int rank, Program program, std::function<void()>* cancel = nullptr) {
    auto result = std::make_shared<Watched<Result>>();
    auto how = threads_[rank]->post(std::move(program), 1, [result](const std::exception_ptr& failure) {
      result->change([&](Result& of) {
        ++of.times;
        of.failure = text_of(failure);
      });
    });
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

TEST_MAIN()
