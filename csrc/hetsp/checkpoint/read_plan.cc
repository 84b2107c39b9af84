#include "hetsp/checkpoint/read_plan.h"

#include <algorithm>
#include <functional>

#include "hetsp/base/ceil_div.h"
#include "hetsp/base/error.h"

namespace hetsp::checkpoint {

namespace {

std::int64_t page_down(std::int64_t offset) { return offset / kPage * kPage; }
std::int64_t page_up(std::int64_t offset) { return ceil_div(offset, kPage) * kPage; }

void check_file(const FileSpec& file) {
  require(file.size >= 0, file.path, ": size is ", file.size, " bytes, must be at least 0");
  std::int64_t at = file.header_bytes();
  require(0 <= at && at <= file.size, file.path, ": the first extent begins at ", at, ", must lie within ", file.size,
          " bytes");
  for (std::size_t i = 0; i < file.extents.size(); ++i) {
    const Extent& extent = file.extents[i];
    require(extent.begin == at && extent.end >= at, file.path, ": extent ", i, " is [", extent.begin, ", ", extent.end,
            "), must begin at ", at, " where what is before it ends");
    at = extent.end;
  }
  require(at == file.size, file.path, ": the extents end at ", at, ", must reach the end of the file at ", file.size);
}

void check_pieces(const std::vector<FileSpec>& files, const std::vector<Piece>& pieces) {
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const Piece& piece = pieces[i];
    require(0 <= piece.file && piece.file < static_cast<std::int64_t>(files.size()), "piece ", i, " names file ", piece.file,
            ", there are ", files.size());
    const FileSpec& file = files[piece.file];
    require(piece.bytes >= 0 && piece.offset >= file.header_bytes() && piece.offset <= file.size - piece.bytes, "piece ", i,
            " is ", piece.bytes, " bytes at ", piece.offset, " of ", file.path, ", must lie within [", file.header_bytes(),
            ", ", file.size, ")");
    require(piece.bytes == 0 || piece.destination != nullptr, "piece ", i, " has ", piece.bytes, " bytes and no destination");
  }
  // Kept old bytes can be put back only where no piece wrote over what another had written.
  std::vector<const Piece*> order;
  for (const Piece& piece : pieces)
    if (piece.bytes > 0) order.push_back(&piece);
  std::sort(order.begin(), order.end(),
            [](const Piece* a, const Piece* b) { return std::less<>{}(a->destination, b->destination); });
  for (std::size_t i = 1; i < order.size(); ++i)
    require(order[i]->destination - order[i - 1]->destination >= order[i - 1]->bytes,
            "two pieces meet at their destination: ", order[i - 1]->bytes, " bytes at ",
            static_cast<const void*>(order[i - 1]->destination), " and ", order[i]->bytes, " bytes at ",
            static_cast<const void*>(order[i]->destination));
}

// First extent of `file` that ends behind `offset`.
std::size_t extent_at(const FileSpec& file, std::int64_t offset) {
  const auto found = std::upper_bound(file.extents.begin(), file.extents.end(), offset,
                                      [](std::int64_t value, const Extent& extent) { return value < extent.end; });
  return found - file.extents.begin();
}

// Reads of one file; read_of[i] becomes the read that holds extent i, if it is wanted.
void cut(const FileSpec& file, std::int32_t index, const std::vector<bool>& wanted, std::int64_t slot_bytes,
         std::vector<Read>& reads, std::vector<std::int64_t>& read_of) {
  const std::size_t first = reads.size();
  const auto add = [&](const Extent& block) {
    const bool joins = reads.size() > first && block.begin - reads.back().extents.back().end < kSmallGap &&
                       page_up(block.end) - reads.back().begin <= slot_bytes;
    if (!joins) reads.push_back({index, page_down(block.begin), 0, {}, {}});
    reads.back().end = page_up(block.end);
    reads.back().extents.push_back(block);
  };
  if (!file.header_hash.empty() && std::find(wanted.begin(), wanted.end(), true) != wanted.end())
    add({0, file.header_bytes(), file.header_hash});
  for (std::size_t i = 0; i < file.extents.size(); ++i) {
    if (!wanted[i]) continue;
    add(file.extents[i]);
    read_of[i] = static_cast<std::int64_t>(reads.size()) - 1;
  }
}

}  // namespace

ReadPlan plan_reads(const std::vector<FileSpec>& files, const std::vector<Piece>& pieces, std::int64_t slot_bytes,
                    bool everything) {
  require(slot_bytes >= 2 * kPage && slot_bytes % kPage == 0, "a slot has ", slot_bytes, " bytes, must be a multiple of ",
          kPage, " and at least two of them");
  for (const FileSpec& file : files) check_file(file);
  check_pieces(files, pieces);

  std::vector<std::vector<const Piece*>> by_file(files.size());
  for (const Piece& piece : pieces)
    if (piece.bytes > 0) by_file[piece.file].push_back(&piece);

  ReadPlan plan;
  for (std::size_t index = 0; index < files.size(); ++index) {
    const FileSpec& file = files[index];
    std::vector<bool> wanted(file.extents.size(), everything);
    for (const Piece* piece : by_file[index])
      for (std::size_t i = extent_at(file, piece->offset);
           i < file.extents.size() && file.extents[i].begin < piece->offset + piece->bytes; ++i)
        wanted[i] = file.extents[i].end > file.extents[i].begin;
    std::vector<std::int64_t> read_of(file.extents.size(), -1);
    if (everything && file.extents.empty()) wanted.push_back(true);  // a file that is all header
    cut(file, static_cast<std::int32_t>(index), wanted, slot_bytes, plan.reads, read_of);

    for (const Piece* piece : by_file[index]) {
      const std::int64_t end = piece->offset + piece->bytes;
      for (std::size_t i = extent_at(file, piece->offset); i < file.extents.size() && file.extents[i].begin < end; ++i) {
        if (read_of[i] < 0) continue;  // an extent of no bytes
        Read& read = plan.reads[read_of[i]];
        require(read.end - read.begin <= slot_bytes, file.path, ": extent [", file.extents[i].begin, ", ", file.extents[i].end,
                ") does not fit a slot of ", slot_bytes, " bytes");
        const std::int64_t from = std::max(piece->offset, file.extents[i].begin), to = std::min(end, file.extents[i].end);
        std::byte* const destination = piece->destination + (from - piece->offset);
        Part* const last = read.parts.empty() ? nullptr : &read.parts.back();
        if (last && last->offset + last->bytes == from && last->destination + last->bytes == destination &&
            last->undo + last->bytes == plan.bytes)
          last->bytes += to - from;
        else
          read.parts.push_back({from, to - from, destination, plan.bytes});
        plan.bytes += to - from;
      }
    }
  }
  for (const Read& read : plan.reads)
    for (const Extent& extent : read.extents) plan.checked += extent.end - extent.begin;
  return plan;
}

}  // namespace hetsp::checkpoint
