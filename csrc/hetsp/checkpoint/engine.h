// Copies state out of training's way and writes it: a ring, one thread that copies, and the threads of a write queue.
//
// Captures run one after another; writes of one may still be under way while the next is copied. The memory is the ring, whose
// size does not depend on the state's: where the ring is smaller than the state, the copy waits for the disk (seconds
// ring_full). Where a device's memory is captured, the ring is pinned, once.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "hetsp/checkpoint/capture.h"
#include "hetsp/checkpoint/checksum.h"
#include "hetsp/checkpoint/file_system.h"
#include "hetsp/checkpoint/io_mode.h"
#include "hetsp/staging/device_runtime.h"

namespace hetsp::checkpoint {

class Engine {
 public:
  struct Options {
    std::int64_t ring_bytes = std::int64_t{64} << 20;
    std::int64_t slot_bytes = std::int64_t{8} << 20;  // one write; a multiple of 4096
    int writers = 1;                                  // threads that write
    IoMode best = IoMode::io_uring;                   // what to try first
    Checksum checksum = best_checksum();
    staging::DeviceRuntime* runtime = nullptr;  // borrowed; null: CUDA's
  };

  // Maps and touches the ring, starts the threads. Throws InvalidArgument for options that cannot be, std::bad_alloc.
  explicit Engine(const Options& options);
  Engine(const Options& options, FileSystem& fs);  // fs: borrowed, used by several threads
  ~Engine();  // abandon()
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Starts one save of the spans as they are now; the caller keeps the memory alive until captured(). Reads probes, and
  // neither copies nor touches the disk. producers: of each device that spans lie on, the stream that has written them (a
  // cudaStream_t). Throws InvalidArgument, in a forked child too.
  [[nodiscard]] std::shared_ptr<Capture> begin(const std::string& path, std::string header, std::vector<Span> spans,
                                               std::map<int, void*> producers = {});

  // Both wait for what was begun, end the threads and unmap the ring; begin() throws InvalidArgument from then on. abandon()
  // first fails, with ECANCELED, the captures that are not wholly copied, because their memory may be the next to go; in a
  // forked child it does nothing.
  void close();
  void abandon();

  [[nodiscard]] Checksum checksum() const;
  [[nodiscard]] std::int64_t ring_bytes() const;
  [[nodiscard]] IoMode io() const;  // of the newest file that was written, else the best that may be
  [[nodiscard]] std::string io_reason() const;  // why not a better one, in words

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
  void require_own_process() const;
};

}  // namespace hetsp::checkpoint
