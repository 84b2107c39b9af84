#include "torch_ops/parallel.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <exception>
#include <mutex>

// torch's OpenMP run time is not instrumented: without these marks ThreadSanitizer would see no order between the caller
// and its workers, and report every captured variable. Two marks, not one: with one, a worker that ends early would hide
// the races of the others.
#if defined(__SANITIZE_THREAD__)
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
#define HETSP_TSAN_ACQUIRE(p) __tsan_acquire(p)
#define HETSP_TSAN_RELEASE(p) __tsan_release(p)
#else
#define HETSP_TSAN_ACQUIRE(p) static_cast<void>(p)
#define HETSP_TSAN_RELEASE(p) static_cast<void>(p)
#endif

namespace hetsp::torch_ops {

int TorchParallel::workers() const { return std::max(1, static_cast<int>(torch::stable::get_num_threads())); }

void TorchParallel::run(int count, const std::function<void(int)>& body) {
  static char begun, done;
  std::mutex mutex;
  std::exception_ptr failure;  // an exception must not cross torch's C functions
  const auto chunk = [&](std::int64_t begin, std::int64_t end) {
    HETSP_TSAN_ACQUIRE(&begun);
    for (std::int64_t worker = begin; worker < end; ++worker) try {
        body(static_cast<int>(worker));
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
      }
    HETSP_TSAN_RELEASE(&done);
  };
  HETSP_TSAN_RELEASE(&begun);
  torch::stable::parallel_for(0, count, 1, chunk);
  HETSP_TSAN_ACQUIRE(&done);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace hetsp::torch_ops
