// One save of one rank: a header and spans of live memory become one file.
//
//   spans -> ring slots (copy past the caches, checksum of the source while it is in cache) -> writes -> ftruncate -> fsync
//
// The window. begin() is called straight after the optimizer has written the spans; until the optimizer writes them again they
// are only read, so they may be copied meanwhile (DataStates-LLM, HPDC 2024, arXiv 2406.10707). wait_group(g) is the other
// end: it returns when the last span of group g is copied. A copy is right iff it lies between the two; the probes report spans
// for which that did not hold. What a device's queues hold when begin() is called is written before its memory is read:
// begin() notes where the producer's stream stands (staging/device_copier.h), and queues there the copies of eager spans.
//
// Failure. An error of the file fails this capture alone: every wait ends at once, wait_written throws the error, and what was
// written is removed. No wait throws anything else, and none hangs unless the disk does.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "hetsp/checkpoint/checksum.h"
#include "hetsp/checkpoint/extents.h"
#include "hetsp/checkpoint/io_error.h"
#include "hetsp/checkpoint/output_file.h"
#include "hetsp/checkpoint/probes.h"
#include "hetsp/checkpoint/span.h"
#include "hetsp/checkpoint/write_queue.h"
#include "hetsp/staging/devices.h"
#include "hetsp/staging/ring.h"

namespace hetsp::checkpoint {

class Capture : public std::enable_shared_from_this<Capture> {
 public:
  struct Request {
    std::string path;  // must not exist
    std::string header;  // the file's first bytes, not empty
    std::vector<Span> spans;
    Checksum checksum = Checksum::crc32c;
    IoMode best = IoMode::direct;
    std::uint64_t number = 0;  // of this save: places the probes
    std::map<int, void*> producers = {};  // of each device that spans lie on: the stream that has written them
  };
  struct Seconds {
    double capture = 0;  // from begin until all was copied
    double write = 0;  // from begin until all was written, before the sync
    double fsync = 0;
    double ring_full = 0;  // in which the copy waited for the disk
  };

  // Reads the probes; no other access to spans or disk. Throws InvalidArgument for a request that cannot be. What a device
  // refuses fails the capture. devices: borrowed until run() returns; null where no span lies on one.
  Capture(FileSystem& fs, Request request, staging::Devices* devices = nullptr);
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  // Each returns the seconds waited, or nothing where `timeout` seconds were not enough. A group without spans is captured.
  // They throw InvalidArgument in a forked child.
  [[nodiscard]] std::optional<double> wait_group(std::int64_t group, double timeout = kForever);
  [[nodiscard]] std::optional<double> wait_captured(double timeout = kForever);
  // As these, and throws IoError where the capture failed (ECANCELED: it was cancelled).
  [[nodiscard]] std::optional<double> wait_written(double timeout = kForever);
  static constexpr double kForever = 1e9;

  void cancel();  // fails it, unless it is written

  [[nodiscard]] bool captured() const;  // the spans are no longer read, whether they were copied or the capture failed
  [[nodiscard]] bool written() const;  // synced
  [[nodiscard]] bool failed() const;
  [[nodiscard]] std::int64_t bytes() const { return total_; }
  [[nodiscard]] std::int64_t bytes_captured() const;
  [[nodiscard]] std::int64_t bytes_written() const;
  [[nodiscard]] std::vector<std::int64_t> changed() const;  // spans whose probes differed after their copy, ascending
  [[nodiscard]] Seconds seconds() const;
  [[nodiscard]] IoMode io() const;
  [[nodiscard]] std::string io_reason() const;  // why not a better mode; empty where it was the one asked for

  // Valid once written; throw InvalidArgument before.
  [[nodiscard]] const std::string& header_hash() const;
  [[nodiscard]] const std::vector<Extent>& extents() const;

  // Hashes the sources again and returns the spans that lie in an extent whose hash is now another. Between captured() and the
  // next write to the sources, so as to find what the probes missed. Reads all of them on the calling thread. Throws
  // InvalidArgument where a span lies on a device.
  [[nodiscard]] std::vector<std::int64_t> rehash() const;

  // For the engine's capture thread: copies all, handing full slots to the queue. Never throws.
  void run(staging::Ring& ring, WriteQueue& queue) noexcept;

 private:
  using Clock = std::chrono::steady_clock;
  class Copying;

  [[nodiscard]] std::optional<double> wait_copied(std::int64_t offset, double timeout);
  void open_devices();
  [[nodiscard]] std::int64_t header_bytes() const { return static_cast<std::int64_t>(request_.header.size()); }
  [[nodiscard]] const void* source(std::int64_t span) const;  // span -1: the header
  void note_passed(std::int64_t span, std::int64_t bytes);
  void note_arrived(int device);
  void note_landed(std::int64_t span, std::int64_t begin, const char* copy, std::int64_t bytes);
  void note_changed();
  void note_captured();
  void publish(std::int64_t copied, bool at_once);
  void submit(staging::Ring& ring, WriteQueue& queue, int slot, std::int64_t bytes, std::int64_t offset);
  void fail(const IoError& error);
  void one_less(WriteQueue& queue) noexcept;
  void finish() noexcept;
  void require_written(const char* what) const;
  [[nodiscard]] double since_begin() const;
  void require_own_process() const;

  const int owner_;  // process that began it: a forked child has no thread to end its waits
  Request request_;
  std::int64_t total_ = 0;  // bytes of the file
  std::vector<std::int64_t> span_begin_;  // file offset of each span
  std::map<std::int64_t, std::int64_t> group_end_;  // group -> file offset behind its last span
  std::vector<std::int64_t> marks_;  // ends of groups, ascending: where waiters are told
  std::vector<Extent> extents_;
  std::string header_hash_;
  Probes probes_;
  staging::Devices* const devices_;
  std::map<int, std::shared_ptr<staging::DeviceCopier::Moment>> moments_;  // by device, until run() ends
  std::set<int> arrived_;  // devices whose probes are here
  std::vector<std::int64_t> newly_changed_;  // spans, by the thread that copies
  OutputFile file_;
  Clock::time_point begin_;

  std::atomic<bool> stopped_{false};  // failed or cancelled: copy no more
  std::atomic<int> outstanding_{1};  // slots under way, and one for the copy itself
  std::int64_t copied_seen_ = 0;  // of copied_, by the thread that copies

  mutable std::mutex mutex_;  // of all below
  std::condition_variable changed_state_;
  staging::Ring* ring_ = nullptr;  // while run() may wait in it
  std::int64_t copied_ = 0, written_bytes_ = 0;
  bool started_ = false, captured_ = false, ended_ = false;  // ended: written, or failed and put away
  std::optional<IoError> failure_;
  std::vector<std::int64_t> changed_;
  Seconds seconds_;
};

}  // namespace hetsp::checkpoint
