// What tests ask of the libnccl that stub_nccl.cc builds, beside NCCL's own functions.
#pragma once

#include <cstdint>

extern "C" {

// Puts a kernel on a stream of the test's run time.
using StubNcclRun = void (*)(void* stream, void (*kernel)(void*), void* argument);
using StubNcclRunner = void (*)(StubNcclRun);

// Sets a knob of the library for all communicators of this process; 0 turns it off:
//   "version"       what ncclGetVersion tells
//   "id_fails"      so many calls of ncclGetUniqueId fail from now on
//   "never_ready"   communicators that begin from now on never come up
//   "init_fails"    so many communicators that begin from now on fail, asynchronously
//   "slow"          every call takes so many questions for its outcome (ncclInProgress)
//   "error_after"   the so-many-th transfer from now on ends as an asynchronous error of its communicator, and never
using StubNcclSet = void (*)(const char* knob, std::int64_t value);

using StubNcclCount = std::int64_t (*)(const char* what);  // "live" communicators, "begun", "transfers", "misuses"
using StubNcclMisuse = const char* (*)();  // the first call that NCCL's rules forbid; "" if none
}
