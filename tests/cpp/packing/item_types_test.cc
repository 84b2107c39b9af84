#include "hetsp/packing/item_types.h"

#include <string>

#include "packing/random_instance.h"
#include "support/check.h"

using namespace hetsp::packing;

TEST(equal_items_share_a_type) {
  const ItemTypes types = make_types({{5, 25.0}, {7, 49.0}, {5, 25.0}, {0, 0.0}, {7, 49.0}, {7, 40.0}});
  CHECK(types.size() == 4);
  CHECK(types.item[0].tokens == 7 && types.count[0] == 2 && types.members[0] == (std::vector<std::int32_t>{1, 4}));
  CHECK(types.item[1].pairs == 40.0 && types.count[1] == 1);
  CHECK(types.count[2] == 2 && types.item[3].tokens == 0);
}

TEST(a_partition_whose_representatives_are_least) {
  for (unsigned seed = 0; seed < 2000; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Instance instance = random_instance(seed, 40);
    for (const double width : {0.0, 0.02, 0.3}) {
      const ItemTypes types = make_types(instance.items, width);
      std::vector<int> seen(instance.items.size());
      for (int t = 0; t < types.size(); ++t) {
        CHECK(types.count[t] == static_cast<int>(types.members[t].size()));
        for (const auto i : types.members[t]) {
          const Item& item = instance.items[i];
          ++seen[i];
          CHECK(types.item[t].tokens <= item.tokens && types.item[t].pairs <= item.pairs);
          CHECK(types.largest[t].tokens >= item.tokens && types.largest[t].pairs >= item.pairs);
          CHECK(static_cast<double>(item.tokens) <= (1 + width) * static_cast<double>(types.item[t].tokens) + 1e-9);
        }
      }
      for (const int times : seen) CHECK(times == 1);
    }
  }
}

TEST_MAIN()
