#include "hetsp/base/zero_pages.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <new>
#include <vector>

#include "support/check.h"

using hetsp::ZeroPages;

TEST(zeros_that_can_be_written) {
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{4097}, std::size_t{5} << 20}) {
    for (int time = 0; time < 3; ++time) {  // the next may get the memory of the last, which was written
      const ZeroPages pages(bytes);
      auto* data = static_cast<unsigned char*>(pages.data());
      CHECK_EQ(reinterpret_cast<std::uintptr_t>(data) % 64, 0u);
      std::size_t others = 0;
      for (std::size_t i = 0; i < bytes; ++i) others += data[i] != 0, data[i] = 7;
      CHECK_EQ(others, 0u);
    }
  }
}

TEST(advice_changes_nothing) {
  std::vector<unsigned char> data(std::size_t{3} << 20, 5);
  hetsp::advise_huge_pages(data.data() + 1, data.size() - 2);
  hetsp::advise_huge_pages(data.data() + 1, 3);
  hetsp::advise_huge_pages(nullptr, 0);
  CHECK(std::all_of(data.begin(), data.end(), [](unsigned char x) { return x == 5; }));
}

TEST(none_and_too_many) {
  CHECK(ZeroPages(0).data() == nullptr);
  CHECK_THROWS(std::bad_alloc, "", ZeroPages(std::numeric_limits<std::size_t>::max() / 2));
}

TEST_MAIN()
