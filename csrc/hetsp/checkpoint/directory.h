// One directory of checkpoints, and the protocol by which a checkpoint comes to be in it or does not.
//
//   DIR/latest                    the name of the newest one: a hint, never the truth
//   DIR/.lock                     whoever holds it may publish, prune and clean
//   DIR/step-0000000120-<uid>/    a committed checkpoint: manifest.json, sealed, and the files that it lists
//   DIR/.part-<uid>/              one in progress
//   DIR/.trash-<name>/            one being removed        DIR/.old-<name>/    one being replaced
//
// A committed name appears by one rename of a directory whose files, whose manifest and whose entries have been synced, and it
// disappears by one rename. So at every instant, a power cut included, each committed name is whole or not there:
//
//   begin     mkdir .part-<uid>; the ranks write and sync their files in it
//   publish   manifest.json, sync            "manifest"
//             sync of .part-<uid>            "synced"      its entries
//             rename to its name             "renamed"
//             sync of DIR                    "committed"   from here on nothing takes it away
//             latest.new, sync, rename, sync of DIR        "latest"
//   prune     rename to .trash-<name>, sync of DIR, unlink
//
// A name is never used again: rename(2) refuses a directory that is not empty. Where the caller insists on one (replace), the
// two directories change places at one instant; file systems that cannot do this get .old-<name>, and find() knows it.
// Failures are IoError and leave every committed checkpoint as it was.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "hetsp/checkpoint/checksum.h"
#include "hetsp/checkpoint/directory_lock.h"
#include "hetsp/checkpoint/file.h"
#include "hetsp/checkpoint/file_system.h"

namespace hetsp::checkpoint {

// Another process holds the directory. Reaches Python as hetsp_ext.errors.CheckpointBusy.
class Busy : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct PublishOptions {
  Checksum checksum = best_checksum();  // of the seals
  bool replace = false;                 // a committed checkpoint of this name gives way
  bool latest = true;                   // `latest` is to name this one
  bool lock = true;                     // false: the caller keeps other writers of this name away by means of its own
};

class Directory {
 public:
  using OnPhase = std::function<void(const char* phase)>;

  // Makes the directory with its parents, and their entries durable.
  Directory(FileSystem& files, const std::string& path);

  [[nodiscard]] const std::string& path() const { return path_; }

  // See DirectoryLock. publish, prune and clean take the lock for their own time where it is not held, and throw Busy where
  // another process has it.
  bool lock(bool wait = false);
  void unlock();
  [[nodiscard]] bool locked() const;

  // The path of .part-<uid>, made where it is not there: any rank may come first.
  std::string begin(const std::string& uid);
  // A small file in .part-<uid>, synced. It appears whole: under another name first. Throws IoError (EEXIST) where there is
  // one.
  void write(const std::string& uid, const std::string& file, std::string_view bytes);
  // Commits .part-<uid> under `name` with the manifest, which is sealed here; vote-* files are removed. On an exception before
  // "committed" nothing is committed. What goes wrong afterwards fails no checkpoint: the reason why `latest` stayed behind is
  // returned, empty where it did not.
  std::string publish(const std::string& uid, const std::string& name, std::string_view manifest,
                      const PublishOptions& options = {}, const OnPhase& on_phase = {});
  void discard(const std::string& uid);  // removes .part-<uid>, if there is one

  // Removes committed checkpoints and returns which: not the one that `latest` names, nor the last one published here. Throws
  // InvalidArgument where neither is known, for then the newest might be among them.
  std::vector<std::string> prune(const std::vector<std::string>& names);
  // Removes what died in progress (.part-*, .trash-*, latest.new) and returns the names; not what was begun here. Puts a
  // replaced checkpoint back whose successor did not arrive.
  std::vector<std::string> clean();

  [[nodiscard]] std::vector<std::string> names() const;  // step-*: committed, in order of their names
  [[nodiscard]] std::optional<std::string> latest() const;  // where the hint is whole and names a committed one
  [[nodiscard]] std::string find(const std::string& name) const;  // path of a committed checkpoint; .old-<name> if need be

 private:
  class Hold;  // the lock for one call

  [[nodiscard]] std::string at(const std::string& name) const { return path_ + "/" + name; }
  [[nodiscard]] std::string part(const std::string& uid) const { return at(".part-" + uid); }
  [[nodiscard]] bool exists(const std::string& path) const;
  void require_same(const std::string& uid);
  void remove_part(const std::string& uid);
  void move_into_place(const std::string& uid, const std::string& name, bool replace);
  void move_back(const std::string& uid, const std::string& name, bool replace);
  void update_latest(const std::string& name, Checksum checksum);
  void remove_tree(const std::string& path);

  FileSystem& files_;
  std::string path_;
  DirectoryLock lock_;
  mutable std::recursive_mutex mutex_;  // over all below, and the calls that use the lock
  std::map<std::string, File> begun_;  // uids in progress here; .part-<uid> held open, so that no other one gets its inode
  std::string published_;  // name of the last one published here
};

}  // namespace hetsp::checkpoint
