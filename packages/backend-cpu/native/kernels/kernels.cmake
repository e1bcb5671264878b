# Sources of the CPU kernels, and the flags of each: one file per instruction set, chosen at run time. Sets
# TENON_KERNEL_SOURCES and TENON_KERNEL_DEFINITIONS; include it from the CMakeLists.txt that builds them.
#
# No contraction into fused multiply-adds other than those written: every tile size must round alike.
set(TENON_KERNEL_DIR ${CMAKE_CURRENT_LIST_DIR})
set(TENON_KERNEL_SOURCES ${TENON_KERNEL_DIR}/select.cpp ${TENON_KERNEL_DIR}/pack_grouped.cpp
    ${TENON_KERNEL_DIR}/isa_generic.cpp)
set(TENON_KERNEL_DEFINITIONS "")
# g++ 12 warns of its own intrinsics (GCC bug 105593).
set(_tenon_kernel_flags -ffp-contract=off -fno-math-errno -fno-exceptions -Wno-ignored-attributes
    -Wno-uninitialized -Wno-maybe-uninitialized)
set_source_files_properties(${TENON_KERNEL_DIR}/isa_generic.cpp PROPERTIES
  COMPILE_OPTIONS "-O2;${_tenon_kernel_flags}")

function(tenon_kernel_isa file)
  set_source_files_properties(${TENON_KERNEL_DIR}/${file} PROPERTIES COMPILE_OPTIONS "-O3;${_tenon_kernel_flags};${ARGN}")
endfunction()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(TENON_KERNEL_DEFINITIONS TENON_KERNELS_X86)
  foreach(_isa avx2 avx512 avx512_bf16 amx)
    list(APPEND TENON_KERNEL_SOURCES ${TENON_KERNEL_DIR}/isa_${_isa}.cpp)
  endforeach()
  set(_avx2 -mavx2 -mfma -mf16c)
  set(_avx512 ${_avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq)
  set(_avx512_bf16 ${_avx512} -mavx512bf16 -mavx512vnni)
  tenon_kernel_isa(isa_avx2.cpp ${_avx2})
  tenon_kernel_isa(isa_avx512.cpp ${_avx512})
  tenon_kernel_isa(isa_avx512_bf16.cpp ${_avx512_bf16})
  tenon_kernel_isa(isa_amx.cpp ${_avx512_bf16} -mamx-tile -mamx-bf16)
endif()

set(TENON_KERNEL_TEST_SOURCES)
foreach(_test kernels_test gemm_test gemm_grouped_test attention_test kv_write_test elementwise_test)
  list(APPEND TENON_KERNEL_TEST_SOURCES ${TENON_KERNEL_DIR}/tests/${_test}.cpp)
endforeach()
