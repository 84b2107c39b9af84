// kill -9 against the engine and the commit protocol, thousands of times. Long because it is a program of its own: the ranks,
// the judge and the dice.
//
//   checkpoint_kill --rounds 10000 --seed 1 [--directory DIR] [--sabotage announce|prune|rewrite]
//
// A round forks one process per rank (1 to 4). They save state whose every word is a constant of step, rank and span, and
// change it as soon as it is captured; the parent kills one rank or all: when a rank reaches a named phase, before or after
// its n-th call of the file system, or after a random time. Then the directory is judged by content, in a process that saw
// nothing of the save: every checkpoint that was announced and not pruned is there, every name that is there loads with the
// right words in every span, and the newest announced one or a newer one is among them. Rounds share a directory, so that each
// begins with what the last one left; every fortieth begins afresh, by turns with new names and with one name that is reused.
//
// --sabotage breaks the protocol on purpose and succeeds when the judge has noticed: the checkpoint is announced before it is
// committed, old ones are pruned before the new one is there, or a reused name is written in place.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <random>
#include <sstream>
#include <thread>

#include "checkpoint/hooked_file_system.h"
#include "hetsp/base/error.h"
#include "hetsp/checkpoint/directory.h"
#include "hetsp/checkpoint/engine.h"
#include "hetsp/checkpoint/file.h"
#include "hetsp/checkpoint/seal.h"
#include "hetsp/checkpoint/verified_read.h"

using namespace hetsp;
using namespace hetsp::checkpoint;

namespace {

constexpr std::array kPhases{"begun",  "captured", "written",   "voted",  "manifest",
                             "synced", "renamed",  "announced", "latest", "pruned"};
constexpr int kMostSteps = 1 << 17, kMostRanks = 4, kKeep = 2;
constexpr std::int64_t kHeader = 4096;
constexpr std::array<std::int64_t, 3> kSpanBytes{200'000, 8, 70'008};  // through a ring of 64 KiB

// What ranks and parent tell each other; mapped before the forks.
struct Shared {
  std::array<std::atomic<char>, kMostSteps> announced, pruned;
  std::atomic<std::int64_t> calls;    // of the file system, by the rank that is to die
  std::atomic<int> cleaned;           // number of the round whose first rank has cleaned up
};

struct Death {
  enum Kind { phase, call, time, none } kind;
  int phase_index = 0, save = 0;  // phase
  std::int64_t nth = 0;           // call
  bool after = false;             // call
  double seconds = 0;             // time
  int rank = 0;                   // who dies first
  bool all = false;               // the others at once, too
};

struct Round {
  std::string directory;
  std::string uid;
  int first_step = 1, saves = 1, ranks = 1;
  int number = 0;
  bool reused = false;  // one name for all
  bool waits = true;    // ranks begin when the first has cleaned up; else it may clean away what they have begun
  IoMode io = IoMode::direct;
  Death death;
  std::string sabotage;
};

void die() {
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();
}

class DeadlyFileSystem : public HookedFileSystem {
 public:
  DeadlyFileSystem(FileSystem& inner, Shared& shared, const Death* death)
      : HookedFileSystem(inner), shared_(shared), death_(death) {}

 protected:
  std::optional<std::int64_t> before(const Call& /*call*/) override {
    if (death_ && ++shared_.calls == death_->nth && !death_->after) die();
    return std::nullopt;
  }
  void after(const Call& /*call*/, std::int64_t /*result*/) override {
    if (death_ && shared_.calls == death_->nth && death_->after) die();
  }

 private:
  Shared& shared_;
  const Death* death_;  // null: another rank's
};

std::uint64_t word(int step, int rank, std::size_t span) {
  return (static_cast<std::uint64_t>(step) << 32 | static_cast<std::uint64_t>(rank) << 16 | span) * 0x9e3779b97f4a7c15U;
}

std::string name_of(const Round& round, int step) { return round.reused ? "mine" : concat("step-", step, "-u"); }

// One line of the manifest.
std::string describe(const Capture& capture, int rank) {
  std::string line = concat("rank-", rank, " ", capture.bytes(), " ", capture.header_hash());
  for (const Extent& extent : capture.extents()) line += concat(" ", extent.begin, " ", extent.end, " ", extent.hash);
  return line + "\n";
}

// All votes, or nothing where one does not come.
std::optional<std::string> gather(FileSystem& files, const std::string& folder, int ranks) {
  std::string manifest;
  for (int rank = 0; rank < ranks; ++rank) {
    const std::string vote = concat(folder, "/vote-", rank);
    FileStatus status;
    for (int waited = 0; files.stat(vote, status) != 0; ++waited) {
      if (waited == 200) return std::nullopt;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    manifest += read_sealed(files, vote);
  }
  return manifest;
}

void prune(Directory& directory, Shared& shared, int newest) {
  std::vector<std::string> old;
  std::vector<int> steps;
  for (const std::string& name : directory.names()) steps.push_back(std::stoi(name.substr(5)));
  std::sort(steps.rbegin(), steps.rend());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (i < kKeep || steps[i] >= newest) continue;
    shared.pruned[static_cast<std::size_t>(steps[i])] = 1;
    old.push_back(concat("step-", steps[i], "-u"));
  }
  directory.prune(old);
}

// A rank of the trainer. Ends the process: 0, or 2 with a message for what may not happen.
void live(const Round& round, Shared& shared, int rank) {
  const bool mine = rank == round.death.rank;
  int save = 0;
  const auto phase = [&](const std::string& reached) {
    if (mine && round.death.kind == Death::phase && save == round.death.save &&
        kPhases[static_cast<std::size_t>(round.death.phase_index)] == reached)
      die();
  };
  PosixFileSystem disk;
  DeadlyFileSystem files(disk, shared, mine ? &round.death : nullptr);
  Directory directory(files, round.directory);
  if (rank == 0) {
    if (!directory.lock()) throw std::runtime_error("a dead process holds the lock");
    directory.clean();
    shared.cleaned = round.number;
  }
  for (int waited = 0; round.waits && shared.cleaned != round.number && waited < 400; ++waited)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  Engine engine({.ring_bytes = 4 * 16384, .slot_bytes = 16384, .writers = 1, .best = round.io}, files);
  std::vector<std::vector<std::uint64_t>> state;
  std::vector<Span> spans;
  for (const std::int64_t bytes : kSpanBytes) {
    state.emplace_back(static_cast<std::size_t>(bytes / 8));
    spans.push_back({state.back().data(), bytes, static_cast<std::int64_t>(state.size())});
  }
  const auto train = [&](int step) {
    for (std::size_t span = 0; span < state.size(); ++span)
      std::fill(state[span].begin(), state[span].end(), word(step, rank, span));
  };
  train(round.first_step);
  for (; save < round.saves; ++save) {
    const int step = round.first_step + save;
    const std::string uid = concat(round.uid, "-", save), folder = directory.begin(uid);
    const auto capture = engine.begin(concat(folder, "/rank-", rank), std::string(kHeader, ' '), spans);
    phase("begun");
    (void)capture->wait_captured();
    train(step + 1);
    phase("captured");
    (void)capture->wait_written();
    phase("written");
    directory.write(uid, concat("vote-", rank), seal(describe(*capture, rank), Checksum::crc32c));
    phase("voted");
    if (rank > 0) {  // the outcome: the directory in progress is gone
      FileStatus status;
      for (int waited = 0; files.stat(folder, status) == 0 && waited < 400; ++waited)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      continue;
    }
    const auto manifest = gather(files, folder, round.ranks);
    if (!manifest) {
      directory.discard(uid);
      return;
    }
    const auto announce = [&] { shared.announced[static_cast<std::size_t>(step)] = 1; };
    if (round.sabotage == "announce") announce();
    if (round.sabotage == "prune") {
      for (const std::string& name : directory.names()) std::filesystem::remove_all(directory.find(name));
    }
    if (round.sabotage == "rewrite" && round.reused && std::filesystem::exists(directory.find("mine")))
      for (const auto& entry : std::filesystem::directory_iterator(directory.find("mine")))
        if (::truncate(entry.path().c_str(), 0) != 0) throw std::runtime_error("sabotage failed");
    directory.publish(uid, name_of(round, step), concat(step, " ", round.ranks, " ", name(engine.checksum()), "\n", *manifest),
                      {.replace = round.reused, .latest = !round.reused}, [&](const char* reached) {
                        if (std::string(reached) == "committed") announce();
                        phase(std::string(reached) == "committed" ? "announced" : reached);
                      });
    if (!round.reused) prune(directory, shared, step);
    phase("pruned");
  }
}

pid_t start(const Round& round, Shared& shared, int rank) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  try {
    live(round, shared, rank);
    ::_exit(0);
  } catch (const std::exception& error) {
    // Ranks that go on after another died find its directory discarded.
    if ((round.death.kind == Death::none && round.waits) || rank == 0)
      std::fprintf(stderr, "rank %d: %s\n", rank, error.what());
    ::_exit(rank == 0 ? 2 : 0);
  }
}

// The step of the checkpoint in this folder, all of whose words are right; throws otherwise.
int load(FileSystem& files, const std::string& folder) {
  std::istringstream manifest(read_sealed(files, folder + "/manifest.json"));
  int step = 0, ranks = 0;
  std::string checksum, line;
  manifest >> step >> ranks >> checksum;
  std::getline(manifest, line);
  std::vector<FileSpec> specs;
  std::vector<Piece> pieces;
  std::vector<std::vector<std::uint64_t>> memory;
  while (std::getline(manifest, line)) {
    std::istringstream words(line);
    FileSpec spec;
    words >> spec.path >> spec.size >> spec.header_hash;
    spec.path = folder + "/" + spec.path;
    for (Extent extent; words >> extent.begin >> extent.end >> extent.hash;) spec.extents.push_back(extent);
    std::int64_t at = kHeader;
    for (const std::int64_t bytes : kSpanBytes) {
      memory.emplace_back(static_cast<std::size_t>(bytes / 8));
      pieces.push_back(
          {static_cast<std::int32_t>(specs.size()), at, bytes, reinterpret_cast<std::byte*>(memory.back().data())});
      at += bytes;
    }
    specs.push_back(std::move(spec));
  }
  require(ranks > 0 && specs.size() == static_cast<std::size_t>(ranks), folder, " lists ", specs.size(), " files of ", ranks);
  ReadOptions options;
  options.ring_bytes = 0;
  options.checksum = checksum_of(checksum);
  const Restoration read = verified_read(files, specs, pieces, options);
  for (const Fault& fault : read.faults) throw std::runtime_error(specs[fault.file].path + " " + fault.what);
  for (std::size_t i = 0; i < memory.size(); ++i) {
    const std::uint64_t expected = word(step, static_cast<int>(i / kSpanBytes.size()), i % kSpanBytes.size());
    for (const std::uint64_t found : memory[i]) require(found == expected, folder, " holds words of another step");
  }
  return step;
}

// What is wrong with the directory; empty where nothing is.
std::string judge(const Round& round, const Shared& shared, int last_step) {
  try {
    PosixFileSystem files;
    const Directory directory(files, round.directory);
    int newest = 0;
    for (int step = 1; step <= last_step; ++step)
      if (shared.announced[static_cast<std::size_t>(step)]) newest = step;
    if (round.reused) {
      const int found = newest > 0 || std::filesystem::exists(directory.find("mine")) ? load(files, directory.find("mine")) : 0;
      return found < newest ? concat("step ", found, " loads, ", newest, " was announced") : "";
    }
    int best = 0;
    std::vector<char> there(static_cast<std::size_t>(last_step) + 1, 0);
    for (const std::string& name : directory.names()) {
      const int step = load(files, directory.find(name));
      if (name != name_of(round, step)) return concat(name, " holds step ", step);
      there[static_cast<std::size_t>(step)] = 1;
      best = std::max(best, step);
    }
    if (best < newest) return concat("step ", best, " is the newest, ", newest, " was announced");
    for (std::size_t step = 1; step < there.size(); ++step)
      if (shared.announced[step] && !shared.pruned[step] && !there[step])
        return concat("step ", step, " was announced and is lost");
  } catch (const std::exception& error) {
    return error.what();
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  int rounds = 200;
  unsigned seed = 1;
  std::string base = std::filesystem::current_path().string(), sabotage;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i], value = i + 1 < argc ? argv[++i] : "";
    if (option == "--rounds")
      rounds = static_cast<int>(std::strtol(value.c_str(), nullptr, 10));
    else if (option == "--seed")
      seed = static_cast<unsigned>(std::strtoul(value.c_str(), nullptr, 10));
    else if (option == "--directory")
      base = value;
    else if (option == "--sabotage")
      sabotage = value;
    else
      return std::fprintf(stderr, "unknown option %s; allowed: --rounds --seed --directory --sabotage\n", argv[i]), 2;
  }
  void* const mapped = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return std::perror("mmap"), 2;
  Shared& shared = *new (mapped) Shared();
  std::string pattern = base + "/checkpoint-kill-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) return std::perror(pattern.c_str()), 2;
  const std::filesystem::path scratch = pattern;

  std::mt19937 random(seed);
  const auto below = [&](std::int64_t bound) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(bound));
  };
  std::int64_t most_calls = 400;
  double longest = 0.02;
  int step = 1, killed = 0, finished = 0, reached = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (int number = 0; number < rounds; ++number) {
    Round round;
    const int world = number / 40;
    round.directory = scratch / concat("d", world);
    if (number % 40 == 0) {
      std::filesystem::remove_all(scratch / concat("d", world - 1));
      step = 1;
      for (auto& flag : shared.announced) flag = 0;
      for (auto& flag : shared.pruned) flag = 0;
    }
    round.uid = concat("r", number);
    round.number = number + 1;
    round.waits = below(4) > 0;
    round.reused = world % 2 == 1;
    round.first_step = step;
    round.saves = 1 + static_cast<int>(below(3));
    round.ranks = below(2) ? 1 : 1 + static_cast<int>(below(kMostRanks));
    round.io = std::array{IoMode::buffered, IoMode::direct, IoMode::io_uring}[static_cast<std::size_t>(below(3))];
    round.sabotage = sabotage;
    Death& death = round.death;
    death.kind = number % 20 == 0 ? Death::none
                                  : std::array{Death::phase, Death::call, Death::time}[static_cast<std::size_t>(number % 3)];
    death.rank = static_cast<int>(below(round.ranks));
    death.all = below(2) == 1;
    death.save = static_cast<int>(below(round.saves));
    death.phase_index = number / 3 % static_cast<int>(kPhases.size());
    if (death.kind == Death::phase && death.phase_index > 3) death.rank = 0;  // the others have no more phases
    death.nth = death.kind == Death::call ? 1 + below(most_calls) : -1;
    death.after = below(2) == 1;
    death.seconds = longest * static_cast<double>(below(1000)) / 1000;
    shared.calls = 0;

    std::vector<pid_t> pids;
    const auto started = std::chrono::steady_clock::now();
    for (int rank = 0; rank < round.ranks; ++rank) pids.push_back(start(round, shared, rank));
    if (death.kind == Death::time) {
      std::this_thread::sleep_for(std::chrono::duration<double>(death.seconds));
      ::kill(pids[static_cast<std::size_t>(death.rank)], SIGKILL);
    }
    int status = 0;
    bool was_killed = false;
    ::waitpid(pids[static_cast<std::size_t>(death.rank)], &status, 0);
    was_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    bool broken = (!was_killed && status != 0);
    for (int rank = 0; rank < round.ranks; ++rank) {
      if (rank == death.rank) continue;
      if (was_killed && death.all) ::kill(pids[static_cast<std::size_t>(rank)], SIGKILL);
      ::waitpid(pids[static_cast<std::size_t>(rank)], &status, 0);
      broken |= status != 0 && !(was_killed && death.all);
    }
    killed += was_killed;
    finished += !was_killed;
    if (was_killed && death.kind == Death::phase) reached |= 1 << death.phase_index;
    if (!was_killed) {
      if (round.ranks == 1) most_calls = std::max<std::int64_t>(most_calls / 2, shared.calls);
      longest = std::min(0.5, std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count());
    }
    step += round.saves;
    const std::string verdict = broken ? "a rank ended with an error" : judge(round, shared, step);
    if (!verdict.empty()) {
      std::printf(
          "round %d of seed %u: %s\n  directory kept: %s\n  ranks %d, saves %d from step %d, %s, %s; death %s of rank %d%s: "
          "phase %s in save %d, call %lld, %g s\n",
          number, seed, verdict.c_str(), round.directory.c_str(), round.ranks, round.saves, round.first_step,
          round.reused ? "one name" : "new names", name(round.io),
          std::array{"by phase", "by call", "by time", "none"}[death.kind], death.rank, death.all ? " and all" : "",
          kPhases[static_cast<std::size_t>(death.phase_index)], death.save, static_cast<long long>(death.nth), death.seconds);
      if (!sabotage.empty()) std::filesystem::remove_all(scratch);
      return sabotage.empty() ? 1 : 0;
    }
  }
  std::filesystem::remove_all(scratch);
  if (!sabotage.empty()) return std::printf("%d rounds, and the judge did not notice\n", rounds), 1;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("%d rounds, %d killed, %d ran to their end, 0 checkpoints lost or wrong; %.1f s, %.0f a minute\n", rounds, killed,
              finished, seconds, rounds / seconds * 60);
  if (rounds >= 200 && reached != (1 << kPhases.size()) - 1) {
    std::printf("not every phase saw a kill: bits %x\n", static_cast<unsigned>(reached));
    return 1;
  }
  return 0;
}
