# SPDX-License-Identifier: Apache-2.0
orrery_test(seams kernels kernels/test_seams.c orrery_kernels)
orrery_test(mask_tiles kernels kernels/test_mask_tiles.c orrery_kernels)
orrery_test(rounding kernels kernels/test_rounding.c orrery_kernels)
orrery_test(ops kernels kernels/test_ops.c orrery_kernels)
target_sources(test_ops PRIVATE kernels/trial.c kernels/check_linear.c kernels/check_norm.c kernels/check_attention.c
  kernels/check_embed.c kernels/check_optim.c)

# Kernels of the GPU, run on the CPU. Fibers and the sanitizers' view of stacks do not go together.
if(NOT SANITIZE)
  orrery_simt_test(simt tests/simt/test_simt.c tests/simt/test_simt.cu)
  orrery_simt_test(cuda_attention tests/kernels/test_cuda_attention.c tests/kernels/emulated.cu
    kernels/cuda/attention.cu kernels/cuda/attention_schedules.cu kernels/cuda/attention_sm80.cu
    kernels/cuda/attention_sm90_forward.cu kernels/cuda/attention_sm90_backward.cu)
  orrery_simt_test(probes tests/kernels/test_probes.c tests/bench/gpu/probes.cu tests/kernels/emulated.cu
    kernels/cuda/attention.cu kernels/cuda/attention_schedules.cu kernels/cuda/attention_sm80.cu
    kernels/cuda/attention_sm90_forward.cu kernels/cuda/attention_sm90_backward.cu)
endif()

if(NOT SANITIZE) # nvcc's work, which is the same there
  orrery_script(cuda_static kernels python3 tests/kernels/cuda_static.py)
  orrery_script(gpu_alone kernels tests/kernels/gpu_alone.sh)
  orrery_script(gpu_peers kernels python3 tests/kernels/gpu_peers.py)
  orrery_script(cute_peer kernels tests/kernels/cute_peer.sh)
  orrery_script(peer_fa3 kernels tests/kernels/peer_fa3.sh)
endif()

# The whole plug-in on the emulator, with cuBLASLt's surface and a stand-in for NCCL: ORRERY_CUDA_PLUGIN names it, and
# orrery-rank and the op tests believe that they have a GPU.
if(CMAKE_CXX_COMPILER AND NOT SANITIZE AND NOT COVERAGE AND NOT FUZZ)
  list(TRANSFORM ORRERY_CUDA_SOURCES PREPEND ${CMAKE_SOURCE_DIR}/kernels/cuda/ OUTPUT_VARIABLE gpu_kernels)
  set_source_files_properties(${gpu_kernels} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")
  add_library(orrery_simt MODULE ${gpu_kernels} ${CMAKE_SOURCE_DIR}/kernels/cuda/plugin.c
    ${CMAKE_SOURCE_DIR}/comm/coll_nccl.c simt/simt.cc simt/cublaslt.cc ${ORRERY_PTX_SOURCES})
  set_target_properties(orrery_simt PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests CXX_STANDARD 17
    CXX_VISIBILITY_PRESET hidden C_VISIBILITY_PRESET hidden)
  target_include_directories(orrery_simt PRIVATE simt/include stub ${CMAKE_SOURCE_DIR})
  target_compile_definitions(orrery_simt PRIVATE _GNU_SOURCE ORRERY_VERSION="${PROJECT_VERSION}")
  target_compile_options(orrery_simt PRIVATE -O2 -Wall -Wextra -Wno-unused-parameter
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-unknown-pragmas -Wno-missing-field-initializers -Wno-psabi -fno-strict-aliasing -ffp-contract=fast>
    $<$<BOOL:${ORRERY_WERROR}>:-Werror>)
  target_link_libraries(orrery_simt PRIVATE $<TARGET_FILE:orrery_kernels> $<TARGET_FILE:orrery_base> ${CMAKE_DL_LIBS} m)
  target_link_options(orrery_simt PRIVATE -Wl,--exclude-libs,ALL -Wl,-z,defs)
  add_dependencies(orrery_simt orrery_kernels orrery_base)
  orrery_script(simt_train simt python3 tests/e2e/simt_train.py)
  orrery_script(simt_run simt python3 tests/e2e/simt_run.py)
  orrery_script(simt_memory simt python3 tests/e2e/simt_memory.py)
  orrery_test(step_graph simt unit/test_step_graph.c orrery_trainer)
  add_dependencies(test_step_graph orrery_simt)
  set_property(TEST simt.step_graph APPEND PROPERTY ENVIRONMENT "ORRERY_CUDA_PLUGIN=$<TARGET_FILE:orrery_simt>")
  add_test(NAME simt.ops COMMAND test_ops)
  set_tests_properties(simt.ops PROPERTIES LABELS simt TIMEOUT 900 ENVIRONMENT
    "ORRERY_TEST_DEVICE=cuda;ORRERY_TEST_LARGEST=80;ORRERY_CUDA_PLUGIN=$<TARGET_FILE:orrery_simt>")
endif()

# What nvcc makes of the kernels, run on the emulator with every access to memory watched (tests/ptx).
find_program(ORRERY_NVCC nvcc HINTS /usr/local/cuda/bin)
if(ORRERY_NVCC AND TARGET orrery_simt AND TARGET test_cuda_attention)
  set(ptx_folder ${CMAKE_BINARY_DIR}/tests/ptx)
  set(ptx_files)
  file(MAKE_DIRECTORY ${ptx_folder}/own)
  set(own ${CMAKE_CURRENT_SOURCE_DIR}/ptx/test_ptx.cu ${CMAKE_CURRENT_SOURCE_DIR}/bench/gpu/probes.cu) # of the tests
  foreach(source ${gpu_kernels} ${own})
    get_filename_component(name ${source} NAME_WE)
    set(ptx ${ptx_folder}/${name}.ptx)
    if(source IN_LIST own)
      set(ptx ${ptx_folder}/own/${name}.ptx)
    endif()
    add_custom_command(OUTPUT ${ptx} DEPENDS ${source} DEPFILE ${ptx}.d VERBATIM
      COMMAND ${ORRERY_NVCC} -ptx -arch=sm_90a -O3 -std=c++17 -lineinfo -diag-suppress=177 -I${CMAKE_SOURCE_DIR} -D_GNU_SOURCE
        -MD -MF ${ptx}.d -MT ${ptx} -o ${ptx} ${source})
    list(APPEND ptx_files ${ptx})
  endforeach()
  add_custom_target(ptx ALL DEPENDS ${ptx_files})
  orrery_simt_test(ptx tests/ptx/test_ptx.c tests/ptx/test_ptx.cu)
  add_dependencies(test_ptx ptx)
  set_property(TEST simt.ptx APPEND PROPERTY ENVIRONMENT "ORRERY_PTX=${ptx_folder}/own")
  add_test(NAME simt.ptx_probes COMMAND test_probes)
  set_tests_properties(simt.ptx_probes PROPERTIES LABELS simt TIMEOUT 300 ENVIRONMENT "ORRERY_PTX=${ptx_folder}/own")
  add_test(NAME simt.ptx_attention COMMAND test_cuda_attention)
  set_tests_properties(simt.ptx_attention PROPERTIES LABELS simt TIMEOUT 900 ENVIRONMENT "ORRERY_PTX=${ptx_folder}")
  add_test(NAME simt.ptx_ops COMMAND test_ops)
  set_tests_properties(simt.ptx_ops PROPERTIES LABELS simt TIMEOUT 900 ENVIRONMENT
    "ORRERY_PTX=${ptx_folder};ORRERY_TEST_DEVICE=cuda;ORRERY_TEST_LARGEST=80;ORRERY_CUDA_PLUGIN=$<TARGET_FILE:orrery_simt>")
  orrery_script(ptx_mutants simt python3 tests/ptx/mutants.py ${CMAKE_BINARY_DIR} short)
endif()

# Measures; never run by ctest.
add_executable(bench_kernels bench/bench_kernels.c)
target_link_libraries(bench_kernels PRIVATE orrery_kernels)
add_library(peer_attention SHARED bench/peer_attention.c)
target_link_libraries(peer_attention PRIVATE orrery_kernels)
set_target_properties(peer_attention PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
