// Byte runs of files into memory, no byte of which arrives before the checksum of its extent has been found right.
//
// Each worker takes the next read of the plan, waits for the disk in its own slot of memory, checks every extent of the read
// there, and copies the wanted parts to their destinations: while one waits, another checks and copies. Reads go past the
// page cache (8 MiB, O_DIRECT) where the file system lets them. The first fault stops all copying, but not checking: every
// damaged extent is named.
//
// Bytes that are good may have reached live memory when a bad extent turns up later. With `undo`, old bytes are kept first,
// and rollback() puts them back. Where memory does not suffice for that, everything is checked before anything is copied, and
// read again: twice the time, and a disk that answers differently the second time leaves part of the new bytes behind, named.
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
  std::int32_t file;           // index
  std::int64_t begin, end;     // bytes of the file that it concerns
  std::string what;            // "xxh3-128 is 0f.., must be a3.."; "is missing"; ...
};

struct ReadOptions {
  std::int64_t ring_bytes = std::int64_t{32} << 20;  // memory for what comes from the disk; a slot of 8 MiB per worker
  Checksum checksum = best_checksum();
  bool undo = false;
  bool direct = true;                                // past the page cache
  std::optional<std::int64_t> free_memory = {};      // bytes that undo may take; none: what the system says, less a reserve
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

  std::vector<Fault> faults;  // by file, then offset; empty: every piece has arrived
  std::int64_t bytes = 0;     // of the pieces
  double seconds = 0;
  std::string undo;     // "kept", "checked first" or "none"
  std::string refusal;  // why a file was read through the page cache; empty where none was

  // Every destination as it was before; once. Throws InvalidArgument where nothing was kept and something has been copied.
  void rollback();
  void forget();  // frees the old bytes

 private:
  friend class VerifiedRead;
  std::unique_ptr<UndoLog> log_;
  std::vector<Part> copied_;  // what reached its destination
};

// Throws InvalidArgument as plan_reads does, and where the checksum is not available; IoError where this process lacks the
// means to read (descriptors, memory). What is wrong with the files is in `faults`.
Restoration verified_read(FileSystem& files, const std::vector<FileSpec>& specs, const std::vector<Piece>& pieces,
                          const ReadOptions& options = {});

// Every extent and the header of whole files.
std::vector<Fault> verify_files(FileSystem& files, const std::vector<FileSpec>& specs, const ReadOptions& options = {});

}  // namespace hetsp::checkpoint
