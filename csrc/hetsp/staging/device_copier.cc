#include "hetsp/staging/device_copier.h"

#include <algorithm>
#include <utility>

#include "hetsp/base/error.h"
#include "hetsp/device/device.h"

namespace hetsp::staging {

namespace {

// For what cannot be undone or told any more: a device that is lost has lost all of it anyway.
template <class Call>
void quietly(const Call& call) noexcept {
  try {
    call();
  } catch (...) {  // NOLINT(bugprone-empty-catch)
  }
}

std::int64_t bytes_of(const std::vector<DevicePiece>& pieces) {
  std::int64_t bytes = 0;
  for (const DevicePiece& piece : pieces) bytes += piece.bytes;
  return bytes;
}

// What is empty goes, and neighbours within the block become one; not others, for a transfer may not cross two allocations.
std::vector<DevicePiece> runs_of(const std::vector<DevicePiece>& pieces, const char* block, std::int64_t block_bytes) {
  const auto inside = [&](const DevicePiece& piece) { return piece.from >= block && piece.from < block + block_bytes; };
  std::vector<DevicePiece> runs;
  for (const DevicePiece& piece : pieces) {
    if (piece.bytes == 0) continue;
    if (!runs.empty() && runs.back().from + runs.back().bytes == piece.from && inside(runs.back()) && inside(piece)) {
      runs.back().bytes += piece.bytes;
    } else {
      runs.push_back(piece);
    }
  }
  return runs;
}

}  // namespace

DeviceCopier::Moment::~Moment() { copier_.give_back(std::move(block_)); }

DeviceCopier::DeviceCopier(DeviceRuntime& runtime, int device, const Options& options)
    : runtime_(runtime), device_(device), options_(options) {
  require(options.chunk_bytes > 0, "device copier: chunk_bytes is ", options.chunk_bytes, ", must be positive");
  require(options.depth > 0, "device copier: depth is ", options.depth, ", must be positive");
  const CurrentDevice current(runtime_, device_);
  try {
    stream_ = runtime_.create_stream();
    for (int i = 0; i < options_.depth; ++i) events_.push_back(runtime_.create_event());
  } catch (...) {
    tear_down();
    throw;
  }
}

DeviceCopier::~DeviceCopier() {
  drain();
  quietly([&] {
    const CurrentDevice current(runtime_, device_);
    tear_down();
  });
}

void DeviceCopier::tear_down() noexcept {
  for (auto& block : free_) {
    quietly([&] { runtime_.synchronize_event(block->event); });  // of a moment that nobody copied from
    destroy(*block);
  }
  if (staging_ != nullptr) quietly([&] { runtime_.free(staging_); });
  for (DeviceRuntime::Event event : events_) quietly([&] { runtime_.destroy_event(event); });
  if (stream_ != nullptr) quietly([&] { runtime_.destroy_stream(stream_); });
}

void DeviceCopier::destroy(Block& block) noexcept {
  if (block.device != nullptr) quietly([&] { runtime_.free(block.device); });
  if (block.host != nullptr) quietly([&] { runtime_.free_pinned(block.host); });
  if (block.event != nullptr) quietly([&] { runtime_.destroy_event(block.event); });
}

// A block that is free and large enough, else a new one. A free one whose event is not done may still be written to, by the
// producer of a moment that nobody copied from: the next producer's stream need not come after it.
std::unique_ptr<DeviceCopier::Block> DeviceCopier::take(std::int64_t device_bytes, std::int64_t host_bytes) {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < free_.size();) {
    if (!runtime_.done(free_[i]->event)) {
      ++i;
      continue;
    }
    std::unique_ptr<Block> block = std::move(free_[i]);
    free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(i));
    if (block->device_bytes >= device_bytes && block->host_bytes >= host_bytes) return block;
    destroy(*block);
  }
  auto block = std::make_unique<Block>();
  try {
    block->event = runtime_.create_event();
    if (device_bytes > 0) block->device = static_cast<char*>(runtime_.allocate(device_bytes));
    if (host_bytes > 0) block->host = static_cast<char*>(runtime_.allocate_pinned(host_bytes));
  } catch (...) {
    destroy(*block);
    throw;
  }
  block->device_bytes = device_bytes, block->host_bytes = host_bytes;
  return block;
}

void DeviceCopier::give_back(std::unique_ptr<Block> block) noexcept {
  if (block == nullptr) return;
  const std::lock_guard lock(mutex_);
  quietly([&] { free_.push_back(std::move(block)); });
}

std::shared_ptr<DeviceCopier::Moment> DeviceCopier::open(DeviceRuntime::Stream producer, const std::vector<DevicePiece>& eager,
                                                         const std::vector<DevicePiece>& noted) {
  const CurrentDevice current(runtime_, device_);
  const std::int64_t eager_bytes = bytes_of(eager), noted_bytes = bytes_of(noted);
  // Where this throws, the block's memory is left to the device: kernels that no event tells of may still write to it.
  std::unique_ptr<Block> block = take(eager_bytes + noted_bytes, noted_bytes);
  std::vector<DevicePiece> all = eager;
  all.insert(all.end(), noted.begin(), noted.end());
  for (const GatherParams& params : gathers_of(all, block->device)) runtime_.gather(params, producer);
  runtime_.record(block->event, producer);
  return std::shared_ptr<Moment>(new Moment(*this, std::move(block), eager_bytes, noted_bytes));
}

void DeviceCopier::begin(Moment& moment, const std::vector<DevicePiece>& pieces, char* to) {
  invariant(!full(), "chunk begun while ", in_flight(), " are under way");
  invariant(bytes_of(pieces) <= options_.chunk_bytes, "chunk of ", bytes_of(pieces), " bytes");
  try {
    const CurrentDevice current(runtime_, device_);
    if (!moment.awaited_) {
      runtime_.wait(stream_, moment.block_->event);
      if (moment.noted_bytes_ > 0)
        runtime_.copy_to_host(moment.block_->host, moment.block_->device + moment.eager_bytes_, moment.noted_bytes_, stream_);
      moment.awaited_ = true;
    }
    if (in_flight() > 0) runtime_.breathe(stream_);
    transfer(runs_of(pieces, moment.eager(), moment.eager_bytes_), to);
    runtime_.record(events_[begun_ % events_.size()], stream_);
    ++begun_;
  } catch (...) {
    drain();  // a part of the chunk may be on its way
    throw;
  }
}

// Runs back to back: long ones as they are, short ones in a row through the block on the device.
void DeviceCopier::transfer(const std::vector<DevicePiece>& runs, char* to) {
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < runs.size();) {
    std::vector<DevicePiece> row;
    std::int64_t bytes = 0;
    for (; i < runs.size() && runs[i].bytes < kShortestTransfer; ++i) row.push_back(runs[i]), bytes += runs[i].bytes;
    if (row.size() > 1 && staging() != nullptr) {
      gather(row, offset, bytes, to);
      offset += bytes;
      continue;
    }
    if (row.empty()) row.push_back(runs[i++]);
    for (const DevicePiece& run : row) {
      runtime_.copy_to_host(to + offset, run.from, run.bytes, stream_);
      offset += run.bytes;
    }
  }
}

void DeviceCopier::gather(const std::vector<DevicePiece>& pieces, std::int64_t offset, std::int64_t bytes, char* to) {
  char* const block = staging() + static_cast<std::int64_t>(begun_ % events_.size()) * options_.chunk_bytes + offset;
  for (const GatherParams& params : gathers_of(pieces, block)) runtime_.gather(params, stream_);
  runtime_.copy_to_host(to + offset, block, bytes, stream_);
}

char* DeviceCopier::staging() {
  if (staging_ == nullptr && !no_staging_) {
    try {
      staging_ = static_cast<char*>(runtime_.allocate(options_.depth * options_.chunk_bytes));
    } catch (const device::DeviceError&) {  // training has the memory: slower, then
      no_staging_ = true;
    }
  }
  return staging_;
}

bool DeviceCopier::landed() {
  invariant(in_flight() > 0, "no chunk is under way");
  return runtime_.done(events_[finished_ % events_.size()]);
}

void DeviceCopier::finish() {
  invariant(in_flight() > 0, "no chunk is under way");
  runtime_.synchronize_event(events_[finished_ % events_.size()]);
  ++finished_;
}

void DeviceCopier::drain() noexcept {
  quietly([&] { runtime_.synchronize_stream(stream_); });  // whatever device is current
  finished_ = begun_;
}

}  // namespace hetsp::staging
