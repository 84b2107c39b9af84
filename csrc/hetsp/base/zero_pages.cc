#include "hetsp/base/zero_pages.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

namespace hetsp {

ZeroPages::ZeroPages(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  data_ = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data_ == MAP_FAILED) throw std::bad_alloc();
  advise_huge_pages(data_, bytes);
}

ZeroPages::~ZeroPages() {
  if (bytes_ != 0) ::munmap(data_, bytes_);
}

void advise_huge_pages(void* data, std::size_t bytes) {
  constexpr std::uintptr_t kPage = 4096;
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t begin = (address + kPage - 1) / kPage * kPage, end = (address + bytes) / kPage * kPage;
  if (begin < end) ::madvise(static_cast<char*>(data) + (begin - address), end - begin, MADV_HUGEPAGE);
}

}  // namespace hetsp
