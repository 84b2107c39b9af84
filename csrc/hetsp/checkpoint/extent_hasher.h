// The checksums of a file's header and extents, from its bytes in order.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hetsp/checkpoint/checksum.h"
#include "hetsp/checkpoint/extent.h"

namespace hetsp::checkpoint {

class ExtentHasher {
 public:
  // header_hash and extents: borrowed; each gets its hash with its last byte.
  ExtentHasher(Checksum checksum, std::int64_t header_bytes, std::string& header_hash, std::vector<Extent>& extents)
      : hasher_(checksum), end_(header_bytes), header_hash_(header_hash), extents_(extents) {}

  void update(const char* data, std::int64_t bytes);  // the next bytes of the file
  [[nodiscard]] std::int64_t offset() const { return offset_; }

 private:
  Hasher hasher_;
  std::int64_t offset_ = 0, end_;  // end_: of what is being hashed
  std::size_t next_ = 0;           // extent behind it
  std::string& header_hash_;
  std::vector<Extent>& extents_;
};

}  // namespace hetsp::checkpoint
