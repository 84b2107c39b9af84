// libnccl, found at run time.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>

#include "c10d/nccl_api.h"

namespace hetsp::routed {

// No usable libnccl; says what was tried and what was wrong with it.
class NcclAbsent : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The first of: the copy that this process has loaded already (torch's own: two copies would each have their own idea of the
// devices), the file `asked` for, what the loader finds, the file `bundled` with a Python package. The last three may be empty
// or missing; a file asked for that does not do is an error, not a reason to take another. A library is never unloaded: its
// threads have no end of their own.
class NcclLibrary {
 public:
  static constexpr int oldest = 21800;  // 2.18: the last change of what is used here, in ncclConfig_t

  static std::shared_ptr<const NcclLibrary> find(const std::string& asked, const std::string& bundled);
  static std::shared_ptr<const NcclLibrary> open(const std::string& file);  // that one alone

  [[nodiscard]] const nccl::Api& api() const { return api_; }
  [[nodiscard]] std::string version() const { return version_text(version_); }  // "2.28.9"
  [[nodiscard]] const std::string& path() const { return path_; }

  static std::string version_text(int version);

 private:
  NcclLibrary(void* handle, const std::string& name);

  nccl::Api api_{};
  int version_ = 0;
  std::string path_;
};

}  // namespace hetsp::routed
