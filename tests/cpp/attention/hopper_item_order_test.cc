#include "hetsp/attention/cuda/hopper/item_order.h"

#include <set>
#include <utility>

#include "support/check.h"

using namespace hetsp::attention::cuda::hopper;

TEST(every_pair_once_and_heads_in_blocks) {
  for (const std::int32_t tiles : {1, 2, 7})
    for (const std::int32_t heads : {1, 2, 3, 8, 12})
      for (std::int32_t together = 1; together <= heads; ++together) {
        std::set<std::pair<std::int32_t, std::int32_t>> seen;
        Item last{0, 0};
        for (std::int32_t i = 0; i < tiles * heads; ++i) {
          const Item item = item_at(i, tiles, heads, together);
          CHECK(0 <= item.tile && item.tile < tiles && 0 <= item.head && item.head < heads);
          CHECK(seen.emplace(item.tile, item.head).second);
          const std::int32_t block = item.head / together, last_block = last.head / together;
          CHECK(block > last_block ||
                (block == last_block && item.tile >= last.tile));  // in a block the list's order: longest first
          last = item;
        }
      }
}

TEST(as_many_heads_as_share_the_cache) {
  const std::int64_t mega = 1 << 20;
  CHECK_EQ(heads_together(8 * mega, 16, 16), 8);    // nine fit: two blocks of eight
  CHECK_EQ(heads_together(8 * mega, 64, 8), 64);    // 8 query heads read one kv head
  CHECK_EQ(heads_together(100 * mega, 16, 16), 4);  // never fewer kv heads than that
  CHECK_EQ(heads_together(100 * mega, 16, 2), 16);
  CHECK_EQ(heads_together(mega, 16, 16), 16);
  CHECK_EQ(heads_together(0, 6, 3), 6);
}

TEST_MAIN()
