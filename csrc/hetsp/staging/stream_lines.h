// The inner loop of stream_copy, compiled once per instruction set (stream_lines.cc).
#pragma once

#include <cstddef>

#define HETSP_DECLARE(isa)                                           \
  namespace hetsp::staging {                                         \
  namespace isa {                                                    \
  /* `to` is a multiple of 64, as is `bytes`; `from` is anything. */ \
  void stream_lines(char* to, const char* from, std::size_t bytes);  \
  }                                                                  \
  }
HETSP_DECLARE(portable)
HETSP_DECLARE(avx2)
HETSP_DECLARE(avx512)
#undef HETSP_DECLARE
