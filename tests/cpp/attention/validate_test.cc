#include "hetsp/attention/validate.h"

#include <limits>

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp::attention;
using hetsp::InvalidArgument;

namespace {

ForwardParams good() {
  ForwardParams p{};
  p.shape = {5, 5, 6, 2, 16, 16, DType::float32};
  p.score = {0.25, 0.0};
  return p;
}

template <class Change>
void with(Change change) {
  ForwardParams p = good();
  change(p);
  validate(p);
}

}  // namespace

TEST(good_params_pass) { validate(good()); }

TEST(each_fault_names_the_value) {
  CHECK_THROWS(InvalidArgument, "q has 5 heads, which is no multiple of the 2", (with([](auto& p) { p.shape.heads = 5; }), 0));
  CHECK_THROWS(InvalidArgument, "q has 0 heads", (with([](auto& p) { p.shape.heads = 0; }), 0));
  CHECK_THROWS(InvalidArgument, "k and v have 0 heads", (with([](auto& p) { p.shape.heads_kv = 0; }), 0));
  CHECK_THROWS(InvalidArgument, "head_dim, head_dim_v are 0, 16", (with([](auto& p) { p.shape.head_dim = 0; }), 0));
  CHECK_THROWS(InvalidArgument, "softcap is -1", (with([](auto& p) { p.score.softcap = -1; }), 0));
  CHECK_THROWS(InvalidArgument, "softmax_scale is nan",
               (with([](auto& p) { p.score.softmax_scale = std::numeric_limits<double>::quiet_NaN(); }), 0));
  const float lse = 0;
  CHECK_THROWS(InvalidArgument, "given together", (with([&](auto& p) { p.seed_lse = &lse; }), 0));
  CHECK_THROWS(InvalidArgument, "heads, head_dim_v are 0, 4",
               (validate(MergeParams{1, 0, 4, false, {}, {}, {}, {}, {}, {}}), 0));
  CHECK_THROWS(InvalidArgument, "heads, head_dim_v are 2, 0", (validate(DeltaParams{1, 2, 0, {}, {}, {}, {}, {}, {}}), 0));
  BackwardParams backward{};
  CHECK_THROWS(InvalidArgument, "q has 0 heads", (validate(backward), 0));
}

TEST(segments_stay_inside) {
  const auto check_one = [](Segment s) { validate_segments(&s, 1, 10, 20); };
  check_one({0, 10, 0, 20, -5, 3, -1, 0});
  CHECK_THROWS(InvalidArgument, "segment 0 has query rows [0, 11), must be a run inside [0, 10)",
               (check_one({0, 11, 0, 20, 0, 0, -1, -1}), 0));
  CHECK_THROWS(InvalidArgument, "key rows [-1, 20)", (check_one({0, 10, -1, 20, 0, 0, -1, -1}), 0));
  CHECK_THROWS(InvalidArgument, "query rows [4, 3)", (check_one({4, 3, 0, 20, 0, 0, -1, -1}), 0));
  CHECK_THROWS(InvalidArgument, "window of -2", (check_one({0, 10, 0, 20, 0, 0, -2, -1}), 0));
  CHECK_THROWS(InvalidArgument, "starts at position", (check_one({0, 10, 0, 20, std::int64_t{1} << 61, 0, -1, -1}), 0));
}

TEST_MAIN()
