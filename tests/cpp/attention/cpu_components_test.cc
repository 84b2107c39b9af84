#include "hetsp/attention/cpu/components.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "attention/random_segments.h"
#include "support/check.h"

using namespace hetsp::attention;
using attention_test::random_segments;
using cpu::Components;

namespace {

bool overlap(std::int64_t a_begin, std::int64_t a_end, std::int64_t b_begin, std::int64_t b_end) {
  return std::max(a_begin, b_begin) < std::min(a_end, b_end);
}

bool is_empty(const Segment& s) { return s.q_begin >= s.q_end || s.k_begin >= s.k_end; }

// By flooding from each segment that has no number yet.
std::vector<std::int64_t> flooded(const std::vector<Segment>& segments) {
  std::vector<std::int64_t> number(segments.size(), -1);
  std::int64_t count = 0;
  for (std::size_t first = 0; first < segments.size(); ++first) {
    if (number[first] >= 0 || is_empty(segments[first])) continue;
    std::vector<std::size_t> reached{first};
    number[first] = count;
    for (std::size_t at = 0; at < reached.size(); ++at)
      for (std::size_t other = 0; other < segments.size(); ++other) {
        const Segment &a = segments[reached[at]], &b = segments[other];
        if (number[other] >= 0 || is_empty(b)) continue;
        if (!overlap(a.q_begin, a.q_end, b.q_begin, b.q_end) && !overlap(a.k_begin, a.k_end, b.k_begin, b.k_end)) continue;
        number[other] = count;
        reached.push_back(other);
      }
    ++count;
  }
  return number;
}

}  // namespace

TEST(as_found_by_flooding) {
  std::mt19937 random(21);
  std::int64_t most = 0;
  for (int round = 0; round < 3000; ++round) {
    check::context() = "round " + std::to_string(round) + " of seed 21";
    const std::vector<Segment> segments = random_segments(random, 60, 12);
    const Components parts = cpu::components(segments.data(), static_cast<std::int64_t>(segments.size()));
    const std::vector<std::int64_t> wanted = flooded(segments);
    CHECK(parts.of_segment == wanted);
    CHECK_EQ(parts.count, wanted.empty() ? 0 : *std::max_element(wanted.begin(), wanted.end()) + 1);
    most = std::max(most, parts.count);
  }
  CHECK(most >= 5);  // or nothing was told apart
}

TEST(documents_are_apart_and_shared_keys_join_them) {
  const Segment documents[] = {
      {0, 3, 0, 3, 0, 0, -1, 0}, {3, 9, 3, 9, 0, 0, -1, 0}, {9, 9, 9, 12, 0, 0, -1, 0}, {9, 12, 1, 2, 0, 0, -1, 0}};
  CHECK(cpu::components(documents, 4).of_segment == (std::vector<std::int64_t>{0, 1, -1, 0}));
  CHECK_EQ(cpu::components(nullptr, 0).count, 0);
}

TEST_MAIN()
