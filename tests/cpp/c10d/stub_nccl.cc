// A libnccl for tests, for communicators of two ranks within one process, over memory of the host and streams of the test.
//
// It is stricter than the true one. A send must come from rank 0 and a receive from rank 1, of a communicator that is ready and
// whose last call is over; the k-th send and the k-th receive must be of the same length and type. What breaks a rule counts as
// a misuse, and is an error of both ends. A transfer is a kernel that blocks its stream until the other end's has come, or its
// communicator is aborted; it is on the stream when its call is over, and no sooner.
#include "c10d/stub_nccl.h"

#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "c10d/nccl_api.h"

using namespace hetsp::routed;

namespace {

constexpr nccl::Result system_error = 2, invalid_argument = 4, invalid_usage = 5, remote_error = 6;

struct Posted {
  void* memory;
  std::size_t bytes;
  int type;
  bool* over;
};

// Both ends of one communicator.
struct Pair {
  bool joined[2] = {false, false}, gone[2] = {false, false};
  nccl::Result error[2] = {nccl::success, nccl::success};
  std::string text[2];
  std::deque<Posted> posted[2];
};

std::mutex mutex;  // of all below
std::condition_variable changed;
std::map<std::string, std::int64_t> knobs;
std::map<std::string, std::int64_t> counts;
std::map<std::string, std::shared_ptr<Pair>> pairs;
std::string misuse;
StubNcclRun run = nullptr;

bool spend(const char* knob) {
  std::int64_t& left = knobs[knob];
  if (left <= 0) return false;
  --left;
  return true;
}

nccl::Result misused(const std::string& what) {
  ++counts["misuses"];
  if (misuse.empty()) misuse = what;
  return invalid_usage;
}

}  // namespace

namespace hetsp::routed::nccl {

struct Comm {
  std::shared_ptr<Pair> pair;
  int rank = 0;
  std::int64_t questions = 0;  // until the last call is over
  void *stream = nullptr, *kernel = nullptr;  // which that call then launches
  bool ready = false, never = false, fails = false;
};

}  // namespace hetsp::routed::nccl

namespace {

struct Transfer {
  std::shared_ptr<Pair> pair;
  int rank;
  void* memory;
  std::size_t bytes;
  int type;
  bool dies;
};

std::map<void*, std::unique_ptr<Transfer>> launched;  // until they run; those on a device that is lost never do

void meet(Pair& pair) {
  while (!pair.posted[0].empty() && !pair.posted[1].empty()) {
    const Posted from = pair.posted[0].front(), to = pair.posted[1].front();
    pair.posted[0].pop_front();
    pair.posted[1].pop_front();
    if (from.bytes != to.bytes || from.type != to.type) {
      const std::string what = "a send of " + std::to_string(from.bytes) + " bytes of type " + std::to_string(from.type) +
                               " meets a receive of " + std::to_string(to.bytes) + " of type " + std::to_string(to.type);
      misused(what);
      pair.error[0] = pair.error[1] = invalid_usage;
      pair.text[0] = pair.text[1] = what;
    } else {
      std::memcpy(to.memory, from.memory, from.bytes);
    }
    *from.over = *to.over = true;
  }
}

void kernel(void* argument) {
  std::unique_lock lock(mutex);
  const std::unique_ptr<Transfer> transfer = std::move(launched.extract(argument).mapped());
  Pair& pair = *transfer->pair;
  bool over = false;
  if (transfer->dies) {
    pair.error[transfer->rank] = remote_error;
    pair.text[transfer->rank] = "the stub was told to fail";
  } else if (!pair.gone[transfer->rank]) {
    pair.posted[transfer->rank].push_back({transfer->memory, transfer->bytes, transfer->type, &over});
    meet(pair);
  }
  changed.notify_all();
  changed.wait(lock, [&] { return over || pair.gone[transfer->rank]; });
  if (over) return;
  std::erase_if(pair.posted[transfer->rank], [&](const Posted& posted) { return posted.over == &over; });
}

nccl::Result transfer(nccl::Comm* comm, int rank, int peer, void* memory, std::size_t bytes, int type, void* stream) {
  std::unique_lock lock(mutex);
  const std::string call = rank == 0 ? "ncclSend" : "ncclRecv";
  if (comm == nullptr || memory == nullptr || bytes == 0) return misused(call + " with nothing"), invalid_argument;
  if (!comm->ready) return misused(call + " before the communicator is ready");
  if (comm->questions > 0) return misused(call + " while the last call is in progress");
  if (comm->rank != rank || peer != 1 - rank) return misused(call + " against the direction of the communicator");
  ++counts["transfers"];
  const bool dies = spend("error_after") && knobs["error_after"] == 0;
  comm->questions = knobs["slow"];
  auto work = std::make_unique<Transfer>(Transfer{comm->pair, rank, memory, bytes, type, dies});
  void* const argument = work.get();
  launched.emplace(argument, std::move(work));
  if (comm->questions > 0) {
    comm->stream = stream;
    comm->kernel = argument;
    return nccl::in_progress;
  }
  lock.unlock();
  run(stream, kernel, argument);
  return nccl::success;
}

}  // namespace

#define STUB extern "C" __attribute__((visibility("default")))

STUB nccl::Result ncclGetVersion(int* version) {
  const std::scoped_lock lock(mutex);
  *version = knobs["version"] > 0 ? static_cast<int>(knobs["version"]) : 22809;
  return nccl::success;
}

STUB nccl::Result ncclGetUniqueId(nccl::UniqueId* id) {
  const std::scoped_lock lock(mutex);
  if (spend("id_fails")) return system_error;
  std::memset(id, 0, sizeof *id);
  const std::string name = "pair " + std::to_string(++counts["ids"]);
  std::memcpy(id->bytes, name.c_str(), name.size());
  return nccl::success;
}

STUB nccl::Result ncclCommInitRankConfig(nccl::Comm** comm, int ranks, nccl::UniqueId id, int rank, nccl::Config* config) {
  const std::scoped_lock lock(mutex);
  const nccl::Config expected;
  if (config == nullptr || config->magic != expected.magic || config->size < sizeof(nccl::Config))
    return misused("ncclCommInitRankConfig with a config that is none"), invalid_argument;
  if (config->blocking != 0 || config->min_ctas != 1 || config->max_ctas != 1)
    return misused("a communicator that blocks, or takes more than one block of the device");
  if (ranks != 2 || rank < 0 || rank > 1) return misused("not a communicator of two"), invalid_argument;
  std::shared_ptr<Pair>& pair = pairs[std::string(id.bytes, sizeof id.bytes)];
  if (!pair) pair = std::make_shared<Pair>();
  if (pair->joined[rank]) return misused("two ranks of one number");
  auto made = std::make_unique<nccl::Comm>();
  made->pair = pair;
  made->rank = rank;
  made->never = knobs["never_ready"] > 0;
  made->fails = spend("init_fails");
  made->questions = knobs["slow"];
  pair->joined[rank] = !made->never;
  ++counts["live"];
  ++counts["begun"];
  *comm = made.release();
  return nccl::in_progress;
}

STUB nccl::Result ncclCommGetAsyncError(nccl::Comm* comm, nccl::Result* error) {
  std::unique_lock lock(mutex);
  Pair& pair = *comm->pair;
  if (comm->fails) {
    pair.error[comm->rank] = system_error;
    pair.text[comm->rank] = "the stub was told not to begin";
  }
  *error = pair.error[comm->rank];
  if (*error != nccl::success) return nccl::success;
  if (!comm->ready) comm->ready = !comm->never && pair.joined[0] && pair.joined[1];
  if (comm->ready && comm->questions > 0) --comm->questions;
  if (!comm->ready || comm->questions > 0) return *error = nccl::in_progress, nccl::success;
  if (void* const argument = std::exchange(comm->kernel, nullptr)) {
    lock.unlock();
    run(comm->stream, kernel, argument);
  }
  return nccl::success;
}

STUB nccl::Result ncclCommAbort(nccl::Comm* comm) {
  const std::scoped_lock lock(mutex);
  comm->pair->gone[comm->rank] = true;
  launched.erase(comm->kernel);
  --counts["live"];
  delete comm;
  changed.notify_all();
  return nccl::success;
}

STUB nccl::Result ncclSend(const void* from, std::size_t count, int type, int peer, nccl::Comm* comm, void* stream) {
  return transfer(comm, 0, peer, const_cast<void*>(from), count, type, stream);
}

STUB nccl::Result ncclRecv(void* to, std::size_t count, int type, int peer, nccl::Comm* comm, void* stream) {
  return transfer(comm, 1, peer, to, count, type, stream);
}

STUB const char* ncclGetErrorString(nccl::Result result) {
  switch (result) {
    case nccl::success:
      return "no error";
    case system_error:
      return "unhandled system error";
    case invalid_usage:
      return "invalid usage";
    case remote_error:
      return "remote process exited or there was a network error";
    default:
      return "another error";
  }
}

STUB const char* ncclGetLastError(nccl::Comm* comm) {
  const std::scoped_lock lock(mutex);
  return comm->pair->text[comm->rank].c_str();
}

STUB void stub_nccl_runner(StubNcclRun with) {
  const std::scoped_lock lock(mutex);
  run = with;
}

STUB void stub_nccl_set(const char* knob, std::int64_t value) {
  const std::scoped_lock lock(mutex);
  knobs[knob] = value;
}

STUB std::int64_t stub_nccl_count(const char* what) {
  const std::scoped_lock lock(mutex);
  return counts[what];
}

STUB const char* stub_nccl_misuse() {
  const std::scoped_lock lock(mutex);
  return misuse.c_str();
}
