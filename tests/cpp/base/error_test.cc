#include "hetsp/base/error.h"

#include "support/check.h"

using namespace hetsp;

TEST(require_passes_and_throws) {
  require(true, "unused");
  CHECK_THROWS(InvalidArgument, "ranks is 0, must be at least 1",
               (require(false, "ranks is ", 0, ", must be at least ", 1), 0));
}

TEST(kinds_are_distinguishable) {
  CHECK_THROWS(std::invalid_argument, "bad", (require(false, "bad"), 0));
  CHECK_THROWS(BrokenInvariant, "of its own: sum is 3", (invariant(false, "sum is ", 3), 0));
}

TEST_MAIN()
