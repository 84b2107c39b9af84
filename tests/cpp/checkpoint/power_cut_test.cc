// A run of saves on a disk that may lose power after every call: whatever a cut leaves, each committed name is whole, and the
// newest checkpoint that was announced, or a newer one, loads. The protocol is shown to need every one of its fsyncs: with any
// of them swallowed, some cut breaks the promise.
#include <fcntl.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "checkpoint/power_cut_disk.h"
#include "hetsp/base/error.h"
#include "hetsp/checkpoint/corrupt.h"
#include "hetsp/checkpoint/directory.h"
#include "hetsp/checkpoint/file.h"
#include "hetsp/checkpoint/io_error.h"
#include "hetsp/checkpoint/seal.h"
#include "hetsp/checkpoint/verified_read.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::checkpoint;

namespace {

constexpr const char* kPath = "/run/a/checkpoints";
constexpr Checksum kChecksum = Checksum::crc32c;

// What the outside world has been told.
struct Promise {
  int committed = 0;           // sequence number of the newest one announced
  int latest = 0;              // what `latest` was said to name
  std::set<int> kept;          // announced and not pruned
};

std::string name_of(int sequence) { return concat("step-", 100 - sequence, "-u", sequence); }  // steps may fall

// A rank writes its file as the engine does: reserve, write, cut to length, sync. Returns its line of the manifest.
std::string write_shard(FileSystem& files, const std::string& folder, int rank, int sequence) {
  std::string data(4096 + 1000 + static_cast<std::size_t>(rank), ' ');
  for (std::size_t i = 4096; i < data.size(); ++i)
    data[i] = static_cast<char>('a' + (i + static_cast<std::size_t>(sequence)) % 26);
  const std::string shard = concat("rank-", rank);
  File file(files, folder + "/" + shard, O_WRONLY | O_CREAT | O_EXCL);
  (void)file.allocate(8192);
  std::string padded = data;
  padded.resize(8192);
  file.write(padded.data(), 4096, 0);
  file.write(padded.data() + 4096, 4096, 4096);
  file.truncate(static_cast<std::int64_t>(data.size()));
  file.sync();
  file.close();
  return concat(shard, " ", data.size(), " ", hash(kChecksum, data.data(), 4096), " ",
                hash(kChecksum, data.data() + 4096, data.size() - 4096), "\n");
}

// One whole save with two ranks, whose votes come as files.
std::string save(Directory& directory, FileSystem& files, int sequence, const std::string& name, const PublishOptions& options,
                 const Directory::OnPhase& on_phase) {
  const std::string uid = concat("u", sequence), folder = directory.begin(uid);
  std::string manifest = concat(sequence, "\n");
  for (int rank = 0; rank < 2; ++rank) {
    manifest += write_shard(files, folder, rank, sequence);
    directory.write(uid, concat("vote-", rank), "yes");
  }
  const std::string extra = concat("extra of ", sequence);
  directory.write(uid, "extra", extra);
  manifest += concat("extra ", extra.size(), " ", hash(kChecksum, extra.data(), extra.size()), " \n");
  return directory.publish(uid, name, manifest, options, on_phase);
}

// The sequence number of the checkpoint in this folder; throws Corrupt or IoError unless all of it is whole.
int load(FileSystem& files, const std::string& folder) {
  std::istringstream manifest(read_sealed(files, folder + "/manifest.json"));
  int sequence = 0;
  manifest >> sequence;
  std::vector<FileSpec> specs;
  std::string line;
  std::getline(manifest, line);
  while (std::getline(manifest, line)) {
    std::istringstream words(line);
    FileSpec spec;
    std::string hash;
    words >> spec.path >> spec.size >> spec.header_hash;
    if (words >> hash) spec.extents.push_back({4096, spec.size, hash});
    spec.path = folder + "/" + spec.path;
    specs.push_back(spec);
  }
  for (const Fault& fault : verify_files(files, specs, {.ring_bytes = 0, .checksum = kChecksum}))
    throw Corrupt(concat(specs[fault.file].path, " ", fault.what));
  if (specs.size() != 3) throw Corrupt(folder + ": the manifest is not whole");
  return sequence;
}

// What a machine finds that starts again on this disk, held against the promise; empty where it is kept.
std::string broken(PowerCutDisk& disk, const Promise& promise) {
  try {
    Directory directory(disk, kPath);
    std::set<int> found;
    for (const std::string& name : directory.names()) {
      const int sequence = load(disk, directory.find(name));
      if (name != name_of(sequence)) return concat(name, " holds ", sequence);
      found.insert(sequence);
    }
    for (const int kept : promise.kept)
      if (!found.contains(kept)) return concat("checkpoint ", kept, " is lost");
    if (promise.committed > 0 && (found.empty() || *found.rbegin() < promise.committed))
      return concat("checkpoint ", promise.committed, " was announced and nothing as new is there");
    FileStatus status;
    if (disk.stat(std::string(kPath) + "/latest", status) == 0) {
      const std::string name = read_sealed(disk, std::string(kPath) + "/latest");
      if (promise.latest > 0 && name != name_of(promise.latest) && name != name_of(promise.latest + 1))
        return concat("latest names ", name, ", not ", promise.latest);
    } else if (promise.latest > 0) {
      return "latest is lost";
    }
  } catch (const std::exception& error) {
    return error.what();
  }
  return {};
}

// Three saves, each of which leaves two; returns the first broken promise, empty where none is. Every disk that a cut can leave
// is looked at, or `most` of them by chance after each call.
std::string run(std::int64_t swallow, int seed, std::int64_t most, std::vector<std::string>* synced = nullptr,
                std::int64_t* looked = nullptr) {
  std::mt19937 random(seed);
  PowerCutDisk disk;
  disk.mkdir("/run", 0777);
  sync_directory(disk, "/");
  disk.swallow_fsync(swallow > 0 ? swallow + 1 : -1);  // that one was ours
  Promise promise;
  std::string verdict;
  std::set<std::string> seen;
  disk.on_change = [&] {
    if (!verdict.empty()) return;
    disk.each_cut(random, most, [&](PowerCutDisk& after) {
      if (!verdict.empty()) return;
      const std::string looks = concat(promise.committed, " ", promise.latest, " ", promise.kept.size(), after.picture());
      if (!seen.insert(looks).second) return;
      if (looked) ++*looked;
      verdict = broken(after, promise);
    });
  };
  Directory directory(disk, kPath);
  for (int sequence = 1; sequence <= 3; ++sequence) {
    const std::string behind =
        save(directory, disk, sequence, name_of(sequence), {.checksum = kChecksum}, [&](const char* phase) {
          if (std::string(phase) == "committed") {
            promise.committed = sequence;
            promise.kept.insert(sequence);
          }
        });
    if (!behind.empty()) return behind;
    promise.latest = sequence;
    disk.on_change();  // nothing new on disk, but more was promised
    if (sequence == 1) continue;
    promise.kept.erase(sequence - 1);
    directory.prune({name_of(sequence - 1)});
  }
  if (synced) *synced = disk.synced();
  return verdict;
}

}  // namespace

TEST(whatever_a_power_cut_leaves_the_newest_announced_loads) {
  std::int64_t looked = 0;
  for (int seed = 0; seed < 3; ++seed) {
    check::context() = concat("seed ", seed);
    CHECK_EQ(run(0, seed, 600, nullptr, &looked), "");
  }
  check::context() = "";
  CHECK(looked > 2000);  // different disks
}

TEST(every_fsync_of_the_protocol_is_needed) {
  std::vector<std::string> synced;
  CHECK_EQ(run(0, 0, 1, &synced), "");
  int needed = 0;
  for (std::size_t nth = 1; nth < synced.size(); ++nth) {  // the first is the test's own
    const std::string& path = synced[nth];
    check::context() = concat("fsync ", nth, " of ", path);
    // A vote is read by the living only, and "/" was durable before.
    if (path == "/" || path.find("vote-") != std::string::npos) continue;
    std::string verdict;
    for (int seed = 0; seed < 4 && verdict.empty(); ++seed) verdict = run(static_cast<std::int64_t>(nth), seed, 200);
    CHECK(!verdict.empty());
    ++needed;
  }
  check::context() = "";
  CHECK_EQ(needed, 2 + 3 * 8 + 2);
}

TEST(a_checkpoint_that_is_replaced_is_there_at_every_instant) {
  for (const bool can_exchange : {true, false}) {
    check::context() = can_exchange ? "exchanged" : "by .old";
    std::mt19937 random(1);
    PowerCutDisk disk;
    disk.can_exchange = can_exchange;
    disk.mkdir("/run", 0777);
    sync_directory(disk, "/");
    Directory directory(disk, "/run");
    int announced = 0;
    std::string verdict;
    std::set<std::string> seen;
    std::int64_t looked = 0;
    disk.on_change = [&] {
      disk.each_cut(random, 300, [&](PowerCutDisk& after) {
        if (!verdict.empty() || !seen.insert(concat(announced, after.picture())).second) return;
        ++looked;
        try {
          Directory again(after, "/run");
          const int before = announced > 0 ? load(after, again.find("mine")) : 0;
          if (before < announced) verdict = concat(before, " loads, ", announced, " was announced");
          again.clean();
          if (announced > 0 && load(after, "/run/mine") != before) verdict = "clean changed what loads";
          save(again, after, 99, "mine", {.checksum = kChecksum, .replace = true}, {});
          if (load(after, "/run/mine") != 99) verdict = "a later save is not there";
        } catch (const std::exception& error) {
          verdict = error.what();
        }
      });
    };
    for (int value = 1; value <= 3; ++value)
      CHECK_EQ(save(directory, disk, value, "mine", {.checksum = kChecksum, .replace = true, .latest = false},
                    [&](const char* phase) {
                      if (std::string(phase) == "committed") announced = value;
                    }),
               "");
    if (!verdict.empty()) check::fail(__FILE__, __LINE__, verdict);
    CHECK(looked > 300);
  }
}

TEST(after_a_cut_the_directory_serves_on) {
  std::mt19937 random(2);
  PowerCutDisk disk;
  disk.mkdir("/run", 0777);
  sync_directory(disk, "/");
  Directory directory(disk, kPath);
  std::set<std::string> seen;
  std::string verdict;
  disk.on_change = [&] {
    disk.each_cut(random, 40, [&](PowerCutDisk& after) {
      if (!verdict.empty() || !seen.insert(after.picture()).second) return;
      try {
        Directory again(after, kPath);
        again.lock();
        again.clean();
        std::vector<std::string> left;
        after.list(kPath, left);
        for (const std::string& name : left)
          if (name != ".lock" && name != "latest" && !name.starts_with("step-")) verdict = "clean left " + name;
        const std::vector<std::string> old = again.names();
        save(again, after, 9, name_of(9), {.checksum = kChecksum}, {});
        again.prune(old);
        if (again.names() != std::vector<std::string>{name_of(9)} || load(after, again.find(name_of(9))) != 9)
          verdict = "a later save is not alone";
      } catch (const std::exception& error) {
        verdict = error.what();
      }
    });
  };
  for (int sequence = 1; sequence <= 2; ++sequence)
    save(directory, disk, sequence, name_of(sequence), {.checksum = kChecksum}, {});
  if (!verdict.empty()) check::fail(__FILE__, __LINE__, verdict);
  CHECK(seen.size() > 300);
}

TEST_MAIN()
