#include "hetsp/checkpoint/directory.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "hetsp/base/error.h"
#include "hetsp/checkpoint/corrupt.h"
#include "hetsp/checkpoint/file.h"
#include "hetsp/checkpoint/io_error.h"
#include "hetsp/checkpoint/seal.h"

namespace hetsp::checkpoint {

namespace {

constexpr const char* kManifest = "manifest.json";
constexpr const char* kCommitted = "step-";

void check_component(const char* what, const std::string& value) {
  const bool plain = std::all_of(value.begin(), value.end(), [](char c) { return c > ' ' && c != '/' && c != '\x7f'; });
  require(!value.empty() && value.size() <= 200 && plain && value.front() != '.', what, " is \"", value,
          "\", must be 1 to 200 characters without blanks and \"/\", the first one not \".\"");
}

void succeed(int result, const char* operation, const std::string& path) {
  if (result < 0) throw IoError(operation, path, -result);
}

void write_new(FileSystem& files, const std::string& path, std::string_view bytes, int flags) {
  File file(files, path, O_WRONLY | O_CREAT | flags);
  file.write(bytes.data(), static_cast<std::int64_t>(bytes.size()), 0);
  file.sync();
  file.close();
}

bool starts_with(const std::string& name, std::string_view start) { return name.starts_with(start); }

std::string without_last_slashes(std::string path) {
  require(!path.empty(), "the path of a checkpoint directory is empty");
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

// Whether the call failed because the file system has no RENAME_EXCHANGE.
bool cannot_exchange(int result) { return result == -EINVAL || result == -ENOSYS || result == -EOPNOTSUPP; }

// Makes `path` with its parents. Each new name is made durable in its parent; so are those that others made just before, as
// far as this process may: a directory that vanishes with a power cut takes its checkpoints along.
void make_directories(FileSystem& files, const std::string& path) {
  FileStatus status;
  const int found = files.stat(path + "/.", status);
  if (found == 0) {
    const std::uint64_t device = status.device;
    for (std::string child = path, parent; (parent = parent_of(child)) != child && parent != "."; child = parent) {
      if (files.stat(parent + "/.", status) != 0 || status.device != device) return;
      try {
        sync_directory(files, parent);
      } catch (const IoError&) {
        return;  // not ours to read
      }
    }
    return;
  }
  if (found != -ENOENT) succeed(found, "stat", path);
  const std::string parent = parent_of(path);
  if (parent != path) make_directories(files, parent);
  const int made = files.mkdir(path, 0777);
  if (made != -EEXIST) succeed(made, "mkdir", path);
  sync_directory(files, parent);
}

}  // namespace

// Takes the lock unless it is held or not wanted, and gives back what it took.
class Directory::Hold {
 public:
  explicit Hold(Directory& directory, bool wanted = true)
      : directory_(directory), guard_(directory.mutex_), taken_(wanted && !directory.lock_.held()) {
    if (taken_ && !directory.lock_.acquire(false))
      throw Busy(directory.path_ + " is in use by another process, which holds its .lock");
  }
  ~Hold() {
    if (taken_) directory_.lock_.release();
  }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

 private:
  Directory& directory_;
  std::lock_guard<std::recursive_mutex> guard_;
  bool taken_;
};

Directory::Directory(FileSystem& files, const std::string& path)
    : files_(files), path_(without_last_slashes(path)), lock_(files, path_ + "/.lock") {
  make_directories(files_, path_);
}

bool Directory::lock(bool wait) {
  const std::lock_guard guard(mutex_);
  return lock_.acquire(wait);
}

void Directory::unlock() {
  const std::lock_guard guard(mutex_);
  lock_.release();
}

bool Directory::locked() const {
  const std::lock_guard guard(mutex_);
  return lock_.held();
}

bool Directory::exists(const std::string& path) const {
  FileStatus status;
  const int found = files_.stat(path, status);
  if (found != -ENOENT) succeed(found, "stat", path);
  return found == 0;
}

std::string Directory::begin(const std::string& uid) {
  check_component("uid", uid);
  const std::lock_guard guard(mutex_);
  const int made = files_.mkdir(part(uid), 0777);
  if (made != -EEXIST) succeed(made, "mkdir", part(uid));
  // Saves whose end this rank was not told of: their directories have another name by now.
  for (auto begun = begun_.begin(); begun != begun_.end();)
    begun = exists(part(begun->first)) ? std::next(begun) : begun_.erase(begun);
  if (!begun_.contains(uid)) begun_.emplace(uid, File(files_, part(uid), O_RDONLY | O_DIRECTORY));
  return part(uid);  // its entry in DIR need not be durable before its name is
}

void Directory::write(const std::string& uid, const std::string& file, std::string_view bytes) {
  check_component("uid", uid);
  check_component("file", file);
  const std::string path = part(uid) + "/" + file, fresh = part(uid) + "/.new-" + file;
  if (exists(path)) throw IoError("open", path, EEXIST);
  write_new(files_, fresh, bytes, O_EXCL);
  require_same(uid);  // in between: had it been another directory at the write, or were it one at the rename, either would fail
  succeed(files_.rename(fresh, path), "rename", path);
}

void Directory::require_same(const std::string& uid) {
  const std::lock_guard guard(mutex_);
  const auto begun = begun_.find(uid);
  if (begun == begun_.end()) return;
  FileStatus now;
  succeed(files_.stat(part(uid), now), "stat", part(uid));
  if (now.inode != begun->second.status().inode) throw IoError("stat", part(uid), ESTALE);
}

std::string Directory::publish(const std::string& uid, const std::string& name, std::string_view manifest,
                               const PublishOptions& options, const OnPhase& on_phase) {
  check_component("uid", uid);
  check_component("name", name);
  const std::string sealed = seal(manifest, options.checksum);
  const Hold hold(*this, options.lock);
  const auto phase = [&](const char* reached) {
    if (on_phase) on_phase(reached);
  };

  std::vector<std::string> entries;
  succeed(files_.list(part(uid), entries), "list", part(uid));
  for (const std::string& entry : entries)
    if (starts_with(entry, "vote-") || starts_with(entry, ".new-"))
      succeed(files_.unlink(part(uid) + "/" + entry), "unlink", part(uid) + "/" + entry);
  write_new(files_, part(uid) + "/" + kManifest, sealed, O_EXCL);
  require_same(uid);
  phase("manifest");
  sync_directory(files_, part(uid));
  phase("synced");
  move_into_place(uid, name, options.replace);
  phase("renamed");
  try {
    sync_directory(files_, path_);
  } catch (const IoError&) {
    // Nobody knows whether the name will be there tomorrow. It is reported as failed, so it must not pass for committed today.
    move_back(uid, name, options.replace);
    throw;
  }
  begun_.erase(uid);
  published_ = name;
  phase("committed");
  try {
    if (options.replace) {
      remove_tree(part(uid));  // what was exchanged for
      remove_tree(at(".old-" + name));
    }
    if (options.latest) update_latest(name, options.checksum);
  } catch (const IoError& error) {
    return error.what();
  }
  phase("latest");
  return {};
}

void Directory::move_into_place(const std::string& uid, const std::string& name, bool replace) {
  const std::string from = part(uid), to = at(name);
  if (!replace || !exists(to)) return succeed(files_.rename(from, to), "rename", to);
  const int exchanged = files_.exchange(from, to);
  if (!cannot_exchange(exchanged)) return succeed(exchanged, "exchange", to);
  const std::string old = at(".old-" + name);
  remove_tree(old);
  succeed(files_.rename(to, old), "rename", old);
  const int moved = files_.rename(from, to);
  if (moved < 0) files_.rename(old, to);
  succeed(moved, "rename", to);
}

// As far as it can be done: the file system is failing, and what is left in either place is whole.
void Directory::move_back(const std::string& uid, const std::string& name, bool replace) {
  const std::string from = at(name), to = part(uid), old = at(".old-" + name);
  if (replace && exists(to)) {
    files_.exchange(from, to);
  } else if (files_.rename(from, to) == 0 && replace && exists(old)) {
    files_.rename(old, from);
  }
}

void Directory::update_latest(const std::string& name, Checksum checksum) {
  write_new(files_, at("latest.new"), seal(name, checksum), O_TRUNC);
  succeed(files_.rename(at("latest.new"), at("latest")), "rename", at("latest"));
  sync_directory(files_, path_);
}

void Directory::discard(const std::string& uid) {
  check_component("uid", uid);
  const std::lock_guard guard(mutex_);
  remove_part(uid);
  begun_.erase(uid);
}

// Renamed first: a rank that is late finds its directory gone, never half empty.
void Directory::remove_part(const std::string& uid) {
  const std::string trash = at(".trash-" + uid);
  remove_tree(trash);
  const int renamed = files_.rename(part(uid), trash);
  if (renamed == -ENOENT) return;
  succeed(renamed, "rename", trash);
  remove_tree(trash);
}

std::vector<std::string> Directory::prune(const std::vector<std::string>& names) {
  for (const std::string& name : names) check_component("name", name);
  const Hold hold(*this);
  const std::string newest = latest().value_or("");
  require(names.empty() || !newest.empty() || !published_.empty(), "prune: neither does ", at("latest"),
          " name a committed checkpoint nor was one published here, so the newest might be among those to remove");
  std::vector<std::string> removed;
  for (const std::string& name : names) {
    if (name == newest || name == published_ || !exists(at(name))) continue;
    remove_tree(at(".trash-" + name));
    succeed(files_.rename(at(name), at(".trash-" + name)), "rename", at(name));
    removed.push_back(name);
  }
  if (removed.empty()) return removed;
  sync_directory(files_, path_);  // else a power cut could bring the names back over files that are gone
  for (const std::string& name : removed) remove_tree(at(".trash-" + name));
  return removed;
}

std::vector<std::string> Directory::clean() {
  const Hold hold(*this);
  std::vector<std::string> entries, removed;
  if (!lock_.refusal().empty()) return removed;  // nothing keeps another writer away: what looks dead may be in progress
  succeed(files_.list(path_, entries), "list", path_);
  bool put_back = false;
  for (const std::string& entry : entries) {
    if (!starts_with(entry, ".old-") || exists(at(entry.substr(5)))) continue;
    succeed(files_.rename(at(entry), at(entry.substr(5))), "rename", at(entry));
    put_back = true;
  }
  if (put_back) sync_directory(files_, path_);
  for (const std::string& entry : entries) {
    const bool dead = (starts_with(entry, ".part-") && !begun_.contains(entry.substr(6))) || starts_with(entry, ".trash-") ||
                      starts_with(entry, ".old-") || entry == "latest.new";
    if (!dead || !exists(at(entry))) continue;
    if (starts_with(entry, ".part-"))
      remove_part(entry.substr(6));
    else
      remove_tree(at(entry));
    removed.push_back(entry);
  }
  return removed;
}

std::vector<std::string> Directory::names() const {
  std::vector<std::string> entries, found;
  succeed(files_.list(path_, entries), "list", path_);
  for (const std::string& entry : entries) {
    FileStatus status;
    if (starts_with(entry, kCommitted) && files_.stat(at(entry), status) == 0 && status.directory) found.push_back(entry);
  }
  return found;
}

std::optional<std::string> Directory::latest() const {
  try {
    std::string name = read_sealed(files_, at("latest"));
    check_component("latest", name);
    FileStatus status;
    if (files_.stat(at(name), status) == 0 && status.directory) return name;
  } catch (const IoError&) {
    // not there or not readable: no hint
  } catch (const Corrupt&) {
    // garbage: no hint
  } catch (const InvalidArgument&) {
    // whole, and not a name
  }
  return std::nullopt;
}

std::string Directory::find(const std::string& name) const {
  check_component("name", name);
  return exists(at(name)) || !exists(at(".old-" + name)) ? at(name) : at(".old-" + name);
}

void Directory::remove_tree(const std::string& path) {
  FileStatus status;
  const int found = files_.stat(path, status);
  if (found == -ENOENT) return;
  succeed(found, "stat", path);
  const auto gone = [](int result) { return result == 0 || result == -ENOENT; };
  if (!status.directory) {
    const int unlinked = files_.unlink(path);
    if (!gone(unlinked)) throw IoError("unlink", path, -unlinked);
    return;
  }
  std::vector<std::string> entries;
  const int listed = files_.list(path, entries);
  if (!gone(listed)) throw IoError("list", path, -listed);
  for (const std::string& entry : entries) remove_tree(path + "/" + entry);
  const int removed = files_.rmdir(path);
  if (!gone(removed)) throw IoError("rmdir", path, -removed);
}

}  // namespace hetsp::checkpoint
