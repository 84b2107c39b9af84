// Byte runs of files into memory, no byte of which arrives before the checksum of its extent has been found right.
//
// Each worker takes the next read of the plan, waits for the disk in its own slot of memory, checks every extent of the read
// there, and copies the wanted parts to their destinations: while one waits, another checks and copies. Reads go past the
// page cache (8 MiB, O_DIRECT) where the file system lets them. The first fault stops all copying, but not checking: every
// damaged extent is named.
//
// Bytes that are good may have reached live memory when a bad extent turns up later. With `undo` there is a way back:
//
//   keep    old bytes are copied to fresh memory before new ones arrive, and rollback() puts them back
//   check   everything is checked and nothing copied; finish() reads it again. The disk is read twice, and one that answers
//           differently the second time leaves part of the new bytes behind, named
//
// Keeping costs the first touch of fresh memory, checking a second read, and which is cheaper no rule tells: a first touch
// runs at 0.2 to 10 GB/s (huge pages or small ones, memory that the host has given to the guest already or not), a disk at as
// much. So the first reads are done in each way, timed, and the rest in the best one. What does not fit into memory is checked.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hetsp/checkpoint/checksum.h"
#include "hetsp/checkpoint/file_system.h"
#include "hetsp/checkpoint/read_plan.h"

namespace hetsp::checkpoint {

struct Fault {
  std::int32_t file;  // index
  std::int64_t begin, end;  // bytes of the file that it concerns
  std::string what;  // "xxh3-128 is 0f.., must be a3.."; "is missing"; ...
};

// Two extents of 4 MiB that begin in the middle of a page: the request is 8 MiB and a page.
inline constexpr std::int64_t kReadSlot = (std::int64_t{8} << 20) + 2 * kPage;

struct ReadOptions {
  std::int64_t ring_bytes = std::int64_t{36} << 20;  // memory for what comes from the disk: a slot per worker, at least one
  std::int64_t slot_bytes = kReadSlot;
  Checksum checksum = best_checksum();
  bool undo = false;
  bool hold = false;  // with undo: what was only checked is copied by finish(), which the caller calls when it is certain
  bool direct = true;  // past the page cache
  std::optional<std::int64_t> free_memory = {};  // bytes that old ones may take; none: what the system says, less a reserve
  std::optional<std::int64_t> window = {};  // reads of each trial; none: a 64th of all, 1 to 8 per worker
};

class UndoLog;

// What a read did. Destinations must live as long as rollback() may be called.
class Restoration {
 public:
  Restoration();
  ~Restoration();
  Restoration(Restoration&&) noexcept;
  Restoration& operator=(Restoration&&) noexcept;
  Restoration(const Restoration&) = delete;
  Restoration& operator=(const Restoration&) = delete;

  std::vector<Fault> faults;  // by file, then offset; empty: every piece has arrived, or will by finish()
  std::int64_t bytes = 0;  // of the pieces
  std::int64_t kept = 0;  // old bytes kept
  double seconds = 0;
  std::string undo;  // how most of it was done: "kept", "checked first" or "none"
  std::string refusal;  // why a file was read through the page cache; empty where none was

  // Copies what was only checked so far; nothing where all has arrived. Adds to `faults` what is no longer as it was. Throws
  // InvalidArgument where there are faults already.
  void finish();
  // Every destination as it was before; once. Throws InvalidArgument where bytes arrived of which no old ones were kept:
  // without undo, or by finish(); what was kept has been put back then.
  void rollback();
  void forget();  // frees the old bytes

 private:
  friend class VerifiedRead;
  friend Restoration verified_read(FileSystem&, const std::vector<FileSpec>&, const std::vector<Piece>&, const ReadOptions&);
  struct Pending;
  void put_back() const;
  std::unique_ptr<UndoLog> log_;
  std::vector<Part> kept_parts_;
  std::int64_t lost_ = 0;  // bytes copied over old ones that were not kept
  std::unique_ptr<Pending> pending_;  // what finish() needs
};

// Throws InvalidArgument as plan_reads does, and where the checksum is not available; IoError where this process lacks the
// means to read (descriptors, memory). What is wrong with the files is in `faults`.
Restoration verified_read(FileSystem& files, const std::vector<FileSpec>& specs, const std::vector<Piece>& pieces,
                          const ReadOptions& options = {});

// Every extent and the header of whole files.
std::vector<Fault> verify_files(FileSystem& files, const std::vector<FileSpec>& specs, const ReadOptions& options = {});

}  // namespace hetsp::checkpoint
