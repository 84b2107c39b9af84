// A disk in memory that can lose power after any call, in every way that a file system may take it.
//
// Held back until it is synced, and lost or kept at a cut, each for itself:
//   bytes of a file    fsync(file) makes them durable. Not synced, the file has its old bytes, its new ones, zeros of the new
//                      length, or half of the new ones and zeros
//   a changed name     fsync(directory) makes all names of that directory durable. Not synced, each create, mkdir, unlink,
//                      rmdir, rename and exchange has happened or has not, whatever became of those before it; a rename takes
//                      the old name away and sets the new one at one instant
// That is weaker than any journal, which keeps changes in order: what survives here survives there.
//
//   PowerCutDisk disk;
//   disk.on_change = [&] { disk.each_cut(random, 500, [&](PowerCutDisk& after) { ... }); };    // after every call that changes
//   disk.swallow_fsync(3);                                                                     // the third one does nothing
#pragma once

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "hetsp/checkpoint/file_system.h"

namespace hetsp::checkpoint {

class PowerCutDisk final : public FileSystem {
 public:
  std::function<void()> on_change;
  bool can_exchange = true;

  void swallow_fsync(std::int64_t nth) { swallowed_ = nth; }
  std::vector<std::string> synced() {  // paths of all fsyncs so far
    const std::lock_guard lock(mutex_);
    return synced_;
  }

  // Calls check(disk) with what a power cut now may leave: all of it if there are at most `most` ways, else a random choice
  // of so many, with everything lost and everything kept among them.
  void each_cut(std::mt19937& random, std::int64_t most, const std::function<void(PowerCutDisk&)>& check) {
    std::vector<std::pair<Inode*, int>> choices;  // (inode, ways)
    double ways = 1;
    std::set<Inode*> seen;
    gather(root_.get(), seen, choices, ways);
    const bool all = ways <= static_cast<double>(most);
    std::vector<int> digits(choices.size(), 0);
    for (std::int64_t k = 0; k < (all ? static_cast<std::int64_t>(ways) : most); ++k) {
      std::int64_t rest = k;
      for (std::size_t i = 0; i < choices.size(); ++i) {
        const int radix = choices[i].second;
        digits[i] = static_cast<int>(all      ? rest % radix
                                     : k == 0 ? 0
                                     : k == 1 ? radix - 1
                                              : random() % static_cast<unsigned>(radix));
        rest /= radix;
      }
      PowerCutDisk after;
      after.can_exchange = can_exchange;
      std::map<const Inode*, int> chosen;
      for (std::size_t i = 0; i < choices.size(); ++i) chosen[choices[i].first] = digits[i];
      std::map<const Inode*, std::shared_ptr<Inode>> copies;
      after.root_ = survive(*root_, chosen, copies, after);
      check(after);
    }
  }

  // Everything on it, as text; two disks that look alike have the same.
  std::string picture() const { return picture(*root_, "/"); }

  int open(const std::string& path, int flags, unsigned /*mode*/) override {
    int fd = 0;
    {
      const std::lock_guard lock(mutex_);
      auto [folder, name] = parent(path);
      if (!folder) return -ENOENT;
      std::shared_ptr<Inode> inode = name.empty() ? folder : find(*folder, name);
      if (!inode && !(flags & O_CREAT)) return -ENOENT;
      if (inode && (flags & O_CREAT) && (flags & O_EXCL)) return -EEXIST;
      if (inode && inode->directory && (flags & O_ACCMODE) != O_RDONLY) return -EISDIR;
      if (inode && !inode->directory && (flags & O_DIRECTORY)) return -ENOTDIR;
      if (!inode) {
        inode = make(false);
        change(*folder, {{name, inode}});
      } else if (flags & O_TRUNC) {
        inode->content.clear();
        inode->dirty = true;
      }
      fd = next_++;
      open_[fd] = {inode, path};
    }
    return changed(fd);
  }
  int close(int fd) override {
    const std::lock_guard lock(mutex_);
    const auto found = open_.find(fd);
    if (found == open_.end()) return -EBADF;
    if (found->second.inode->locked_by == fd) found->second.inode->locked_by = -1;
    open_.erase(found);
    return 0;
  }
  std::int64_t pwrite(int fd, const void* data, std::int64_t bytes, std::int64_t offset) override {
    {
      const std::lock_guard lock(mutex_);
      Inode& inode = *open_.at(fd).inode;
      if (static_cast<std::int64_t>(inode.content.size()) < offset + bytes)
        inode.content.resize(static_cast<std::size_t>(offset + bytes));
      std::memcpy(inode.content.data() + offset, data, static_cast<std::size_t>(bytes));
      inode.dirty = true;
    }
    return changed(bytes);
  }
  std::int64_t pread(int fd, void* data, std::int64_t bytes, std::int64_t offset) override {
    const std::lock_guard lock(mutex_);
    const std::string& content = open_.at(fd).inode->content;
    const std::int64_t there = std::max<std::int64_t>(0, static_cast<std::int64_t>(content.size()) - offset);
    const std::int64_t count = std::min(bytes, there);
    if (count > 0) std::memcpy(data, content.data() + offset, static_cast<std::size_t>(count));
    return count;
  }
  int fallocate(int fd, std::int64_t bytes) override {
    {
      const std::lock_guard lock(mutex_);
      Inode& inode = *open_.at(fd).inode;
      if (static_cast<std::int64_t>(inode.content.size()) < bytes) inode.content.resize(static_cast<std::size_t>(bytes));
      inode.dirty = true;
    }
    return changed(0);
  }
  int ftruncate(int fd, std::int64_t bytes) override {
    {
      const std::lock_guard lock(mutex_);
      open_.at(fd).inode->content.resize(static_cast<std::size_t>(bytes));
      open_.at(fd).inode->dirty = true;
    }
    return changed(0);
  }
  int fsync(int fd) override {
    {
      const std::lock_guard lock(mutex_);
      synced_.push_back(open_.at(fd).path);
      Inode& inode = *open_.at(fd).inode;
      if (static_cast<std::int64_t>(synced_.size()) != swallowed_) {
        inode.durable = inode.content;
        inode.dirty = false;
        inode.durable_entries = inode.entries;
        inode.pending.clear();
      }
    }
    return changed(0);
  }
  int fstat(int fd, FileStatus& status) override {
    const std::lock_guard lock(mutex_);
    status = status_of(*open_.at(fd).inode);
    return 0;
  }
  int stat(const std::string& path, FileStatus& status) override {
    const std::lock_guard lock(mutex_);
    const auto inode = find(path);
    if (!inode) return -ENOENT;
    status = status_of(*inode);
    return 0;
  }
  int mkdir(const std::string& path, unsigned /*mode*/) override {
    {
      const std::lock_guard lock(mutex_);
      auto [folder, name] = parent(path);
      if (!folder) return -ENOENT;
      if (name.empty() || find(*folder, name)) return -EEXIST;
      change(*folder, {{name, make(true)}});
    }
    return changed(0);
  }
  int rmdir(const std::string& path) override { return remove(path, true); }
  int unlink(const std::string& path) override { return remove(path, false); }
  int rename(const std::string& from, const std::string& to) override {
    {
      const std::lock_guard lock(mutex_);
      auto [folder, name] = parent(from);
      auto [target, new_name] = parent(to);
      if (!folder || !target || folder != target) return -EXDEV;  // within one directory: all that the protocol does
      const auto inode = find(*folder, name), old = find(*folder, new_name);
      if (!inode) return -ENOENT;
      if (old && old->directory && !old->entries.empty()) return -ENOTEMPTY;
      change(*folder, {{name, nullptr}, {new_name, inode}});
    }
    return changed(0);
  }
  int exchange(const std::string& from, const std::string& to) override {
    if (!can_exchange) return -EINVAL;
    {
      const std::lock_guard lock(mutex_);
      auto [folder, name] = parent(from);
      auto [target, new_name] = parent(to);
      if (!folder || !target || folder != target) return -EXDEV;
      const auto a = find(*folder, name), b = find(*folder, new_name);
      if (!a || !b) return -ENOENT;
      change(*folder, {{name, b}, {new_name, a}});
    }
    return changed(0);
  }
  int list(const std::string& path, std::vector<std::string>& names) override {
    const std::lock_guard lock(mutex_);
    const auto inode = find(path);
    if (!inode) return -ENOENT;
    if (!inode->directory) return -ENOTDIR;
    names.clear();
    for (const auto& [name, child] : inode->entries) names.push_back(name);
    return 0;
  }
  int lock(int fd, bool /*wait*/) override {
    const std::lock_guard lock(mutex_);
    int& holder = open_.at(fd).inode->locked_by;
    if (holder >= 0 && holder != fd) return -EWOULDBLOCK;
    holder = fd;
    return 0;
  }
  int unlock(int fd) override {
    const std::lock_guard lock(mutex_);
    open_.at(fd).inode->locked_by = -1;
    return 0;
  }

 private:
  struct Inode;
  using Entries = std::map<std::string, std::shared_ptr<Inode>>;
  using Change = std::vector<std::pair<std::string, std::shared_ptr<Inode>>>;  // names set at one instant; null: removed
  struct Inode {
    bool directory = false;
    std::uint64_t number = 0;
    std::string content, durable;
    bool dirty = false;
    Entries entries, durable_entries;
    std::vector<Change> pending;  // since the last fsync
    int locked_by = -1;
  };
  struct Open {
    std::shared_ptr<Inode> inode;
    std::string path;
  };

  std::shared_ptr<Inode> make(bool directory) {
    auto inode = std::make_shared<Inode>();
    inode->directory = directory;
    inode->number = ++numbers_;
    return inode;
  }
  static void apply(Entries& entries, const Change& change) {
    for (const auto& [name, inode] : change) {
      entries.erase(name);
      if (inode) entries[name] = inode;
    }
  }
  static void change(Inode& folder, Change change) {
    apply(folder.entries, change);
    folder.pending.push_back(std::move(change));
  }
  static std::shared_ptr<Inode> find(const Inode& folder, const std::string& name) {
    const auto found = folder.entries.find(name);
    return found == folder.entries.end() ? nullptr : found->second;
  }
  std::shared_ptr<Inode> find(const std::string& path) const {
    auto [folder, name] = parent(path);
    return !folder || name.empty() ? folder : find(*folder, name);
  }
  // The directory that holds the last component, and that; "/" and "a/." are the directory and nothing.
  std::pair<std::shared_ptr<Inode>, std::string> parent(const std::string& path) const {
    std::vector<std::string> parts;
    for (std::size_t at = 0; at < path.size();) {
      const std::size_t end = std::min(path.find('/', at), path.size());
      if (end > at && path.substr(at, end - at) != ".") parts.push_back(path.substr(at, end - at));
      at = end + 1;
    }
    std::shared_ptr<Inode> folder = root_;
    for (std::size_t i = 0; i + 1 < parts.size() && folder; ++i) folder = find(*folder, parts[i]);
    if (folder && !folder->directory) folder = nullptr;
    return {folder, parts.empty() ? "" : parts.back()};
  }
  static FileStatus status_of(const Inode& inode) {
    return {static_cast<std::int64_t>(inode.content.size()), inode.directory, 1, inode.number};
  }
  int remove(const std::string& path, bool directory) {
    {
      const std::lock_guard lock(mutex_);
      auto [folder, name] = parent(path);
      const auto inode = folder ? find(*folder, name) : nullptr;
      if (!inode) return -ENOENT;
      if (inode->directory != directory) return directory ? -ENOTDIR : -EISDIR;
      if (!inode->entries.empty()) return -ENOTEMPTY;
      change(*folder, {{name, nullptr}});
    }
    return changed(0);
  }
  template <class Result>
  Result changed(Result result) const {
    if (on_change) on_change();
    return result;
  }

  // Inodes that a cut may leave in several ways: anything that any subset of pending changes can reach.
  static void gather(Inode* inode, std::set<Inode*>& seen, std::vector<std::pair<Inode*, int>>& choices, double& ways) {
    if (!seen.insert(inode).second) return;
    const int mine = inode->directory ? 1 << std::min<std::size_t>(inode->pending.size(), 16) : inode->dirty ? 4 : 1;
    if (mine > 1) choices.emplace_back(inode, mine);
    ways *= mine;
    for (const auto& [name, child] : inode->durable_entries) gather(child.get(), seen, choices, ways);
    for (const Change& change : inode->pending)
      for (const auto& [name, child] : change)
        if (child) gather(child.get(), seen, choices, ways);
  }
  static std::shared_ptr<Inode> survive(const Inode& inode, const std::map<const Inode*, int>& chosen,
                                        std::map<const Inode*, std::shared_ptr<Inode>>& copies, PowerCutDisk& after) {
    auto& copy = copies[&inode];
    if (copy) return copy;
    copy = after.make(inode.directory);
    const auto result = copy;
    const auto found = chosen.find(&inode);
    const int way = found == chosen.end() ? 0 : found->second;
    if (!inode.directory) {
      result->content = way == 0 ? inode.durable : inode.content;
      if (way == 1) std::fill(result->content.begin(), result->content.end(), '\0');
      if (way == 2)
        std::fill(result->content.begin() + static_cast<std::ptrdiff_t>(result->content.size() / 2), result->content.end(),
                  '\0');
      result->durable = result->content;
      return result;
    }
    Entries entries = inode.durable_entries;
    for (std::size_t i = 0; i < inode.pending.size(); ++i)
      if (way >> std::min<std::size_t>(i, 15) & 1) apply(entries, inode.pending[i]);
    for (const auto& [name, child] : entries) result->entries[name] = survive(*child, chosen, copies, after);
    result->durable_entries = result->entries;
    return result;
  }
  static std::string picture(const Inode& inode, const std::string& path) {
    std::string text = path;
    if (!inode.directory) return text + "=" + inode.content + "\n";
    text += '\n';
    for (const auto& [name, child] : inode.entries) text += picture(*child, path + name + "/");
    return text;
  }

  std::mutex mutex_;
  std::uint64_t numbers_ = 0;
  std::shared_ptr<Inode> root_ = make(true);
  std::map<int, Open> open_;
  int next_ = 1 << 20;  // descriptors that are none of the process
  std::vector<std::string> synced_;
  std::int64_t swallowed_ = -1;
};

}  // namespace hetsp::checkpoint
