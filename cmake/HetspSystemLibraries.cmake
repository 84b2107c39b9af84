# Optional libraries of the system. Each is AUTO (used where found), ON (an error where not) or OFF; without it a stub file
# takes its place, and the run time says what it goes without.
set(HETSP_XXHASH AUTO CACHE STRING "XXH3 checksums from xxHash's header: AUTO, ON or OFF (then CRC-32C)")

# hetsp_choose(OPTION FOUND HINT): ends the choice of OPTION, FOUND being whether all of it was found.
function(hetsp_choose option found hint)
  if(${option} STREQUAL "OFF")
    set(HAS OFF)
  elseif(found)
    set(HAS ON)
  elseif(${option} STREQUAL "ON")
    message(FATAL_ERROR "${option}=ON, but it was not found (${hint}); use AUTO to do without")
  else()
    set(HAS OFF)
  endif()
  string(REPLACE "HETSP_" "HETSP_HAS_" variable ${option})
  set(${variable} ${HAS} PARENT_SCOPE)
  message(STATUS "hetsp_ext: ${option} ${HAS} (${hint})")
endfunction()

find_path(HETSP_XXHASH_INCLUDE xxhash.h)
mark_as_advanced(HETSP_XXHASH_INCLUDE)
set(_found OFF)
if(HETSP_XXHASH_INCLUDE)
  file(STRINGS ${HETSP_XXHASH_INCLUDE}/xxhash.h _xxh3 REGEX "XXH3_128bits_digest" LIMIT_COUNT 1)  # since 0.8
  if(_xxh3)
    set(_found ON)
  endif()
endif()
hetsp_choose(HETSP_XXHASH ${_found} "Debian: libxxhash-dev")

# The archive, not the shared library: the modules are to load where liburing is not installed.
set(HETSP_IO_URING AUTO CACHE STRING "Write checkpoints through io_uring, with liburing: AUTO, ON or OFF (then pwrite)")
find_path(HETSP_LIBURING_INCLUDE liburing.h)
find_library(HETSP_LIBURING_ARCHIVE liburing.a)
mark_as_advanced(HETSP_LIBURING_INCLUDE HETSP_LIBURING_ARCHIVE)
set(_found OFF)
if(HETSP_LIBURING_INCLUDE AND HETSP_LIBURING_ARCHIVE)
  set(_found ON)
endif()
hetsp_choose(HETSP_IO_URING ${_found} "Debian: liburing-dev")
