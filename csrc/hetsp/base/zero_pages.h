// Memory of zeros straight from the system, in huge pages where it has them: large scratch that would be cleared anyway is then
// cleared once, and touched in steps of 2 MB instead of 4 KB.
#pragma once

#include <cstddef>

namespace hetsp {

class ZeroPages {
 public:
  explicit ZeroPages(std::size_t bytes);  // 0: none. Throws std::bad_alloc
  ~ZeroPages();
  ZeroPages(const ZeroPages&) = delete;
  ZeroPages& operator=(const ZeroPages&) = delete;
  [[nodiscard]] void* data() const { return data_; }  // aligned to a page; null if there are no bytes

 private:
  std::size_t bytes_;
  void* data_ = nullptr;
};

// Asks the system to back the whole pages of [data, data + bytes) by huge ones when they are first touched. Advice alone:
// contents stay, and a system without huge pages does without.
void advise_huge_pages(void* data, std::size_t bytes);

}  // namespace hetsp
