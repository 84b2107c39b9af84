#include "hetsp/attention/cuda/hopper/box_view.h"

#include <cstddef>
#include <string>

#include "support/check.h"

using hetsp::attention::DType;
using namespace hetsp::attention::cuda::hopper;

namespace {

constexpr std::int64_t kLimit = std::int64_t{1} << 39;  // elements of 2 bytes in 2^40 bytes

alignas(64) constexpr char kMemory[1024] = {};

BoxView view(std::int64_t token_stride, std::int64_t head_stride, std::ptrdiff_t offset = 0, std::int64_t tokens = 100,
             std::int64_t heads = 4, std::int64_t dim = 64) {
  return box_view({kMemory + offset, token_stride, head_stride}, DType::bfloat16, tokens, heads, dim);
}

bool taken(const BoxView& v) { return box_refusal(v) == nullptr; }

bool refused(const BoxView& v, const char* part) {
  const char* why = box_refusal(v);
  return why != nullptr && std::string(why).find(part) != std::string::npos;
}

}  // namespace

TEST(tensors_that_the_engine_takes) {
  CHECK(taken(view(256, 64)));                // contiguous
  CHECK(taken(view(768, 64, 512)));    // a slice of packed q, k, v
  CHECK(taken(view(64, 6400)));               // head-major
  CHECK(taken(view(256, 0)));                 // one head, expanded
  CHECK(taken(view(0, 64)));                  // one token, expanded
  CHECK(taken(view(kLimit - 8, 64)));         // far beyond 2^31 elements
  CHECK(taken(view(72, 72, 0, 100, 1, 72)));
}

TEST(what_it_refuses_and_why) {
  CHECK(refused(view(256, 64, 8), "address"));
  CHECK(refused(view(260, 64), "token to token is no multiple"));
  CHECK(refused(view(256, 68), "head to head is no multiple"));
  CHECK(refused(view(-256, 64), "token to token is negative"));
  CHECK(refused(view(256, -64), "head to head is negative"));
  CHECK(refused(view(kLimit, 64), "2^40"));
  CHECK(refused(view(256, kLimit), "2^40"));
  CHECK(refused(view(INT64_MAX / 2, INT64_MAX / 2), "2^40"));
  CHECK(refused(view(256, 64, 0, 0), "empty"));
  CHECK(refused(view(256, 64, 0, 100, 4, 0), "empty"));
  CHECK(refused(view(256, 64, 0, std::int64_t{1} << 30), "2^30"));
  BoxView wide = view(256, 64);
  wide.dtype = DType::float64;
  CHECK(refused(wide, "float64"));
}

// Along an axis of one torch keeps whatever stride a slice left.
TEST(the_stride_of_an_axis_of_one_does_not_matter) {
  for (const std::int64_t stride : {std::int64_t{1}, std::int64_t{-7}, kLimit, INT64_MIN}) {
    CHECK(taken(view(64, stride, 0, 100, 1)));
    CHECK(taken(view(stride, 64, 0, 1)));
    CHECK_EQ(box_stride(view(64, stride, 0, 100, 1), 1, stride), box_alignment);
  }
  CHECK_EQ(box_stride(view(64, 128), 4, 128), 256);
}

TEST(strides_count_in_bytes_of_the_type) {
  BoxView v = view(4, 8);
  CHECK(refused(v, "token to token"));
  v.dtype = DType::float32;
  CHECK(taken(v));
  v.token_stride = kLimit / 2;
  CHECK(refused(v, "2^40"));
}

TEST_MAIN()
