# Finds Python, nanobind and torch's headers for the two Python modules. setup.py passes all three; a bare `cmake` asks
# the interpreter.
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module OPTIONAL_COMPONENTS Development.SABIModule)

if(NOT nanobind_DIR)
  execute_process(COMMAND ${Python_EXECUTABLE} -m nanobind --cmake_dir
                  OUTPUT_VARIABLE nanobind_DIR OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
endif()
find_package(nanobind CONFIG REQUIRED)

if(NOT HETSP_TORCH_INCLUDE)
  execute_process(COMMAND ${Python_EXECUTABLE} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0] + '/include')"
                  OUTPUT_VARIABLE HETSP_TORCH_INCLUDE OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
endif()
set(HETSP_TORCH_LIB ${HETSP_TORCH_INCLUDE}/../lib)
set(HETSP_TORCH_TARGET 0x020a000000000000 CACHE STRING "Oldest torch whose stable ABI the ops use (2.10)")

# nanobind's split mode gives one abi3 module for Python 3.10 and later, with its run time in the package
# nanobind-backend; where that is missing, nanobind is linked in, one build per Python below 3.12.
execute_process(COMMAND ${Python_EXECUTABLE} -c "import importlib.util as u, sys; sys.exit(u.find_spec('nanobind_backend') is None)"
                RESULT_VARIABLE _no_backend)
if(_no_backend OR nanobind_VERSION VERSION_LESS 3.1)
  set(HETSP_NANOBIND_MODE STABLE_ABI NB_STATIC)
else()
  set(HETSP_NANOBIND_MODE BACKEND_MODULE nanobind_backend)
endif()

# A module uses the C++ library that torch has loaded, and so the shared one is named ahead of what the compiler adds. Some
# compilers link a static one all the same. Of another version, and with its symbols mixed with those of the first, that one
# crashes where a number is printed; so what comes out of any archive is nobody else's.
function(hetsp_python_module target)
  target_link_libraries(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:stdc++>)
  target_link_options(${target} PRIVATE -Wl,--exclude-libs,ALL)
  install(TARGETS ${target} LIBRARY DESTINATION hetsp_ext COMPONENT python)
endfunction()
