// Keeps every call with its result and, for a pwrite, the bytes that were written: what a power-cut replay is made from.
#pragma once

#include "checkpoint/hooked_file_system.h"

namespace hetsp::checkpoint {

struct Record {
  Call call;          // its `data` is no longer valid
  std::string bytes;  // pwrite: what reached the file
  std::int64_t result = 0;
};

class RecordingFileSystem : public HookedFileSystem {
 public:
  using HookedFileSystem::HookedFileSystem;
  std::vector<Record> records() {
    const std::lock_guard lock(mutex_);
    return records_;
  }

 protected:
  void after(const Call& call, std::int64_t result) override {
    Record record{call, {}, result};
    if (call.operation == Operation::pwrite && result > 0)
      record.bytes.assign(static_cast<const char*>(call.data), static_cast<std::size_t>(result));
    record.call.data = nullptr;
    const std::lock_guard lock(mutex_);
    records_.push_back(std::move(record));
  }

 private:
  std::mutex mutex_;
  std::vector<Record> records_;
};

}  // namespace hetsp::checkpoint
