#include "hetsp/checkpoint/io_probe.h"

#include <unistd.h>

#include <optional>

#include "hetsp/base/error.h"
#include "hetsp/checkpoint/io_error.h"
#include "hetsp/checkpoint/output_file.h"
#include "hetsp/checkpoint/write_queue.h"
#include "hetsp/staging/ring.h"

namespace hetsp::checkpoint {

IoProbe probe_io(FileSystem& fs, const std::string& directory, IoMode best) {
  constexpr std::int64_t kPage = OutputFile::kAlignment;
  const staging::Ring page(kPage, kPage);
  OutputFile file(fs, concat(directory, "/.probe-", ::getpid()), kPage, best);
  std::optional<IoError> failure;
  {
    WriteQueue queue(fs, {best, 1, 1});
    queue.write({&file, page.slot(0), kPage, 0, [&](const std::optional<IoError>& error) { failure = error; }});
  }
  IoProbe probe{file.mode(), file.reasons()};
  file.discard();
  if (failure) throw IoError(*failure);
  return probe;
}

}  // namespace hetsp::checkpoint
