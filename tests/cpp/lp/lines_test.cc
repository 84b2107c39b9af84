#include "hetsp/lp/lines.h"

#include <random>
#include <vector>

#include "support/check.h"

namespace {
using namespace hetsp::lp;
}

TEST(lines_that_grow_in_any_order_keep_their_entries) {
  std::mt19937_64 random(1);
  Lines lines;
  std::vector<std::vector<Entry>> reference;
  for (int step = 0; step < 2000; ++step) {
    if (reference.empty() || random() % 8 == 0) {
      std::vector<Entry> entries(random() % 5);
      for (Entry& e : entries) e = {static_cast<std::int32_t>(random() % 100), static_cast<double>(random() % 7)};
      CHECK_EQ(lines.add(entries), static_cast<int>(reference.size()));
      reference.push_back(entries);
    } else {
      const auto at = random() % reference.size();
      const Entry entry{static_cast<std::int32_t>(step), 0.5};
      lines.append(static_cast<int>(at), entry);
      reference[at].push_back(entry);
    }
  }
  CHECK_EQ(lines.count(), static_cast<int>(reference.size()));
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const auto line = lines[static_cast<int>(i)];
    CHECK_EQ(line.size(), reference[i].size());
    for (std::size_t k = 0; k < line.size(); ++k)
      CHECK(line[k].index == reference[i][k].index && line[k].value == reference[i][k].value);
  }
}

TEST_MAIN()
