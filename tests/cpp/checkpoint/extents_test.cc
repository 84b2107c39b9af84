#include "hetsp/checkpoint/extents.h"

#include <random>

#include "support/check.h"

using namespace hetsp::checkpoint;

namespace {

constexpr std::int64_t kMiB = std::int64_t{1} << 20;

void check_tiling(std::int64_t begin, const std::vector<std::int64_t>& spans) {
  const auto extents = extents_of(begin, spans);
  std::int64_t at = begin;
  for (const Extent& e : extents) {
    CHECK_EQ(e.begin, at);
    CHECK(e.end > e.begin && e.end - e.begin <= kLargestExtent);
    at = e.end;
  }
  std::int64_t span_begin = begin;
  for (const std::int64_t span : spans) {
    const std::int64_t span_end = span_begin + span;
    for (const Extent& e : extents) {
      const bool crosses_begin = e.begin < span_begin && span_begin < e.end,
                 crosses_end = e.begin < span_end && span_end < e.end;
      if (span > kLargestSharer) CHECK(!crosses_begin && !crosses_end);
    }
    span_begin = span_end;
  }
  CHECK_EQ(at, span_begin);
  // Sharing must do its work: two neighbours that would fit one extent are two only where a large span lies at their border.
  for (std::size_t i = 1; i < extents.size(); ++i) {
    if (extents[i].end - extents[i - 1].begin > kLargestExtent) continue;
    bool large = false;
    std::int64_t s = begin;
    for (const std::int64_t span : spans) {
      large |= span > kLargestSharer &&
               (s == extents[i].begin || s + span == extents[i].begin || (s < extents[i].begin && extents[i].begin < s + span));
      s += span;
    }
    // or a sharer that did not fit began the second one
    std::int64_t first = 0, start = begin;
    for (const std::int64_t span : spans) {
      if (start == extents[i].begin && first == 0) first = span;
      start += span;
    }
    CHECK(large || extents[i].begin - extents[i - 1].begin + first > kLargestExtent);
  }
}

}  // namespace

TEST(nothing_has_no_extent) {
  CHECK(extents_of(4096, {}).empty());
  CHECK(extents_of(4096, {0, 0}).empty());
}

TEST(small_spans_share_and_large_ones_do_not) {
  const auto extents = extents_of(4096, {10, 20, 0, 5 * kMiB, 30, kMiB, 40});
  CHECK_EQ(extents.size(), 4U);
  CHECK_EQ(extents[0].end, 4096 + 30);
  CHECK_EQ(extents[1].end, 4096 + 30 + 4 * kMiB);
  CHECK_EQ(extents[2].end, 4096 + 30 + 5 * kMiB);
  CHECK_EQ(extents[3].end, 4096 + 30 + 6 * kMiB + 70);
}

TEST(ten_thousand_tiny_spans_are_one_extent) {
  const auto extents = extents_of(0, std::vector<std::int64_t>(10000, 4));
  CHECK_EQ(extents.size(), 1U);
  CHECK_EQ(extents[0].end, 40000);
}

TEST(any_spans_are_tiled) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937_64 random(seed);
    const std::int64_t sizes[] = {0, 1, 4, 4096, kMiB - 1, kMiB, kMiB + 1, 4 * kMiB - 1, 4 * kMiB, 4 * kMiB + 1, 9 * kMiB + 3};
    std::vector<std::int64_t> spans(random() % 30);
    for (auto& span : spans) span = sizes[random() % std::size(sizes)];
    check_tiling(static_cast<std::int64_t>(random() % 3) * 4096, spans);
  }
}

TEST_MAIN()
