#include "hetsp/base/zero_pages.h"

#include <sys/mman.h>

#include <new>

namespace hetsp {

ZeroPages::ZeroPages(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  data_ = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data_ == MAP_FAILED) throw std::bad_alloc();
  ::madvise(data_, bytes, MADV_HUGEPAGE);  // advice: a kernel without huge pages does without
}

ZeroPages::~ZeroPages() {
  if (bytes_ != 0) ::munmap(data_, bytes_);
}

}  // namespace hetsp
