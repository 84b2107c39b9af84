// The primitives of csrc/hetsp/attention/cuda/hopper on the fibers of cuda_on_cpu.h. Include it before the kernel:
//
//   cuda_on_cpu::launch_hopper<Shared>(blocks, threads, [&](Shared& shared) { body(params, shared); }, {.together = 2, .seed =
//   1});
//
// Asynchronous work is done as late as the waits allow (seed 0); bulk loads at once, the rest late (seed 1); or all of it at
// random times (seed >= 2): what is read too early and what is overwritten too early give wrong numbers in one of them.
// Besides:
//
//   accumulators        are NaN from mma_ss or mma_rs until the wait that covers them
//   proxies             wgmma and bulk copies do not read shared memory but the picture of it that fence_async_proxy() (and
//   bulk
//                       loads) last brought up to date, so a forgotten fence gives wrong numbers. One fence publishes what all
//                       threads have written until the next barrier: coarser than the device
//   operands            are read by their descriptors, so a wrong layout reads what the device would; outside of the block's
//                       shared memory is an error
//   barriers            unknown ones, too many arrivals, more bytes than expected, and a bulk copy that nobody waits for are
//                       errors; who waits for which phase of which barrier is told by a Deadlock
//   registers           setmaxnreg waits until the pool has them, as the device does
//
// wgmma_on_cpu.h and tma_on_cpu.h hold the products and the copies.
#pragma once

#include <cmath>
#include <deque>
#include <set>

#include "hetsp/attention/number.h"
#include "support/fast_math_on_cpu.h"
#include "support/warp_on_cpu.h"

// NOLINTBEGIN(bugprone-reserved-identifier)
#define __grid_constant__
// NOLINTEND(bugprone-reserved-identifier)

namespace hetsp::attention::cuda::hopper {
struct Barrier;
}

namespace cuda_on_cpu {

namespace detail {

struct NamedBarrier {
  int threads = 0, arrived = 0;
  unsigned generation = 0;
  char tag[2] = {};
};

// Work that runs beside the threads.
class Asynchronous {
 public:
  Asynchronous() = default;
  Asynchronous(const Asynchronous&) = delete;
  Asynchronous& operator=(const Asynchronous&) = delete;
  virtual ~Asynchronous() = default;
  virtual bool step() = 0;    // does the next part of it, and says whether it is over
  virtual void finish() = 0;  // the block's threads have returned: throws where that may not be
};

inline bool at_random() { return scheduler().options.seed >= 2 && scheduler().next_random() % 2 == 0; }

struct HopperBlock : BlockState {
  Block& block;
  std::vector<unsigned char> seen;  // shared memory as wgmma and bulk copies see it
  std::vector<bool> fenced;  // threads that have fenced since it was brought up to date
  int fences = 0;
  std::set<const void*> barriers;
  NamedBarrier named[16];
  std::vector<std::shared_ptr<Asynchronous>> copies;       // under way
  std::map<unsigned, std::shared_ptr<Asynchronous>> mma;   // by warpgroup
  std::map<unsigned, std::shared_ptr<void>> bulk_groups;   // by thread
  std::vector<int> registers;                              // of each thread
  int free_registers;

  explicit HopperBlock(Block& own)
      : block(own),
        seen(own.shared_bytes, 0xff),
        fenced(own.dim.x, false),
        registers(own.dim.x, std::min(248, static_cast<int>(65536 / own.dim.x / 8 * 8))),
        free_registers(65536 - static_cast<int>(own.dim.x) * registers[0]) {}

  // The picture follows only when somebody could look: at the next barrier, or at an asynchronous read of the thread's own.
  void publish() {
    if (fences == 0) return;
    fences = 0;
    std::fill(fenced.begin(), fenced.end(), false);
    std::memcpy(seen.data(), block.shared, seen.size());
  }
  void publish_own() {
    if (fenced[threadIdx.x]) publish();
  }
  void meet() override { publish(); }
  bool work_when_idle() override {
    if (copies.empty()) return false;
    const std::size_t at = scheduler().options.seed < 2 ? 0 : scheduler().next_random() % copies.size();
    const std::shared_ptr<Asynchronous> copy = copies[at];
    if (copy->step()) std::erase(copies, copy);
    return true;
  }
  void finish() override {
    for (const auto& [group, products] : mma) products->finish();
    for (const auto& copy : copies) copy->finish();
  }
};

inline HopperBlock& hopper_block() {
  auto& state = scheduler().running->block->states[hopper_layer];
  if (!state) throw BrokenKernel("a Hopper kernel is launched by launch_hopper()");
  return static_cast<HopperBlock&>(*state);
}

}  // namespace detail

template <class Shared, class Body>
void launch_hopper(unsigned blocks, unsigned threads, const Body& body, const Options& options = {}) {
  launch<Shared>(blocks, threads, body, options, [](detail::Block& block) {
    block.states[detail::hopper_layer] = std::make_unique<detail::HopperBlock>(block);
  });
}

}  // namespace cuda_on_cpu

namespace hetsp::attention::cuda::hopper {

constexpr int warpgroup_threads = 128;

// --- warp.cuh ---

inline int lane_index() { return static_cast<int>(threadIdx.x) % 32; }
inline int warp_index(const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  return cuda_on_cpu::warp_shuffle(static_cast<int>(threadIdx.x) / 32, 0, where);
}
inline int warpgroup_index(const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  return cuda_on_cpu::warp_shuffle(static_cast<int>(threadIdx.x) / warpgroup_threads, 0, where);
}
inline bool elect_one(const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  return cuda_on_cpu::warp_collective<bool>(
      "elect", '\0',
      [](const char*, bool* out, int lanes) {
        for (int i = 0; i < lanes; ++i) out[i] = i == 0;
      },
      where);
}

template <int N>
void change_registers(bool raise, const cuda_on_cpu::Place& where) {
  static_assert(N % 8 == 0 && 24 <= N && N <= 256, "setmaxnreg takes multiples of 8 from 24 to 256");
  const cuda_on_cpu::detail::Unseen unseen;
  auto& block = cuda_on_cpu::detail::hopper_block();
  int& own = block.registers[threadIdx.x];
  if (raise != (N >= own)) cuda_on_cpu::fail(cuda_on_cpu::concat("setmaxnreg from ", own, " to ", N), where);
  if (block.free_registers < N - own)
    cuda_on_cpu::detail::wait_until(
        [&] { return block.free_registers >= N - own; },
        [&](std::string& text) { text += cuda_on_cpu::concat(N, " registers at ", cuda_on_cpu::text_of(where)); });
  block.free_registers -= N - own;
  own = N;
}
template <int N>
void raise_registers(const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  change_registers<N>(true, where);
}
template <int N>
void lower_registers(const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  change_registers<N>(false, where);
}

CUDA_ON_CPU_UNSEEN inline void named_barrier(int id, int threads, bool waits, const cuda_on_cpu::Place& where) {
  using cuda_on_cpu::concat;
  const cuda_on_cpu::detail::Unseen unseen;
  auto& block = cuda_on_cpu::detail::hopper_block();
  if (id < 1 || id > 15 || threads < 32 || threads % 32 != 0)
    cuda_on_cpu::fail(concat("named barrier ", id, " of ", threads, " threads: ids are 1 to 15, threads whole warps"), where);
  auto& barrier = block.named[id];
  if (barrier.arrived == 0) barrier.threads = threads;
  if (barrier.threads != threads)
    cuda_on_cpu::fail(concat("named barrier ", id, " of ", threads, " threads, others said ", barrier.threads), where);
  const unsigned generation = barrier.generation;
  char* const tag = &barrier.tag[generation % 2];
  cuda_on_cpu::detail::release(tag);
  if (++barrier.arrived == threads) {
    barrier.arrived = 0;
    ++barrier.generation;
    block.publish();
  }
  if (!waits) return;
  if (barrier.generation == generation)
    cuda_on_cpu::detail::wait_until([&] { return barrier.generation != generation; },
                                    [&](std::string& text) {
                                      text += concat("named barrier ", id, ", ", barrier.arrived, " of ", barrier.threads,
                                                     " arrived, at ", cuda_on_cpu::text_of(where));
                                    });
  cuda_on_cpu::detail::acquire(tag);
}
inline void named_sync(int id, int threads, const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  named_barrier(id, threads, true, where);
}
inline void named_arrive(int id, int threads, const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  named_barrier(id, threads, false, where);
}

inline void fence_async_proxy() {
  const cuda_on_cpu::detail::Unseen unseen;
  auto& block = cuda_on_cpu::detail::hopper_block();
  block.fenced[threadIdx.x] = true;
  ++block.fences;
}

inline void fence_global_to_async() {}  // copies here read memory as it is

// From the begin of the block's shared memory: on the device too it is a small number.
inline std::uint32_t shared_address(const void* pointer, const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  const auto& block = *cuda_on_cpu::detail::scheduler().running->block;
  const std::ptrdiff_t offset = static_cast<const unsigned char*>(pointer) - block.shared;
  if (offset < 0 || offset >= static_cast<std::ptrdiff_t>(block.shared_bytes))
    cuda_on_cpu::fail("an address outside the block's shared memory", where);
  return static_cast<std::uint32_t>(offset);
}

inline void prefetch_line(const void* global) { (void)*static_cast<const volatile char*>(global); }  // it has to be there

template <class T>
T shuffle(T value, int lane, const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  return cuda_on_cpu::warp_shuffle(value, lane, where);
}
template <class T>
T shuffle_xor(T value, int mask, const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  return cuda_on_cpu::warp_shuffle(value, lane_index() ^ mask, where);
}

inline void store_matrices(void* row, const std::uint32_t (&tile)[4],
                           const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  const std::uint32_t address = shared_address(row, where);
  if (address % 16 != 0) cuda_on_cpu::fail("a row of a matrix at no multiple of 16 bytes", where);
  unsigned char* const shared = cuda_on_cpu::detail::scheduler().running->block->shared;
  for (int m = 0; m < 4; ++m) {
    const std::uint32_t place = shuffle(address, 8 * m + lane_index() / 4, where);
    *reinterpret_cast<std::uint32_t*>(shared + place + 4 * (lane_index() % 4)) = tile[m];
  }
}

inline float log2_fast(float x) { return flushed(std::log2(flushed(x))); }
inline float tanh_fast(float x) { return std::tanh(x); }

// --- mbarrier.cuh ---

// The word: parity of the running phase, arrivals a phase, arrivals missing, bytes missing (signed).
struct alignas(8) Barrier {
  std::uint64_t word;
  static constexpr int count_bits = 20;
};

struct BarrierParts {
  unsigned parity;
  int arrivals, missing;
  std::int32_t bytes;

  static BarrierParts of(const Barrier& barrier) {
    constexpr std::uint64_t mask = (1u << Barrier::count_bits) - 1;
    return {static_cast<unsigned>(barrier.word & 1), static_cast<int>(barrier.word >> 1 & mask),
            static_cast<int>(barrier.word >> 21 & mask),
            static_cast<std::int32_t>(static_cast<std::int64_t>(barrier.word) >> 41)};
  }
  std::uint64_t word() const {
    return parity | static_cast<std::uint64_t>(arrivals) << 1 | static_cast<std::uint64_t>(missing) << 21 |
           static_cast<std::uint64_t>(static_cast<std::int64_t>(bytes)) << 41;
  }
};

CUDA_ON_CPU_UNSEEN inline void init(Barrier& barrier, int arrivals,
                                    const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  const cuda_on_cpu::detail::Unseen unseen;
  if (arrivals < 1 || arrivals >= 1 << Barrier::count_bits)
    cuda_on_cpu::fail(cuda_on_cpu::concat("an mbarrier of ", arrivals, " arrivals"), where);
  shared_address(&barrier, where);
  cuda_on_cpu::detail::hopper_block().barriers.insert(&barrier);
  barrier.word = BarrierParts{0, arrivals, arrivals, 0}.word();
}
inline void fence_barrier_init() {}

CUDA_ON_CPU_UNSEEN inline void check_known(const Barrier& barrier, const cuda_on_cpu::Place& where) {
  if (!cuda_on_cpu::detail::hopper_block().barriers.contains(&barrier))
    cuda_on_cpu::fail("an mbarrier that was not initialised", where);
}

CUDA_ON_CPU_UNSEEN inline void complete(Barrier& barrier, BarrierParts parts, cuda_on_cpu::detail::HopperBlock& block) {
  if (parts.missing == 0 && parts.bytes == 0) {
    parts.parity ^= 1u;
    parts.missing = parts.arrivals;
    block.publish();
  }
  barrier.word = parts.word();
}

CUDA_ON_CPU_UNSEEN inline void arrive_and_expect(Barrier& barrier, int bytes,
                                                 const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  const cuda_on_cpu::detail::Unseen unseen;
  check_known(barrier, where);
  cuda_on_cpu::detail::release(&barrier);
  BarrierParts parts = BarrierParts::of(barrier);
  if (parts.missing == 0) cuda_on_cpu::fail("an arrival too many for this phase", where);
  if (bytes < 0 || parts.bytes + bytes >= 1 << 20) cuda_on_cpu::fail("an mbarrier counts up to 2^20 - 1 bytes", where);
  --parts.missing;
  parts.bytes += bytes;
  complete(barrier, parts, cuda_on_cpu::detail::hopper_block());
}
inline void arrive(Barrier& barrier, const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  arrive_and_expect(barrier, 0, where);
}

CUDA_ON_CPU_UNSEEN inline void wait(Barrier& barrier, unsigned parity,
                                    const cuda_on_cpu::Place& where = cuda_on_cpu::Place::here()) {
  const cuda_on_cpu::detail::Unseen unseen;
  check_known(barrier, where);
  if (parity > 1) cuda_on_cpu::fail(cuda_on_cpu::concat("a wait for parity ", parity), where);
  const auto over = [&] { return BarrierParts::of(barrier).parity != parity; };
  const std::uint32_t address = shared_address(&barrier);
  if (!over())
    cuda_on_cpu::detail::wait_until(over, [&](std::string& text) {
      const BarrierParts parts = BarrierParts::of(barrier);
      text += cuda_on_cpu::concat("mbarrier at ", address, ", parity ", parity, ", ", parts.missing, " of ", parts.arrivals,
                                  " arrivals and ", parts.bytes, " bytes missing, at ", cuda_on_cpu::text_of(where));
    });
  cuda_on_cpu::detail::acquire(&barrier);
}

}  // namespace hetsp::attention::cuda::hopper

#include "support/tma_on_cpu.h"
#include "support/wgmma_on_cpu.h"
