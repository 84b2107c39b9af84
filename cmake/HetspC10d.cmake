# Decides whether the backend for torch.distributed is built, and for which torch: it needs the installed one, not only its
# headers, and the headers of this Python.
set(HETSP_C10D AUTO CACHE STRING "Build the backend of torch.distributed: AUTO (where torch has what it needs), ON or OFF")
set(_needed
  ${HETSP_TORCH_INCLUDE}/torch/csrc/distributed/c10d/Backend.hpp ${HETSP_TORCH_INCLUDE}/pybind11/pybind11.h
  ${HETSP_TORCH_INCLUDE}/../version.py ${HETSP_TORCH_LIB}/libtorch_python.so)
set(_found ON)
foreach(file IN LISTS _needed)
  if(NOT EXISTS ${file})
    set(_found OFF)
  endif()
endforeach()
hetsp_choose(HETSP_C10D ${_found} "an installed torch with torch.distributed: ${HETSP_TORCH_INCLUDE}")
if(HETSP_HAS_C10D)
  file(STRINGS ${HETSP_TORCH_INCLUDE}/../version.py _line REGEX "^__version__ = " LIMIT_COUNT 1)
  string(REGEX MATCH "'(.*)'" _quoted "${_line}")
  set(HETSP_TORCH_VERSION ${CMAKE_MATCH_1})
  message(STATUS "hetsp_ext: backend of torch.distributed for torch ${HETSP_TORCH_VERSION}")
endif()
