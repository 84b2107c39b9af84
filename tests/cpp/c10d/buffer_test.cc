#include "c10d/buffer.h"

#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "support/check.h"

using namespace hetsp;
using namespace hetsp::routed;

TEST(a_frame_is_a_header_and_its_payload_in_one_piece) {
  Buffer buffer(100);
  comm::Header header;
  header.value = 42;
  header.length = 7;
  buffer.set_header(header);
  CHECK_EQ(buffer.header().value, 42u);
  CHECK_EQ(buffer.capacity(), 100u);
  CHECK_EQ(buffer.room().size(), sizeof(comm::Header) + 100);
  CHECK_EQ(buffer.frame(7).size(), sizeof(comm::Header) + 7);
  CHECK(buffer.frame(7).data() == buffer.room().data());
  CHECK(buffer.payload() == buffer.room().data() + sizeof(comm::Header));
}

TEST(buffers_come_back_and_so_many_are_kept) {
  const auto pool = std::make_shared<BufferPool>(16, 2);
  std::set<const Buffer*> first;
  {
    std::vector<std::shared_ptr<Buffer>> lent;
    for (int i = 0; i < 5; ++i) lent.push_back(pool->take());
    for (const auto& buffer : lent) first.insert(buffer.get());
    CHECK_EQ(first.size(), 5u);
  }
  const auto a = pool->take(), b = pool->take();
  CHECK(first.contains(a.get()) && first.contains(b.get()) && a != b);
}

TEST(the_pool_outlives_its_loans) {
  auto pool = std::make_shared<BufferPool>(16, 2);
  const std::weak_ptr<BufferPool> seen = pool;
  auto buffer = pool->take();
  pool.reset();
  CHECK(!seen.expired());
  buffer->payload()[15] = std::byte{1};
  buffer.reset();
  CHECK(seen.expired());
}

TEST(no_buffer_is_lent_to_two_threads) {
  const auto pool = std::make_shared<BufferPool>(64, 4);
  std::vector<std::thread> threads;
  for (int id = 0; id < 4; ++id)
    threads.emplace_back([&pool, id] {
      for (int i = 0; i < 3000; ++i) {
        const auto buffer = pool->take();
        buffer->payload()[0] = static_cast<std::byte>(id);
        std::this_thread::yield();
        if (buffer->payload()[0] != static_cast<std::byte>(id)) check::fail(__FILE__, __LINE__, "lent twice");
      }
    });
  for (auto& thread : threads) thread.join();
}

TEST_MAIN()
