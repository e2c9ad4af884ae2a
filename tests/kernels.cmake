# SPDX-License-Identifier: Apache-2.0
orrery_test(seams kernels kernels/test_seams.c orrery_kernels)
orrery_test(mask_tiles kernels kernels/test_mask_tiles.c orrery_kernels)
orrery_test(ops kernels kernels/test_ops.c orrery_kernels)
target_sources(test_ops PRIVATE kernels/trial.c kernels/check_linear.c kernels/check_norm.c kernels/check_attention.c
  kernels/check_embed.c kernels/check_optim.c)

# Kernels of the GPU, run on the CPU. Fibers and the sanitizers' view of stacks do not go together.
if(NOT SANITIZE)
  orrery_simt_test(simt tests/simt/test_simt.c tests/simt/test_simt.cu)
  orrery_simt_test(cuda_attention tests/kernels/test_cuda_attention.c tests/kernels/emulated.cu
    kernels/cuda/attention.cu kernels/cuda/attention_sm80.cu
    kernels/cuda/attention_sm90_forward.cu kernels/cuda/attention_sm90_backward.cu)
endif()

orrery_script(cuda_static kernels python3 tests/kernels/cuda_static.py)

# Measures; never run by ctest.
add_executable(bench_kernels bench/bench_kernels.c)
target_link_libraries(bench_kernels PRIVATE orrery_kernels)
add_library(peer_attention SHARED bench/peer_attention.c)
target_link_libraries(peer_attention PRIVATE orrery_kernels)
set_target_properties(peer_attention PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
