// The host half of every CUDA call, as nvcc compiled it for the package, against a run time that stands for CUDA's: what is
// selected, how much scratch is asked for and kept to, what is launched, on which stream, and how each refusal is told.
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "hetsp/attention/cuda_kernels.h"
#include "hetsp/base/error.h"
#include "hetsp/device/device.h"
#include "support/check.h"
#include "support/fake_cuda_runtime.h"

using namespace hetsp;
using namespace hetsp::attention;
using cuda::Family;

namespace {

constexpr std::int64_t kPage = 4096;
constexpr int kLaunchFailure = 719;  // cudaErrorLaunchFailure
alignas(256) char tensor[256];       // where every tensor "lies": the host reads none
char the_stream;

// Scratch of exactly so many bytes, its end before a page that nobody may touch, its begin on a multiple of 256.
class Scratch {
 public:
  explicit Scratch(std::int64_t bytes) : mapped_((bytes + kPage - 1) / kPage * kPage + kPage) {
    void* const memory = mmap(nullptr, static_cast<std::size_t>(mapped_), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    invariant(memory != MAP_FAILED, "no memory for ", bytes, " bytes of scratch");
    memory_ = static_cast<char*>(memory);
    mprotect(memory_ + mapped_ - kPage, kPage, PROT_NONE);
    begin_ = bytes == 0 ? nullptr : memory_ + mapped_ - kPage - (bytes + 255) / 256 * 256;
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { munmap(memory_, static_cast<std::size_t>(mapped_)); }
  [[nodiscard]] void* begin() const { return begin_; }

 private:
  std::int64_t mapped_;
  char *memory_ = nullptr, *begin_ = nullptr;
};

struct Wish {
  DType dtype = DType::bfloat16;
  std::int64_t dim = 128, dim_v = 128, rows = 1000, keys = 700, segments = 3;
  bool sink = false, seeded = false, lists = false, acc = false, deterministic = false, delta_given = false;
};

std::string text(const Wish& w) {
  return concat("type ", static_cast<int>(w.dtype), " dims ", w.dim, ", ", w.dim_v, " rows ", w.rows, ", ", w.keys,
                " segments ", w.segments, w.sink ? " sink" : "", w.seeded ? " seeded" : "", w.lists ? " lists" : "",
                w.acc ? " acc" : "", w.deterministic ? " deterministic" : "", w.delta_given ? " delta" : "");
}

// As torch has it: an empty tensor lies nowhere.
template <class Pointer = void*>
Pointer at(std::int64_t elements) {
  return elements > 0 ? tensor : nullptr;
}

ForwardParams forward_call(const Wish& w) {
  ForwardParams p{};
  p.shape = {w.rows, w.keys, 4, 2, w.dim, w.dim_v, w.dtype};
  p.score = {0.1, 0.0};
  p.segments = static_cast<const Segment*>(at(w.segments)), p.segment_count = w.segments;
  p.q = {at(w.rows), 4 * w.dim, w.dim}, p.k = {at(w.keys), 2 * w.dim, w.dim}, p.v = {at(w.keys), 2 * w.dim_v, w.dim_v};
  p.sink = w.sink ? tensor : nullptr;
  if (w.seeded) p.seed_out = {at(w.rows), 4 * w.dim_v, w.dim_v}, p.seed_lse = at(w.rows);
  p.out = {at(w.rows), 4 * w.dim_v, w.dim_v}, p.out_is_acc = w.acc, p.lse = at(w.rows);
  p.lists = w.lists ? tensor : nullptr;
  return p;
}

BackwardParams backward_call(const Wish& w) {
  const ForwardParams f = forward_call(w);
  BackwardParams p{};
  p.shape = f.shape, p.score = f.score, p.segments = f.segments, p.segment_count = f.segment_count;
  p.q = f.q, p.k = f.k, p.v = f.v, p.sink = f.sink, p.lists = f.lists;
  p.out = p.dout = {f.out.data, f.out.token_stride, f.out.head_stride}, p.out_is_acc = w.acc;
  p.lse = p.delta = at(w.rows), p.fill_delta = w.delta_given ? nullptr : at(w.rows);
  p.dq = {at(w.rows), 4 * w.dim, w.dim}, p.dk = {at(w.keys), 2 * w.dim, w.dim}, p.dv = {at(w.keys), 2 * w.dim_v, w.dim_v};
  p.grads_are_acc = w.acc, p.dsink = w.sink ? tensor : nullptr, p.deterministic = w.deterministic;
  return p;
}

void call(const ForwardParams& p, const cuda::LaunchPlan& plan, void* stream) {
  const Scratch scratch(plan.workspace_bytes);
  cuda::forward(p, plan.family, scratch.begin(), stream);
}
void call(const BackwardParams& p, const cuda::LaunchPlan& plan, void* stream) {
  const Scratch scratch(plan.workspace_bytes);
  cuda::backward(p, plan.family, scratch.begin(), stream);
}

void call(const PiecesParams& p, const cuda::LaunchPlan& plan, void* stream) {
  const Scratch scratch(plan.workspace_bytes);
  cuda::forward(p, plan.family, scratch.begin(), stream);
}

std::int64_t rows_of(const ForwardParams& p) { return p.shape.total_q; }
std::int64_t rows_of(const BackwardParams& p) { return p.shape.total_q; }
std::int64_t rows_of(const PiecesParams& p) { return p.call.shape.total_q; }

bool any_kernel(const std::string& part) {
  return std::any_of(fake_cuda::calls().begin(), fake_cuda::calls().end(),
                     [&](const fake_cuda::Call& each) { return each.kernel.find(part) != std::string::npos; });
}

// One call on a device: returns its family.
template <class Params>
Family served(const Params& params, const fake_cuda::Device& device, void* stream) {
  fake_cuda::reset(device);
  const cuda::LaunchPlan plan = cuda::plan(params);
  CHECK(fake_cuda::calls().empty());  // a plan queues nothing
  call(params, plan, stream);
  for (const fake_cuda::Call& each : fake_cuda::calls()) {
    CHECK(each.stream == stream);
    CHECK(!each.early || device.capability >= 90);
  }
  for (const auto& [family, part] : {std::pair{Family::mma, "::mma::"}, {Family::hopper, "::hopper::"}}) {
    CHECK(plan.family == family || !any_kernel(part));
    CHECK(plan.family != family || any_kernel(part) || rows_of(params) == 0);
  }
  return plan.family;
}

template <class Change>
void each_wish(Change change) {
  for (const DType dtype : {DType::bfloat16, DType::float16, DType::float32, DType::float64})
    for (const auto& [dim, dim_v] : {std::pair{64, 64}, {128, 128}, {192, 128}, {256, 256}, {40, 24}, {1, 1}})
      for (const std::int64_t rows : {0, 1, 1000, 70000})
        for (int bits = 0; bits < 64; ++bits) {
          Wish w{dtype, dim, dim_v, rows, rows / 2, rows == 1 ? 0 : 3};
          w.sink = bits & 1, w.seeded = bits & 2, w.lists = bits & 4, w.acc = bits & 8, w.deterministic = bits & 16;
          w.delta_given = bits & 32;
          check::context() = text(w);
          change(w);
        }
  check::context().clear();
}

}  // namespace

TEST(every_kernel_of_the_package_is_registered) { CHECK(fake_cuda::registered() > 60); }

TEST(every_call_is_launched_on_its_stream_within_its_scratch) {
  int served_by[3] = {}, calls = 0;
  each_wish([&](const Wish& w) {
    const fake_cuda::Device ampere{80, 108, 166912}, ada{89, 142, 101376};
    for (const fake_cuda::Device& device : {fake_cuda::Device{}, ampere, ada, fake_cuda::Device{100, 148, 232448, 1}}) {
      if (w.dtype == DType::float64 && device.shared_bytes < 140000 && std::max(w.dim, w.dim_v) > 128)
        continue;  // refused: below
      void* const stream = calls++ % 2 == 0 ? static_cast<void*>(&the_stream) : nullptr;
      for (const Family family : {served(forward_call(w), device, stream), served(backward_call(w), device, stream)}) {
        ++served_by[static_cast<int>(family)];
        CHECK(family != Family::hopper || device.capability == 90);
      }
    }
  });
  for (const int count : served_by) CHECK(count > 500);
}

TEST(a_narrower_preference_is_kept_to) {
  for (const Family family : cuda::kAllFamilies) {
    cuda::prefer({family, true});
    CHECK(served(forward_call({}), {}, &the_stream) == family);
    CHECK(served(backward_call({}), {}, &the_stream) == family);
  }
  cuda::prefer({});
}

TEST(maps_are_made_for_hopper_alone) {
  served(forward_call({}), {}, nullptr);
  CHECK(fake_cuda::maps() == 3);
  served(backward_call({}), {}, nullptr);
  CHECK(fake_cuda::maps() == 5);
  served(forward_call({}), {89, 142, 101376}, nullptr);
  CHECK(fake_cuda::maps() == 0);
}

// One launch for all pieces, whoever serves it.
TEST(a_chain_of_pieces_is_one_launch_within_its_scratch) {
  int served_by[3] = {};
  std::int32_t late = 0;
  each_wish([&](Wish w) {
    if (w.dtype == DType::float64 && std::max(w.dim, w.dim_v) > 128) return;
    KeyPiece pieces[3];
    const std::int64_t counts[] = {w.keys / 4, 0, w.keys - w.keys / 4};
    for (int i = 0; i < 3; ++i)
      pieces[i] = {{at(counts[i]), 2 * w.dim, w.dim}, {at(counts[i]), 2 * w.dim_v, w.dim_v}, counts[i], nullptr, 0};
    const PiecesParams params{forward_call(w), pieces, 3, 1000, &late};
    late = 7;
    const Family family =
        served(params, w.deterministic ? fake_cuda::Device{} : fake_cuda::Device{89, 142, 101376}, &the_stream);
    ++served_by[static_cast<int>(family)];
    CHECK_EQ(fake_cuda::maps(), family != Family::hopper ? 0 : counts[2] > 0 ? 5 : 1);  // of q, and of pieces that have rows
    CHECK_EQ(late, 0);
    const auto chains = std::count_if(fake_cuda::calls().begin(), fake_cuda::calls().end(), [](const fake_cuda::Call& each) {
      return each.kernel.find("forward_chain_kernel") != std::string::npos;
    });
    CHECK_EQ(chains, w.rows == 0 ? 0 : 1);
  });
  for (const int count : served_by) CHECK(count > 20);
}

TEST(lists_are_built_once_for_all_calls) {
  for (const std::int64_t rows : {std::int64_t{1000}, std::int64_t{1} << 20}) {  // in one block, and in a grid
    const Scratch lists(lists_bytes(3, rows, rows) / 256 * 256 + 256);
    fake_cuda::reset();
    cuda::build_lists({static_cast<const Segment*>(at(1)), 3, rows, rows, lists.begin()}, &the_stream);
    CHECK(any_kernel(rows == 1000 ? "list_kernel" : "sort_kernel"));
    Wish w;
    w.rows = w.keys = rows, w.lists = true;
    served(forward_call(w), {}, &the_stream);
    CHECK(!any_kernel("list_kernel"));
    CHECK(!any_kernel("sort_kernel"));
  }
}

// Kernels follow each other without a gap on Hopper. In a graph only kernels can, and whatever may be ahead of a call.
TEST(lists_are_placed_early_behind_kernels) {
  const auto early = [](std::int64_t rows, const fake_cuda::Device& device) {
    Wish w;
    w.rows = w.keys = rows;
    served(forward_call(w), device, &the_stream);
    std::string found;
    for (const fake_cuda::Call& each : fake_cuda::calls())
      for (const char* kernel : {"memset", "mark_kernel", "find_kernel", "sort_kernel", "list_kernel", "forward_kernel"})
        if (each.kernel.find(kernel) != std::string::npos)
          found += concat(found.empty() ? "" : " ", each.early ? "+" : "", kernel);
    return found;
  };
  CHECK_EQ(early(1000, {}), "+list_kernel +forward_kernel");
  CHECK_EQ(early(1000, {.captures = true}), "list_kernel +forward_kernel");
  for (const bool captures : {false, true})
    CHECK_EQ(early(100000, {.captures = captures}), "memset mark_kernel +find_kernel +sort_kernel +forward_kernel");
}

TEST(small_calls_are_launched_too) {
  fake_cuda::reset();
  const ConstView rows{tensor, 4 * 128, 128};
  cuda::merge({100, 4, 128, false, rows, rows, tensor, tensor, {tensor, 4 * 128, 128}, tensor + 64}, &the_stream);
  cuda::delta({100, 4, 128, DType::bfloat16, rows, rows, tensor, nullptr, tensor}, &the_stream);
  cuda::cu_seqlens_to_segments({tensor, tensor, false, 3, 100, 100, 100, 100, -1, 0}, static_cast<Segment*>(at(1)),
                               &the_stream);
  CHECK(fake_cuda::calls().size() == 3);
  CHECK(any_kernel("merge"));
  CHECK(any_kernel("delta"));
  CHECK(any_kernel("segments"));
}

TEST(what_cuda_refuses_is_told_with_its_name_and_leaves_no_error_behind) {
  const ForwardParams params = forward_call({});
  for (int number = 0; number < 2; ++number) {
    fake_cuda::reset();
    const cuda::LaunchPlan plan = cuda::plan(params);
    fake_cuda::fail_launch(number, kLaunchFailure);
    CHECK_THROWS(device::DeviceError,
                 number == 0 ? "tile_list: a fake error: as the test wished" : "varlen_attention_forward: a fake",
                 call(params, plan, &the_stream));
    call(params, plan, &the_stream);  // the next call does not find the old error
  }
}

TEST(too_little_shared_memory_is_told_with_the_bytes) {
  Wish w;
  w.dtype = DType::float64, w.dim = w.dim_v = 256;
  const fake_cuda::Device ada{89, 142, 101376};
  CHECK_THROWS(device::DeviceError, "bytes of shared memory a block", served(backward_call(w), ada, nullptr));
}

TEST(without_a_driver_there_is_no_device_and_no_plan) {
  fake_cuda::reset({.present = false});
  CHECK(device::cuda_device_count() == 0);
  CHECK(std::string(device::cuda_absent_why()) == "no device");
  CHECK_THROWS(device::DeviceError, "cudaGetDevice: cudaErrorNoDevice: no device", cuda::plan(forward_call({})));
  fake_cuda::reset();
  CHECK(device::cuda_device_count() == 1);
  CHECK(std::string(device::cuda_absent_why()).empty());
}

TEST_MAIN()
