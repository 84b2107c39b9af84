#include "hetsp/checkpoint/undo_log.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

#include "hetsp/staging/stream_copy.h"

namespace hetsp::checkpoint {

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

}  // namespace

UndoLog::UndoLog(std::int64_t bytes) : bytes_(static_cast<std::size_t>(bytes) + kHugePage) {
  void* const mapped = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  raw_ = static_cast<char*>(mapped);
  memory_ = raw_ + (kHugePage - reinterpret_cast<std::uintptr_t>(raw_) % kHugePage) % kHugePage;
}

UndoLog::~UndoLog() { ::munmap(raw_, bytes_); }

void UndoLog::use_huge_pages(bool use) {
  ::madvise(raw_, bytes_, use ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);  // advice: a kernel without huge pages does without
}

void UndoLog::keep(const Part& part) {
  staging::stream_copy(memory_ + part.undo, part.destination, static_cast<std::size_t>(part.bytes));
}

void UndoLog::put_back(const Part& part) const {
  std::memcpy(part.destination, memory_ + part.undo, static_cast<std::size_t>(part.bytes));
}

}  // namespace hetsp::checkpoint
