#include "hetsp/checkpoint/capture.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "hetsp/base/ceil_div.h"
#include "hetsp/base/error.h"
#include "hetsp/checkpoint/copying.h"
#include "hetsp/device/device.h"

namespace hetsp::checkpoint {

namespace {

// Taken by publish() for so many bytes at the least where nobody waits for them.
constexpr std::int64_t kPublished = std::int64_t{128} << 10;

double seconds_between(std::chrono::steady_clock::time_point a, std::chrono::steady_clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

Capture::Request checked(Capture::Request request) {
  require(!request.path.empty(), "capture: the path is empty");
  require(!request.header.empty(), "capture of ", request.path, ": the header is empty");
  for (std::size_t i = 0; i < request.spans.size(); ++i) {
    const Span& span = request.spans[i];
    require(span.bytes >= 0, "capture of ", request.path, ": span ", i, " has ", span.bytes, " bytes");
    require(span.device >= kHost, "capture of ", request.path, ": span ", i, " lies on device ", span.device);
    require(!span.eager || span.device != kHost, "capture of ", request.path, ": span ", i,
            " is eager and of the host; copy it before");
    require(span.data != nullptr || span.bytes == 0, "capture of ", request.path, ": span ", i, " of ", span.bytes,
            " bytes has no address");
  }
  return request;
}

IoError device_error(const std::string& path, const device::DeviceError& error) {
  return {"device copy", path, EIO, error.what()};
}

std::int64_t length_of(const Capture::Request& request) {
  auto total = static_cast<std::int64_t>(request.header.size());
  for (const Span& span : request.spans) total += span.bytes;
  return total;
}

std::vector<std::int64_t> sizes_of(const std::vector<Span>& spans) {
  std::vector<std::int64_t> sizes;
  sizes.reserve(spans.size());
  for (const Span& span : spans) sizes.push_back(span.bytes);
  return sizes;
}

}  // namespace

Capture::Capture(FileSystem& fs, Request request, staging::Devices* devices)
    : owner_(::getpid()),
      request_(checked(std::move(request))),
      total_(length_of(request_)),
      extents_(extents_of(static_cast<std::int64_t>(request_.header.size()), sizes_of(request_.spans))),
      devices_(devices),
      file_(fs, request_.path, total_, request_.best),
      begin_(Clock::now()) {
  auto offset = static_cast<std::int64_t>(request_.header.size());
  for (const Span& span : request_.spans) {
    span_begin_.push_back(offset);
    offset += span.bytes;
    group_end_[span.group] = offset;
  }
  for (const auto& [group, end] : group_end_) marks_.push_back(end);
  std::sort(marks_.begin(), marks_.end());
  probes_ = Probes(request_.spans, request_.number);
  try {
    open_devices();
  } catch (const device::DeviceError& error) {
    fail(device_error(request_.path, error));
  }
}

// Notes where each device's producer stands. From here on an eager span is the copy that is being made of it.
void Capture::open_devices() {
  std::map<int, std::vector<staging::DevicePiece>> eager;
  for (std::size_t s = 0; s < request_.spans.size(); ++s) {
    const Span& span = request_.spans[s];
    if (span.device == kHost) continue;
    require(devices_ != nullptr && request_.producers.count(span.device) > 0, "capture of ", request_.path, ": span ", s,
            " lies on device ", span.device, ", of which no stream is named");
    if (auto& pieces = eager[span.device]; span.eager) pieces.push_back({static_cast<const char*>(span.data), span.bytes});
  }
  for (const auto& [device, pieces] : eager)
    moments_[device] = devices_->at(device).open(request_.producers.at(device), pieces, probes_.on_device(device));
  std::map<int, std::int64_t> passed;
  for (Span& span : request_.spans) {
    if (!span.eager || span.bytes == 0) continue;
    std::int64_t& offset = passed[span.device];
    span.data = moments_.at(span.device)->eager() + offset;
    offset += span.bytes;
  }
}

const void* Capture::source(std::int64_t span) const {
  return span < 0 ? request_.header.data() : request_.spans[static_cast<std::size_t>(span)].data;
}

void Capture::require_own_process() const {
  require(::getpid() == owner_, "capture of ", request_.path, " by process ", owner_, " waited for in its forked child ",
          ::getpid());
}

double Capture::since_begin() const { return seconds_between(begin_, Clock::now()); }

void Capture::run(staging::Ring& ring, WriteQueue& queue) noexcept {
  {
    const std::lock_guard lock(mutex_);
    started_ = true;
    ring_ = &ring;
  }
  try {
    Copying(*this, ring, queue).run();
  } catch (const device::DeviceError& error) {
    fail(device_error(request_.path, error));
  } catch (...) {  // all that is thrown there besides is std::bad_alloc
    fail(IoError("capture", request_.path, ENOMEM));
  }
  moments_.clear();
  {
    const std::lock_guard lock(mutex_);
    ring_ = nullptr;
  }
  note_captured();
  one_less(queue);
}

// The spans are no longer read: all is copied, or will never be.
void Capture::note_captured() {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(captured_, true) && seconds_.capture > 0) return;
    if (!failure_) copied_ = total_;
    seconds_.capture = since_begin();
  }
  changed_state_.notify_all();
}

void Capture::note_passed(std::int64_t span, std::int64_t bytes) {
  probes_.passed(span, bytes, newly_changed_);
  note_changed();
}

void Capture::note_arrived(int device) {
  if (arrived_.insert(device).second) probes_.arrived(device, moments_.at(device)->noted());
}

void Capture::note_landed(std::int64_t span, std::int64_t begin, const char* copy, std::int64_t bytes) {
  probes_.landed(span, begin, copy, bytes, newly_changed_);
  note_changed();
}

void Capture::note_changed() {
  if (newly_changed_.empty()) return;
  const std::lock_guard lock(mutex_);
  for (const std::int64_t span : newly_changed_)
    if (changed_.empty() || changed_.back() != span) changed_.push_back(span);
  newly_changed_.clear();
}

// Takes the lock where a waiter may be waiting for it, at the ends of groups, and else now and then; not for every tiny span.
void Capture::publish(std::int64_t copied, bool at_once) {
  const auto mark = std::upper_bound(marks_.begin(), marks_.end(), copied);
  const bool crossed = mark != marks_.begin() && *std::prev(mark) > copied_seen_;
  if (!crossed && !at_once && copied - copied_seen_ < kPublished) return;
  copied_seen_ = copied;
  {
    const std::lock_guard lock(mutex_);
    copied_ = copied;
  }
  if (crossed) changed_state_.notify_all();
}

void Capture::submit(staging::Ring& ring, WriteQueue& queue, int slot, std::int64_t bytes, std::int64_t offset) {
  const std::int64_t padded = ceil_div(bytes, OutputFile::kAlignment) * OutputFile::kAlignment;  // the last slot alone
  std::memset(ring.slot(slot) + bytes, 0, static_cast<std::size_t>(padded - bytes));
  outstanding_.fetch_add(1);
  const auto done = [self = shared_from_this(), &ring, &queue, slot, bytes](const std::optional<IoError>& failure) {
    ring.release(slot);
    if (failure) {
      self->fail(*failure);
    } else {
      const std::lock_guard lock(self->mutex_);
      self->written_bytes_ += bytes;
    }
    self->one_less(queue);
  };
  try {
    queue.write({&file_, ring.slot(slot), padded, offset, done});
  } catch (...) {
    outstanding_.fetch_sub(1);  // never the last: run() holds one
    throw;
  }
}

void Capture::fail(const IoError& error) {
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    if (!failure_) failure_ = error;
    stopped_ = true;
    if (!started_) captured_ = true;  // run() will find it stopped, and not read a byte
    if (ring_ != nullptr) ring_->wake();
  }
  changed_state_.notify_all();
}

void Capture::cancel() { fail(IoError("write", request_.path, ECANCELED)); }

// The last of copy and writes to end sees to the rest: in the queue, because it waits for the disk.
void Capture::one_less(WriteQueue& queue) noexcept {
  if (outstanding_.fetch_sub(1) != 1) return;
  try {
    queue.later([self = shared_from_this()] { self->finish(); });
  } catch (...) {  // no memory for the job: here, then
    finish();
  }
}

void Capture::finish() noexcept {
  const auto written = Clock::now();
  if (!failed()) {
    try {
      file_.finish();
    } catch (const IoError& error) {
      fail(error);
    } catch (const std::bad_alloc&) {
      fail(IoError("fsync", request_.path, ENOMEM));
    }
  }
  {
    const std::lock_guard lock(mutex_);
    seconds_.write = seconds_between(begin_, written);
    seconds_.fsync = seconds_between(written, Clock::now());
    ended_ = !failure_;  // from here on it cannot be cancelled
  }
  if (failed()) {
    file_.discard();
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_state_.notify_all();
}

std::optional<double> Capture::wait_copied(std::int64_t offset, double timeout) {
  require_own_process();
  std::unique_lock lock(mutex_);
  const auto there = [&] { return captured_ || copied_ >= offset; };
  if (there()) return 0.0;
  const auto begin = Clock::now();
  if (!changed_state_.wait_for(lock, std::chrono::duration<double>(timeout), there)) return std::nullopt;
  return seconds_between(begin, Clock::now());
}

std::optional<double> Capture::wait_group(std::int64_t group, double timeout) {
  const auto found = group_end_.find(group);
  return found == group_end_.end() ? 0.0 : wait_copied(found->second, timeout);
}

std::optional<double> Capture::wait_captured(double timeout) { return wait_copied(total_ + 1, timeout); }

std::optional<double> Capture::wait_written(double timeout) {
  require_own_process();
  std::unique_lock lock(mutex_);
  const auto begin = Clock::now();
  if (!changed_state_.wait_for(lock, std::chrono::duration<double>(timeout), [&] { return ended_; })) return std::nullopt;
  if (failure_) throw IoError(*failure_);
  return seconds_between(begin, Clock::now());
}

bool Capture::captured() const {
  const std::lock_guard lock(mutex_);
  return captured_;
}
bool Capture::written() const {
  const std::lock_guard lock(mutex_);
  return ended_ && !failure_;
}
bool Capture::failed() const {
  const std::lock_guard lock(mutex_);
  return failure_.has_value();
}
std::int64_t Capture::bytes_captured() const {
  const std::lock_guard lock(mutex_);
  return copied_;
}
std::int64_t Capture::bytes_written() const {
  const std::lock_guard lock(mutex_);
  return written_bytes_;
}
std::vector<std::int64_t> Capture::changed() const {
  const std::lock_guard lock(mutex_);
  return changed_;
}
Capture::Seconds Capture::seconds() const {
  const std::lock_guard lock(mutex_);
  return seconds_;
}
IoMode Capture::io() const { return file_.mode(); }
std::string Capture::io_reason() const {
  std::string text;
  for (const std::string& reason : file_.reasons()) text += (text.empty() ? "" : "; ") + reason;
  return text;
}

void Capture::require_written(const char* what) const {
  require(written(), what, " of ", request_.path, " asked for before it is written", failed() ? " (it failed)" : "");
}
const std::string& Capture::header_hash() const {
  require_written("header_hash");
  return header_hash_;
}
const std::vector<Extent>& Capture::extents() const {
  require_written("extents");
  return extents_;
}

std::vector<std::int64_t> Capture::rehash() const {
  require(captured() && !failed(), "rehash of ", request_.path, " asked for before it is captured");
  for (const Span& span : request_.spans)
    require(span.device == kHost, "rehash of ", request_.path, ": a span lies on device ", span.device, ", not on the host");
  std::vector<std::int64_t> changed;
  Hasher hasher(request_.checksum);
  std::size_t first = 0;  // span
  for (const Extent& extent : extents_) {
    hasher.reset();
    while (first < request_.spans.size() && span_begin_[first] + request_.spans[first].bytes <= extent.begin) ++first;
    std::size_t last = first;
    for (; last < request_.spans.size() && span_begin_[last] < extent.end; ++last) {
      const Span& span = request_.spans[last];
      const std::int64_t begin = std::max(extent.begin, span_begin_[last]) - span_begin_[last];
      const std::int64_t end = std::min(extent.end, span_begin_[last] + span.bytes) - span_begin_[last];
      if (end > begin) hasher.update(static_cast<const char*>(span.data) + begin, static_cast<std::size_t>(end - begin));
    }
    if (hasher.hex() == extent.hash) continue;
    for (std::size_t s = first; s < last; ++s)
      if (request_.spans[s].bytes > 0 && (changed.empty() || changed.back() != static_cast<std::int64_t>(s)))
        changed.push_back(static_cast<std::int64_t>(s));
  }
  return changed;
}

}  // namespace hetsp::checkpoint
