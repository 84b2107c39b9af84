#include "hetsp/checkpoint/read_plan.h"

#include <map>
#include <random>
#include <set>
#include <vector>

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::checkpoint;

namespace {

constexpr std::int64_t kSlot = 8 * kPage;
std::byte memory[std::size_t{1} << 20];
std::byte* const kSomewhere = memory;  // never looked at

FileSpec spec(std::vector<std::int64_t> bounds, std::string header_hash = "h") {
  FileSpec file{"f", bounds.back(), std::move(header_hash), {}};
  for (std::size_t i = 1; i < bounds.size(); ++i) file.extents.push_back({bounds[i - 1], bounds[i], std::to_string(i)});
  return file;
}

// What a plan delivers, byte by byte: (file, offset) per destination address; and the invariants that reading relies on.
std::map<std::byte*, std::pair<int, std::int64_t>> delivered(const ReadPlan& plan) {
  std::map<std::byte*, std::pair<int, std::int64_t>> bytes;
  std::set<std::int64_t> undo;
  std::int64_t checked = 0;
  for (std::size_t i = 0; i < plan.reads.size(); ++i) {
    const Read& read = plan.reads[i];
    CHECK(read.begin % kPage == 0 && read.end % kPage == 0);
    CHECK(read.end - read.begin <= kSlot || (read.extents.size() == 1 && read.parts.empty()));
    CHECK(!read.extents.empty());
    for (const Extent& extent : read.extents) {
      CHECK(read.begin <= extent.begin && extent.end <= read.end);
      checked += extent.end - extent.begin;
    }
    for (const Part& part : read.parts)
      for (std::int64_t k = 0; k < part.bytes; ++k) {
        const std::int64_t at = part.offset + k;
        bool covered = false;
        for (const Extent& extent : read.extents) covered |= extent.begin <= at && at < extent.end;
        CHECK(covered);
        CHECK(bytes.emplace(part.destination + k, std::pair(read.file, at)).second);
        CHECK(undo.insert(part.undo + k).second);
      }
  }
  CHECK_EQ(checked, plan.checked);
  CHECK_EQ(static_cast<std::int64_t>(undo.size()), plan.bytes);
  CHECK(undo.empty() || *undo.rbegin() == plan.bytes - 1);
  return bytes;
}

}  // namespace

TEST(random_pieces_are_delivered_byte_by_byte) {
  for (int seed = 0; seed < 300; ++seed) {
    check::context() = concat("seed ", seed);
    std::mt19937 random(seed);
    const auto up_to = [&](std::int64_t most) {
      return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(most + 1));
    };
    std::vector<FileSpec> files;
    for (std::int64_t i = up_to(2); i >= 0; --i) {
      const std::int64_t header = up_to(2) ? kPage : up_to(3 * kSlot);
      std::vector<std::int64_t> bounds{header};
      for (std::int64_t k = up_to(6); k > 0; --k)
        bounds.push_back(bounds.back() + (up_to(3) ? up_to(kSlot - kPage) : up_to(3) * kPage));
      files.push_back(spec(bounds, up_to(1) ? "h" : ""));
    }
    std::vector<Piece> pieces;
    std::map<std::byte*, std::pair<int, std::int64_t>> expected;
    std::byte* to = kSomewhere;
    for (std::int64_t i = up_to(8); i > 0; --i) {
      const int file = static_cast<int>(up_to(static_cast<std::int64_t>(files.size()) - 1));
      const std::int64_t from = files[file].header_bytes(), room = files[file].size - from;
      const std::int64_t offset = from + up_to(room), bytes = up_to(files[file].size - offset);
      pieces.push_back({file, offset, bytes, to});
      for (std::int64_t k = 0; k < bytes; ++k) expected[to + k] = {file, offset + k};
      to += bytes + up_to(1);
    }
    const ReadPlan plan = plan_reads(files, pieces, kSlot);
    CHECK(delivered(plan) == expected);
    std::set<std::pair<int, std::int64_t>> touched;  // (file, begin of extent)
    for (const auto& [address, source] : expected)
      for (const Extent& extent : files[source.first].extents)
        if (extent.begin <= source.second && source.second < extent.end) touched.insert({source.first, extent.begin});
    std::size_t read = 0, headers = 0;
    for (const Read& r : plan.reads)
      for (const Extent& extent : r.extents) extent.hash == "h" ? ++headers : ++read;
    CHECK_EQ(read, touched.size());
    std::set<int> with_header;
    for (const auto& [file, begin] : touched)
      if (!files[file].header_hash.empty()) with_header.insert(file);
    CHECK_EQ(headers, with_header.size());
  }
}

TEST(everything_means_every_extent_and_header) {
  const std::vector<FileSpec> files{spec({kPage, 2 * kPage, 2 * kPage, 9 * kPage}), spec({20 * kPage}), spec({0, 5}, "")};
  const ReadPlan plan = plan_reads(files, {}, kSlot, true);
  (void)delivered(plan);
  CHECK_EQ(plan.checked, 9 * kPage + 20 * kPage + 5);
  CHECK_EQ(plan_reads(files, {}, kSlot).reads.size(), std::size_t{0});
}

TEST(neighbours_share_a_read_and_gaps_are_read_over_while_small) {
  FileSpec file = spec({0, kPage, 2 * kPage, 3 * kPage}, "");
  CHECK_EQ(plan_reads({file}, {{0, 0, 1, kSomewhere}, {0, 2 * kPage, 1, kSomewhere + 9}}, kSlot).reads.size(), std::size_t{1});
  file = spec({0, kPage, kPage + kSmallGap, 3 * kPage + kSmallGap}, "");
  CHECK_EQ(plan_reads({file}, {{0, 0, 1, kSomewhere}, {0, kPage + kSmallGap, 1, kSomewhere + 9}}, 4 * kSmallGap).reads.size(),
           std::size_t{2});
}

TEST(what_cannot_be_planned_is_refused_by_name) {
  const FileSpec good = spec({kPage, 2 * kPage});
  const auto plan = [&](const FileSpec& file, const std::vector<Piece>& pieces, std::int64_t slot = kSlot) {
    return plan_reads({file}, pieces, slot, true);
  };
  FileSpec gap = spec({0, 5, 9});
  gap.extents[1].begin = 6;
  CHECK_THROWS(InvalidArgument, "f: extent 1 is [6, 9), must begin at 5", plan(gap, {}));
  FileSpec backwards = spec({0, 5});
  backwards.extents[0].end = -1;
  CHECK_THROWS(InvalidArgument, "f: extent 0 is [0, -1)", plan(backwards, {}));
  FileSpec less = spec({0, 5});
  less.size = 6;
  CHECK_THROWS(InvalidArgument, "f: the extents end at 5, must reach the end of the file at 6", plan(less, {}));
  FileSpec negative = spec({0});
  negative.size = -1;
  CHECK_THROWS(InvalidArgument, "f: size is -1", plan(negative, {}));
  CHECK_THROWS(InvalidArgument, "piece 0 names file 1, there are 1", plan(good, {{1, 0, 0, nullptr}}));
  CHECK_THROWS(InvalidArgument, "piece 0 is 1 bytes at 4095 of f, must lie within [4096, 8192)",
               plan(good, {{0, kPage - 1, 1, kSomewhere}}));
  CHECK_THROWS(InvalidArgument, "piece 0 is 2 bytes at 8191", plan(good, {{0, 2 * kPage - 1, 2, kSomewhere}}));
  CHECK_THROWS(InvalidArgument, "piece 0 is 9223372036854775807 bytes", plan(good, {{0, kPage, INT64_MAX, kSomewhere}}));
  CHECK_THROWS(InvalidArgument, "piece 0 is -1 bytes", plan(good, {{0, kPage, -1, kSomewhere}}));
  CHECK_THROWS(InvalidArgument, "piece 0 has 1 bytes and no destination", plan(good, {{0, kPage, 1, nullptr}}));
  CHECK_THROWS(InvalidArgument, "two pieces meet", plan(good, {{0, kPage, 10, kSomewhere}, {0, kPage, 10, kSomewhere + 9}}));
  CHECK_THROWS(InvalidArgument, "f: extent [0, 36864) does not fit a slot of 32768",
               plan(spec({0, 9 * kPage}, ""), {{0, 0, 1, kSomewhere}}));
  CHECK_THROWS(InvalidArgument, "a slot has 100 bytes", plan(good, {}, 100));
}

TEST_MAIN()
