// Copies device memory into pinned memory of the host, in chunks, behind the back of the training that uses the device.
//
//   training's stream   ... writes | gather what is volatile, note probes | event | forward, backward, ...
//   our stream                                               wait(event) | chunk | breathe | chunk | ...
//
// Order. open() is the first fence of a snapshot: an event on the stream that has written the memory, which ours waits for
// before its first copy (a stream of its own waits for nothing: queued kernels of the optimizer would race with it). The
// second fence is the host's: nothing is written before the copies of it have ended, see finish().
//
// Pace. A device has one engine for copies to the host; it takes what is ready, current stream first, and knows no priorities.
// Copies queued back to back on one stream run as one, and training's own transfers wait for all of them. So at most `depth`
// chunks of at most `chunk_bytes` are under way, and a kernel that does nothing stands between two: while it runs, the engine
// takes what other streams have ready.
//
// Small pieces. A transfer costs microseconds, in which the bus would carry a quarter of a MiB: shorter ones are first gathered
// in a block on the device by a kernel. Where there is no memory for the block, each is copied by itself.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "hetsp/staging/device_runtime.h"

namespace hetsp::staging {

class DeviceCopier {
 public:
  static constexpr std::int64_t kShortestTransfer = std::int64_t{256} << 10;  // bytes; what is shorter is gathered

  struct Options {
    std::int64_t chunk_bytes = std::int64_t{8} << 20;
    int depth = 2;  // chunks under way
  };

  // A device's memory as its producer's stream leaves it. It outlives the copies that are begun with it, and not the copier.
  class Moment {
   public:
    ~Moment();
    Moment(const Moment&) = delete;
    Moment& operator=(const Moment&) = delete;

    [[nodiscard]] const char* eager() const { return block_->device; }  // device memory: the eager pieces back to back
    [[nodiscard]] const char* noted() const { return block_->host; }  // of the host, once a chunk has been finished

   private:
    friend class DeviceCopier;
    struct Block {
      char* device = nullptr;  // eager, then noted
      char* host = nullptr;  // pinned: noted
      std::int64_t device_bytes = 0, host_bytes = 0;
      DeviceRuntime::Event event = nullptr;
    };
    Moment(DeviceCopier& copier, std::unique_ptr<Block> block, std::int64_t eager, std::int64_t noted)
        : copier_(copier), block_(std::move(block)), eager_bytes_(eager), noted_bytes_(noted) {}

    DeviceCopier& copier_;
    std::unique_ptr<Block> block_;
    const std::int64_t eager_bytes_, noted_bytes_;
    bool awaited_ = false;  // our stream waits for it, and brings what was noted
  };

  // Throws InvalidArgument for options that cannot be, DeviceError.
  DeviceCopier(DeviceRuntime& runtime, int device, const Options& options);
  ~DeviceCopier();  // waits for what is under way
  DeviceCopier(const DeviceCopier&) = delete;
  DeviceCopier& operator=(const DeviceCopier&) = delete;

  [[nodiscard]] const Options& options() const { return options_; }

  // Queued on `producer`: copies of the eager and of the noted pieces, as they are there and then. Returns at once; from any
  // thread. Throws DeviceError.
  [[nodiscard]] std::shared_ptr<Moment> open(DeviceRuntime::Stream producer, const std::vector<DevicePiece>& eager,
                                             const std::vector<DevicePiece>& noted);

  // All below from one thread. Pieces of device memory go back to back to `to`, pinned memory; at most chunk_bytes. Only
  // unless full(). Throws DeviceError, and then nothing is under way.
  void begin(Moment& moment, const std::vector<DevicePiece>& pieces, char* to);
  [[nodiscard]] int in_flight() const { return static_cast<int>(begun_ - finished_); }
  [[nodiscard]] bool full() const { return in_flight() == options_.depth; }

  // Of the chunk that was begun first: whether it is there; and waits until it is. Throw DeviceError, as the first to see it,
  // for whatever has gone wrong on the device.
  [[nodiscard]] bool landed();
  void finish();

  void drain() noexcept;  // returns when nothing is under way, whatever became of it

 private:
  using Block = Moment::Block;

  [[nodiscard]] std::unique_ptr<Block> take(std::int64_t device_bytes, std::int64_t host_bytes);
  void give_back(std::unique_ptr<Block> block) noexcept;
  void destroy(Block& block) noexcept;
  void transfer(const std::vector<DevicePiece>& runs, char* to);
  void gather(const std::vector<DevicePiece>& pieces, std::int64_t offset, std::int64_t bytes, char* to);
  [[nodiscard]] char* staging();
  void tear_down() noexcept;

  DeviceRuntime& runtime_;
  const int device_;
  const Options options_;
  DeviceRuntime::Stream stream_ = nullptr;
  std::vector<DeviceRuntime::Event> events_;  // of chunk i: events_[i % depth]
  char* staging_ = nullptr;  // `depth` blocks of chunk_bytes, made when first wanted
  bool no_staging_ = false;
  std::uint64_t begun_ = 0, finished_ = 0;

  std::mutex mutex_;  // of free_
  std::vector<std::unique_ptr<Block>> free_;
};

}  // namespace hetsp::staging
