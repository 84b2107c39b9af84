# Language level, warnings, sanitizers and ccache for every target of the project.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)  # the static rooms end in Python modules
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

find_program(HETSP_CCACHE ccache)
if(HETSP_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${HETSP_CCACHE})
endif()

add_library(hetsp_warnings INTERFACE)
target_compile_options(hetsp_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wshadow;-Wconversion;-Wno-sign-conversion;-Werror=return-type>)

if(HETSP_SANITIZE)
  list(JOIN HETSP_SANITIZE "," _sanitizers)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${_sanitizers};-fno-omit-frame-pointer;-fno-sanitize-recover=all;-g;-O1>")  # -O1: a third less to compile
  add_link_options(-fsanitize=${_sanitizers})
endif()
