# Builds native backends on the SDK of @tenon/core, under cmake-js and under plain cmake. A backend's CMakeLists.txt:
#
#   cmake_minimum_required(VERSION 3.20)
#   project(example_npu LANGUAGES CXX)
#   execute_process(COMMAND node -p "require('node:path').dirname(require.resolve('@tenon/core/package.json'))"
#     WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} OUTPUT_VARIABLE TENON_CORE OUTPUT_STRIP_TRAILING_WHITESPACE
#     COMMAND_ERROR_IS_FATAL ANY)
#   include(${TENON_CORE}/native/cmake/tenon.cmake)
#   tenon_add_backend(example_npu SOURCES src/addon.cpp src/device.cpp LIBRARIES example_runtime)
#
# The addon is <build>/Release/example_npu.node. The backend's package depends on node-addon-api and node-api-headers, whose
# headers its addon is compiled with. All targets that are made after the include get what addons need to live together in one
# process (tenon/version.h): hidden symbols, and no unique ones. Libraries and programs besides the addon link tenon_sdk.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

# A product and a sum are rounded one by one, as in the references (tenon/checkpoint/formats.h relies on it).
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fno-gnu-unique>)

# -DTENON_SANITIZE=address (with undefined) or =thread instruments everything that is built.
if(TENON_SANITIZE)
  set(sanitizers_address address,undefined)
  set(sanitizers_thread thread)
  set(sanitize_options -fsanitize=${sanitizers_${TENON_SANITIZE}} -fno-sanitize-recover=all)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:${sanitize_options};-g1;-fno-omit-frame-pointer>")
  add_link_options(${sanitize_options})
endif()

find_package(Threads REQUIRED)
add_library(tenon_sdk INTERFACE)
target_include_directories(tenon_sdk INTERFACE ${CMAKE_CURRENT_LIST_DIR}/../include)
target_link_libraries(tenon_sdk INTERFACE Threads::Threads ${CMAKE_DL_LIBS})
set(TENON_EXPORTS ${CMAKE_CURRENT_LIST_DIR}/exports.map)

# Folder of a package, as Node finds it from the project.
function(tenon_find_npm_package name out)
  execute_process(
    COMMAND node -p "require('node:path').dirname(require.resolve('${name}/package.json'))"
    WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}
    OUTPUT_VARIABLE folder OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "npm package ${name} not found from ${CMAKE_CURRENT_SOURCE_DIR}; run: npm install ${name}")
  endif()
  set(${out} ${folder} PARENT_SCOPE)
endfunction()

# tenon_add_backend(<addon> SOURCES <file>... [LIBRARIES <target>...])
function(tenon_add_backend addon)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LIBRARIES")
  tenon_find_npm_package(node-addon-api node_addon_api)
  tenon_find_npm_package(node-api-headers node_api_headers)
  add_library(${addon} MODULE ${arg_SOURCES})
  target_include_directories(${addon} SYSTEM PRIVATE ${node_api_headers}/include ${node_addon_api})
  target_compile_definitions(${addon} PRIVATE NAPI_VERSION=9 NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS
    NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS NODE_GYP_MODULE_NAME=${addon} BUILDING_NODE_EXTENSION)
  target_link_libraries(${addon} PRIVATE tenon_sdk ${arg_LIBRARIES})
  if(APPLE)
    target_link_options(${addon} PRIVATE -undefined dynamic_lookup)
  else()
    # The C++ library that Node brings along may be older than the compiler's. What nobody calls of it is left out, and libgcc is
    # Node's: both would ask for as new a C library as the building machine has.
    target_link_options(${addon} PRIVATE -static-libstdc++ -Wl,--gc-sections -Wl,--version-script=${TENON_EXPORTS}
      $<$<STREQUAL:"${TENON_SANITIZE}","">:-Wl,-s>)
  endif()
  if(TENON_SANITIZE STREQUAL "address" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # With these checks, g++ no longer compares a function's address with null at compile time, as node-addon-api needs.
    target_compile_options(${addon} PRIVATE -fno-sanitize=null,nonnull-attribute,returns-nonnull-attribute)
  endif()
  set_target_properties(${addon} PROPERTIES LINK_DEPENDS ${TENON_EXPORTS} PREFIX "" SUFFIX ".node"
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/Release)
endfunction()
