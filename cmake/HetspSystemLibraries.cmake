# Optional libraries of the system. Each is AUTO (used where found), ON (an error where not) or OFF; without it a stub file
# takes its place, and the run time says what it goes without.
set(HETSP_XXHASH AUTO CACHE STRING "XXH3 checksums from xxHash's header: AUTO, ON or OFF (then CRC-32C)")

# hetsp_find_optional(OPTION FOUND HINT): ends the choice of OPTION, FOUND being whether all of it was found.
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
