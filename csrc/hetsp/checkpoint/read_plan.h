// Which parts of which files to read, in what portions, for given runs of bytes to reach given addresses.
//
// A checksum covers an extent (at most 4 MiB), so extents are read whole, whatever part of them is wanted. A read begins at
// the page that holds the first byte of its first extent and takes in further touched extents while they lie near (a gap
// below 1 MiB is read and ignored: a seek or a request costs more) and the slot of memory holds them. No extent is spread
// over two reads, so each can be checked in the slot that it came in before one byte of it goes on; where extents do not
// begin on pages, neighbouring reads share a page, 1/2000 of the bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "hetsp/checkpoint/extent.h"

namespace hetsp::checkpoint {

inline constexpr std::int64_t kPage = 4096;                       // bytes: what direct I/O wants offsets to divide by
inline constexpr std::int64_t kSmallGap = std::int64_t{1} << 20;  // bytes

// A file as its manifest describes it: header bytes up to the first extent, then extents to the end without a gap.
struct FileSpec {
  std::string path;
  std::int64_t size = 0;     // bytes
  std::string header_hash;   // hex; empty: the header is not looked at
  std::vector<Extent> extents;
  [[nodiscard]] std::int64_t header_bytes() const { return extents.empty() ? size : extents.front().begin; }
};

// Bytes [offset, offset + bytes) of a file are wanted at `destination`.
struct Piece {
  std::int32_t file = 0;  // index into the files
  std::int64_t offset = 0, bytes = 0;
  std::byte* destination = nullptr;
};

// What of a piece lies in one read.
struct Part {
  std::int64_t offset, bytes;  // in the file
  std::byte* destination;
  std::int64_t undo;  // where among the kept old bytes of all pieces its own begin
};

// One request to the disk: bytes [begin, end) of a file, on pages; end may lie behind the end of the file. A block longer
// than a slot (the header of very many tensors) is a read of its own without parts, to be taken in slot by slot.
struct Read {
  std::int32_t file;
  std::int64_t begin, end;
  std::vector<Extent> extents;  // to be checked
  std::vector<Part> parts;
};

struct ReadPlan {
  std::vector<Read> reads;            // by file, then offset
  std::int64_t bytes = 0;             // of all pieces
  std::int64_t checked = 0;           // bytes of all extents that are read
};

// Every extent that a piece touches, and the header of every file that has such; with `everything`, all extents and headers.
// Throws InvalidArgument where a file's extents leave a gap, a piece lies outside its file's extents or in an extent longer
// than a slot, or two pieces meet at their destination.
ReadPlan plan_reads(const std::vector<FileSpec>& files, const std::vector<Piece>& pieces, std::int64_t slot_bytes,
                    bool everything = false);

}  // namespace hetsp::checkpoint
