// The old bytes of what a restore writes over, kept until it is known that all of the new ones are good.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "hetsp/checkpoint/read_plan.h"

namespace hetsp::checkpoint {

// Memory that is touched for the first time by the threads that fill it, beside their waits for the disk. Parts are kept at
// their `undo` offset.
class UndoLog {
 public:
  explicit UndoLog(std::int64_t bytes);  // throws std::bad_alloc
  ~UndoLog();
  UndoLog(const UndoLog&) = delete;
  UndoLog& operator=(const UndoLog&) = delete;

  void use_huge_pages(bool use);  // for what is touched from now on
  void keep(const Part& part);           // by any thread, once per part, before its destination changes
  void put_back(const Part& part) const;  // of a part that was kept

 private:
  std::size_t bytes_;
  char* raw_;     // the mapping, a huge page longer than needed
  char* memory_;  // aligned to huge pages
};

}  // namespace hetsp::checkpoint
