#include "hetsp/checkpoint/io_error.h"

#include <cerrno>

#include "support/check.h"

using namespace hetsp::checkpoint;

TEST(message_names_operation_path_and_errno) {
  const IoError error("fsync", "/a/b", ENOSPC);
  CHECK_EQ(std::string(error.what()), "fsync /a/b: No space left on device (ENOSPC)");
  CHECK(error.operation() == "fsync");
  CHECK(error.path() == "/a/b");
  CHECK_EQ(error.code(), ENOSPC);
}

TEST(an_errno_without_a_name_of_ours_keeps_its_text) {
  CHECK_EQ(describe_errno(EIO), "Input/output error (EIO)");
  CHECK_EQ(describe_errno(EDOM), "Numerical argument out of domain");
  CHECK(describe_errno(99999).find("99999") != std::string::npos);
}

TEST(a_reason_of_its_own_stands_in_for_the_errnos) {
  const IoError error("copy", "/a/b", EIO, "cudaErrorNoDevice: none");
  CHECK_EQ(std::string(error.what()), "copy /a/b: cudaErrorNoDevice: none");
  CHECK(error.reason() == "cudaErrorNoDevice: none");
  CHECK_EQ(error.code(), EIO);
  CHECK(IoError("copy", "/a/b", EIO).reason() == "Input/output error (EIO)");
}

TEST_MAIN()
