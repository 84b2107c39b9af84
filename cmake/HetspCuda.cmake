# Decides whether the CUDA kernels are built, once, and how. A room then adds its cuda/ folder or its no_cuda/ stub.
set(HETSP_HAS_CUDA OFF)
if(NOT HETSP_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(HETSP_HAS_CUDA ON)
  elseif(HETSP_CUDA STREQUAL "ON")
    message(FATAL_ERROR "HETSP_CUDA=ON, but no CUDA compiler was found; set CUDACXX or use AUTO")
  endif()
endif()
if(HETSP_HAS_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES "90a-real;80-virtual")  # Hopper machine code, and PTX for every GPU from Ampere on
  endif()
  set(CMAKE_CUDA_STANDARD 17)  # CMake 3.25 does not know the C++20 flag of nvcc 13
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)  # a wheel tied to one libcudart breaks when torch's default CUDA moves
  # What ptxas says of registers, spills and serialised wgmma stays beside each object (tools/cuda_report.py reads it).
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CURRENT_SOURCE_DIR}/cmake/ptxas_report.sh)
  if(HETSP_CCACHE)
    list(APPEND CMAKE_CUDA_COMPILER_LAUNCHER ${HETSP_CCACHE})
  endif()
  enable_language(CUDA)
  add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Xptxas -v>")
  add_compile_options($<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>)  # constexpr functions of the core run on the device
  add_compile_options($<$<COMPILE_LANGUAGE:CUDA>:-DNDEBUG>)  # asserts in device code serialise wgmma
endif()
message(STATUS "hetsp_ext: CUDA kernels ${HETSP_HAS_CUDA}")
