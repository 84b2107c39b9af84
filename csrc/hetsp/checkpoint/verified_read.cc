#include "hetsp/checkpoint/verified_read.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <new>
#include <tuple>
#include <utility>

#include "hetsp/base/error.h"
#include "hetsp/base/thread_pool.h"
#include "hetsp/checkpoint/available_memory.h"
#include "hetsp/checkpoint/io_error.h"
#include "hetsp/checkpoint/source_file.h"
#include "hetsp/checkpoint/undo_log.h"
#include "hetsp/staging/ring.h"
#include "hetsp/staging/stream_copy.h"

namespace hetsp::checkpoint {

namespace {

constexpr int kMostWorkers = 4;
constexpr std::int64_t kReserve = std::int64_t{256} << 20;  // bytes left to others when old bytes are kept

// The longest read, up to `most`: few small files need little memory, and touching it takes time.
std::int64_t slot_for(const ReadPlan& plan, std::int64_t most) {
  std::int64_t longest = kPage;
  for (const Read& read : plan.reads) longest = std::max(longest, read.end - read.begin);
  return std::min(longest, most);
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Reads [begin, end) of a plan.
struct Range {
  std::size_t begin, end;
};

// Failures that say nothing about the file.
bool is_ours(int code) { return code == EMFILE || code == ENFILE || code == ENOMEM; }

}  // namespace

// One run over a plan.
class VerifiedRead {
 public:
  enum class Way { copy, keep_small, keep_huge, check };  // keep: old bytes, in small or huge pages

  VerifiedRead(FileSystem& files, const std::vector<FileSpec>& specs, const ReadPlan& plan, const ReadOptions& options,
               Restoration& result)
      : files_(files),
        specs_(specs),
        plan_(plan),
        options_(options),
        result_(result),
        workers_(static_cast<int>(std::clamp<std::int64_t>(
            std::min(options.ring_bytes / options.slot_bytes, static_cast<std::int64_t>(plan.reads.size())), 1, kMostWorkers))),
        pool_(workers_),
        slot_bytes_(slot_for(plan, options.slot_bytes)),
        ring_(workers_ * slot_bytes_, slot_bytes_),
        sources_(specs.size()),
        left_(specs.size(), 0),
        said_(specs.size(), false) {}

  // Reads and checks everything; with Way::copy what is good is copied.
  void run(Way way) {
    pass({{0, plan_.reads.size()}}, way);
    sort_faults();
  }

  // Files of which nothing is read still have a length.
  void look_at_the_rest() {
    for (std::size_t file = 0; file < specs_.size(); ++file)
      if (!said_[file]) {
        (void)open(static_cast<std::int32_t>(file));
        sources_[file].reset();
      }
    sort_faults();
  }

  // Reads everything with a way back, by the way that proves fastest; returns the ranges that were checked only.
  std::vector<Range> run_with_undo(std::unique_ptr<UndoLog> log) {
    result_.log_ = std::move(log);
    const std::size_t all = plan_.reads.size(), workers = static_cast<std::size_t>(workers_);
    const std::size_t window = options_.window ? static_cast<std::size_t>(std::max<std::int64_t>(1, *options_.window))
                                               : std::clamp(all / 64, workers, 8 * workers);
    std::vector<Range> checked;
    Way way = result_.log_ ? Way::keep_small : Way::check;
    std::size_t at = 0, portion = all;
    double checking = 0;  // bytes per second, both readings counted
    count_left({{0, all}});
    if (result_.log_ && all >= 8 * window) {
      double best = 0;
      for (const Way trial : {Way::keep_small, Way::keep_huge, Way::check}) {
        const double rate = timed(trial, {at, at + window}, checked) / (trial == Way::check ? 2 : 1);
        at += window;
        if (rate > best) best = rate, way = trial;
        if (trial == Way::check) checking = rate;
      }
      portion = 2 * window;
    }
    while (at < all) {  // memory that comes fast may come to an end
      const std::size_t end = way == Way::check ? all : std::min(all, at + portion);
      if (timed(way, {at, end}, checked) < checking) way = Way::check;
      at = end;
    }
    result_.undo = way == Way::check ? "checked first" : "kept";
    sort_faults();
    return checked;
  }

  // Reads and checks these ranges again, and copies them.
  void copy_again(const std::vector<Range>& ranges) {
    pass(ranges, Way::copy);
    sort_faults();
  }

 private:
  void count_left(const std::vector<Range>& ranges) {
    left_.assign(specs_.size(), 0);
    said_.assign(specs_.size(), false);
    for (const Range& range : ranges)
      for (std::size_t i = range.begin; i < range.end; ++i) ++left_[plan_.reads[i].file];
  }

  void pass(const std::vector<Range>& ranges, Way way) {
    count_left(ranges);
    for (const Range& range : ranges) each_read(range, way);
  }

  // Bytes per second.
  double timed(Way way, Range range, std::vector<Range>& checked) {
    if (result_.log_ && way != Way::check) result_.log_->use_huge_pages(way == Way::keep_huge);
    const double begin = now();
    each_read(range, way);
    std::int64_t bytes = 0;
    for (std::size_t i = range.begin; i < range.end; ++i) bytes += plan_.reads[i].end - plan_.reads[i].begin;
    if (way == Way::check) checked.push_back(range);
    return static_cast<double>(bytes) / std::max(1e-9, now() - begin);
  }

  void each_read(Range range, Way way) {
    std::vector<char> copied(range.end - range.begin, 0);
    const auto note = [&] {
      for (std::size_t i = 0; i < copied.size(); ++i)
        for (const Part& part : plan_.reads[range.begin + i].parts) {
          if (!copied[i]) continue;
          (way == Way::copy ? result_.lost_ : result_.kept) += part.bytes;
          if (way != Way::copy) result_.kept_parts_.push_back(part);
        }
    };
    try {
      for_each_item(pool_, static_cast<std::int64_t>(copied.size()), [&](std::int64_t item, int worker) {
        const Read& read = plan_.reads[range.begin + static_cast<std::size_t>(item)];
        if (const auto source = open(read.file)) {
          try {
            char* const slot = ring_.slot(worker);
            const bool good = check(read, *source, slot);
            if (good && way != Way::check && !faulty_) {
              deliver(read, slot, way);
              copied[item] = 1;
            }
          } catch (const IoError& error) {
            if (is_ours(error.code())) throw;
            fault({read.file, read.extents.front().begin, read.extents.back().end, error.what()});
          }
        }
        done_with(read.file);
      });
    } catch (...) {  // nobody will have the Restoration
      note();
      result_.put_back();
      throw;
    }
    note();
  }

  void sort_faults() {
    std::sort(result_.faults.begin(), result_.faults.end(), [](const Fault& a, const Fault& b) {
      return std::tie(a.file, a.begin, a.end, a.what) < std::tie(b.file, b.begin, b.end, b.what);
    });
  }

  void fault(Fault fault) {
    const std::lock_guard lock(mutex_);
    faulty_ = true;
    result_.faults.push_back(std::move(fault));
  }

  // The file, opened by whoever needs it first; null where it does not open. What is wrong with it as a whole is said once.
  std::shared_ptr<SourceFile> open(std::int32_t file) {
    const std::lock_guard lock(opening_);
    auto& source = sources_[file];
    if (source || said_[file]) return source;
    const FileSpec& spec = specs_[file];
    try {
      source = std::make_shared<SourceFile>(files_, spec.path, options_.direct);
      if (source->bytes() != spec.size)
        fault({file, std::min(spec.size, source->bytes()), spec.size,
               concat("is ", source->bytes(), " bytes long, must be ", spec.size)});
    } catch (const IoError& error) {
      if (is_ours(error.code())) throw;
      fault({file, 0, spec.size, error.code() == ENOENT ? "is missing" : error.what()});
    }
    said_[file] = true;
    return source;
  }

  void done_with(std::int32_t file) {
    const std::lock_guard lock(opening_);
    if (--left_[file] > 0 || !sources_[file]) return;
    if (options_.direct && result_.refusal.empty()) result_.refusal = sources_[file]->refusal();
    sources_[file].reset();
  }

  // Whether every extent of the read is good; those that are not become faults. The slot then holds the read from its begin.
  bool check(const Read& read, SourceFile& source, char* slot) {
    if (read.end - read.begin > slot_bytes_) return check_long(read, source, slot);
    const std::int64_t there = read.begin + source.read(slot, read.end - read.begin, read.begin);
    bool good = true;
    for (const Extent& extent : read.extents) {
      Hasher hasher(options_.checksum);
      const std::int64_t end = std::min(extent.end, there);
      if (end > extent.begin) hasher.update(slot + (extent.begin - read.begin), static_cast<std::size_t>(end - extent.begin));
      good &= judge(read.file, source, extent, end, hasher.hex(), slot + (extent.begin - read.begin));
    }
    return good;
  }

  bool check_long(const Read& read, SourceFile& source, char* slot) {
    const Extent& extent = read.extents.front();
    Hasher hasher(options_.checksum);
    std::int64_t at = read.begin;
    while (at < extent.end) {
      const std::int64_t count = std::min(slot_bytes_, read.end - at);
      const std::int64_t got = source.read(slot, count, at);
      const std::int64_t from = std::max(at, extent.begin), to = std::min(at + got, extent.end);
      if (to > from) hasher.update(slot + (from - at), static_cast<std::size_t>(to - from));
      at += got;
      if (got < count) break;
    }
    return judge(read.file, source, extent, std::min(at, extent.end), hasher.hex(), nullptr);
  }

  // `end`: where the bytes of the extent end that could be read, and `found` their checksum; they lie at `bytes` unless null.
  bool judge(std::int32_t file, const SourceFile& source, const Extent& extent, std::int64_t end, const std::string& found,
             const char* bytes) {
    if (end == extent.end && found == extent.hash) return true;
    std::string what;
    if (end < extent.end) {
      what = concat("the file ends at ", std::min(end, source.bytes()), ", inside or before these bytes");
    } else {
      const bool hole = bytes && std::all_of(bytes, bytes + (extent.end - extent.begin), [](char c) { return c == 0; });
      what = concat(name(options_.checksum), " is ", found, ", must be ", extent.hash, hole ? "; all bytes are 0" : "");
    }
    fault({file, extent.begin, extent.end, what});
    return false;
  }

  void deliver(const Read& read, const char* slot, Way way) {
    for (const Part& part : read.parts) {
      if (way != Way::copy) result_.log_->keep(part);
      staging::stream_copy(part.destination, slot + (part.offset - read.begin), static_cast<std::size_t>(part.bytes));
    }
  }

  FileSystem& files_;
  const std::vector<FileSpec>& specs_;
  const ReadPlan& plan_;
  const ReadOptions& options_;
  Restoration& result_;
  int workers_;
  ThreadPool pool_;
  std::int64_t slot_bytes_;
  staging::Ring ring_;
  std::atomic<bool> faulty_{false};
  std::mutex mutex_;    // over the faults
  std::mutex opening_;  // over the three below
  std::vector<std::shared_ptr<SourceFile>> sources_;  // open from their first read to their last
  std::vector<std::int64_t> left_;                    // reads to come
  std::vector<bool> said_;                            // what is wrong with the file as a whole
};

namespace {

void check_options(const ReadOptions& options) {
  require(available(options.checksum), "these files are checked by ", name(options.checksum),
          ", which this build cannot compute");
  require(options.ring_bytes >= 0, "ring_bytes is ", options.ring_bytes, ", must be at least 0");
}

// Memory for the old bytes; null where there is not enough of it.
std::unique_ptr<UndoLog> room_for(std::int64_t bytes, const ReadOptions& options) {
  if (bytes > options.free_memory.value_or(available_memory() - kReserve)) return nullptr;
  try {
    return std::make_unique<UndoLog>(bytes);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

}  // namespace

struct Restoration::Pending {
  FileSystem& files;
  std::vector<FileSpec> specs;
  ReadPlan plan;
  ReadOptions options;
  std::vector<Range> checked;
};

Restoration::Restoration() = default;
Restoration::~Restoration() = default;
Restoration::Restoration(Restoration&&) noexcept = default;
Restoration& Restoration::operator=(Restoration&&) noexcept = default;

void Restoration::put_back() const {
  for (const Part& part : kept_parts_) log_->put_back(part);
}

void Restoration::rollback() {
  put_back();
  forget();
  pending_.reset();
  const std::int64_t lost = std::exchange(lost_, 0);
  require(lost == 0, "rollback: ", lost, " bytes were written over old ones that had not been kept (undo: ", undo, ")");
}

void Restoration::forget() {
  kept_parts_.clear();
  kept_parts_.shrink_to_fit();
  log_.reset();
}

void Restoration::finish() {
  if (!pending_) return;
  require(faults.empty(), "finish: there are ", faults.size(), " faults, so nothing more may be copied");
  const double begin = now();
  const std::unique_ptr<Pending> pending = std::move(pending_);
  VerifiedRead(pending->files, pending->specs, pending->plan, pending->options, *this).copy_again(pending->checked);
  for (Fault& fault : faults) fault.what += "; it was right a moment ago";
  seconds += now() - begin;
}

Restoration verified_read(FileSystem& files, const std::vector<FileSpec>& specs, const std::vector<Piece>& pieces,
                          const ReadOptions& options) {
  check_options(options);
  const double begin = now();
  ReadPlan plan = plan_reads(specs, pieces, options.slot_bytes);
  Restoration result;
  result.bytes = plan.bytes;
  result.undo = "none";
  std::vector<Range> checked;
  {
    VerifiedRead read(files, specs, plan, options, result);
    if (!options.undo || plan.bytes == 0)
      read.run(VerifiedRead::Way::copy);
    else
      checked = read.run_with_undo(room_for(plan.bytes, options));
  }
  result.seconds = now() - begin;
  if (!checked.empty()) {
    result.pending_ = std::make_unique<Restoration::Pending>(
        Restoration::Pending{files, specs, std::move(plan), options, std::move(checked)});
    if (!options.hold && result.faults.empty()) result.finish();
  }
  return result;
}

std::vector<Fault> verify_files(FileSystem& files, const std::vector<FileSpec>& specs, const ReadOptions& options) {
  check_options(options);
  const ReadPlan plan = plan_reads(specs, {}, options.slot_bytes, true);
  Restoration result;
  VerifiedRead read(files, specs, plan, options, result);
  read.run(VerifiedRead::Way::check);
  read.look_at_the_rest();
  return std::move(result.faults);
}

}  // namespace hetsp::checkpoint
