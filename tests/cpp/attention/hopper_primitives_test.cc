// The cases of hopper_primitives.cuh on the emulator, which so promises what a GPU was seen to do (docs/cuda.md); and what the
// emulator is there to find.
#include "support/hopper_on_cpu.h"
// The emulator's names must be known before the cases.
#include "support/check.h"

namespace backend {

cuda_on_cpu::Options options;

template <class T>
class Buffer {
 public:
  explicit Buffer(const std::vector<T>& values) : count_(values.size()), data_(new (std::align_val_t{16}) T[values.size()]) {
    std::copy(values.begin(), values.end(), data_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { ::operator delete[](data_, std::align_val_t{16}); }
  T* device() { return data_; }
  std::vector<T> fetch() { return {data_, data_ + count_}; }

 private:
  std::size_t count_;
  T* data_;
};

template <class Case>
void run(int blocks, const Case& body) {
  using Shared = typename Case::Shared;
  cuda_on_cpu::launch_hopper<Shared>(
      static_cast<unsigned>(blocks), Case::threads, [&](Shared& shared) { body(shared); }, options);
}

template <class Element, class Tensor>
auto tensor_map(void* data, const Tensor& tensor, int columns, int rows) {
  constexpr int bytes = sizeof(Element);
  return cuda_on_cpu::tensor_map(data, bytes, std::is_same_v<Element, float>, {tensor.dim, tensor.heads, tensor.tokens},
                                 {std::int64_t{tensor.head_stride} * bytes, std::int64_t{tensor.token_stride} * bytes},
                                 {columns, 1, rows});
}

}  // namespace backend

#include "attention/hopper_primitives.cuh"

using namespace hopper_primitives;

namespace {

void all_cases_with(const cuda_on_cpu::Options& options) {
  backend::options = options;
  for (const NamedCase& one : all_cases()) {
    check::context() = cuda_on_cpu::concat(one.name, " with seed ", options.seed, ", ", options.together, " blocks together");
    std::string wrong;
    try {
      wrong = one.run();
    } catch (const std::exception& error) {
      wrong = error.what();
    }
    if (!wrong.empty()) check::fail(__FILE__, __LINE__, wrong);
  }
}

}  // namespace

TEST(cases_as_late_as_may_be) { all_cases_with({.together = 1, .seed = 0}); }
TEST(cases_with_loads_at_once) { all_cases_with({.together = 4, .seed = 1}); }
TEST(cases_at_random) { all_cases_with({.together = 2, .seed = 2}); }

// A GPU ends such a launch with an illegal instruction.
TEST(a_reduction_before_the_tensors_begin_is_an_error) {
  backend::options = {};
  CHECK_THROWS(cuda_on_cpu::BrokenKernel, "negative coordinate", box_add(80, {{0, 1, -5}}, 1));
  CHECK_THROWS(cuda_on_cpu::BrokenKernel, "negative coordinate", box_add(80, {{-4, 1, 5}}, 1));
}

TEST_MAIN()
