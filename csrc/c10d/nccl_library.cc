#include "c10d/nccl_library.h"

#include <dlfcn.h>

#include <vector>

#include "hetsp/base/error.h"

namespace hetsp::routed {

namespace {

constexpr const char* soname = "libnccl.so.2";

template <class Function>
void look_up(void* handle, const std::string& path, const char* name, Function*& into) {
  void* const symbol = dlsym(handle, name);
  if (symbol == nullptr) throw NcclAbsent(concat(path, " has no function ", name, ": not an NCCL that can be used"));
  into = reinterpret_cast<Function*>(symbol);
}

std::string path_of(void* symbol, const std::string& name) {
  Dl_info info{};
  return dladdr(symbol, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : name;
}

std::string loader_error() {
  const char* const text = dlerror();
  return text != nullptr ? text : "no reason given";
}

}  // namespace

std::string NcclLibrary::version_text(int version) {
  const int major = version >= 10000 ? version / 10000 : version / 1000;  // the numbering changed with 2.9
  const int rest = version - major * (version >= 10000 ? 10000 : 1000);
  return concat(major, ".", rest / 100, ".", rest % 100);
}

NcclLibrary::NcclLibrary(void* handle, const std::string& name) {
  look_up(handle, name, "ncclGetVersion", api_.get_version);
  path_ = path_of(reinterpret_cast<void*>(api_.get_version), name);
  if (api_.get_version(&version_) != nccl::success) throw NcclAbsent(concat(path_, " does not tell its version"));
  if (version_ < oldest)
    throw NcclAbsent(concat(path_, " is NCCL ", version(), "; at least ", version_text(oldest), " is needed"));
  look_up(handle, path_, "ncclGetUniqueId", api_.get_unique_id);
  look_up(handle, path_, "ncclCommInitRankConfig", api_.comm_init_rank_config);
  look_up(handle, path_, "ncclCommGetAsyncError", api_.comm_get_async_error);
  look_up(handle, path_, "ncclCommAbort", api_.comm_abort);
  look_up(handle, path_, "ncclSend", api_.send);
  look_up(handle, path_, "ncclRecv", api_.receive);
  look_up(handle, path_, "ncclGetErrorString", api_.get_error_string);
  look_up(handle, path_, "ncclGetLastError", api_.get_last_error);
}

std::shared_ptr<const NcclLibrary> NcclLibrary::open(const std::string& file) {
  void* const handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw NcclAbsent(loader_error());  // which names the file
  return std::shared_ptr<const NcclLibrary>(new NcclLibrary(handle, file));
}

std::shared_ptr<const NcclLibrary> NcclLibrary::find(const std::string& asked, const std::string& bundled) {
  if (void* const loaded = dlopen(soname, RTLD_NOW | RTLD_NOLOAD))
    return std::shared_ptr<const NcclLibrary>(new NcclLibrary(loaded, soname));
  if (!asked.empty()) return open(asked);
  std::string tried;
  for (const std::string& file : {std::string(soname), bundled}) {
    if (file.empty()) continue;
    try {
      return open(file);
    } catch (const NcclAbsent& absent) {
      tried += (tried.empty() ? "" : "; ") + std::string(absent.what());
    }
  }
  throw NcclAbsent(concat("no NCCL: ", tried));
}

}  // namespace hetsp::routed
