// SPDX-License-Identifier: Apache-2.0
// How kernels are launched: the one piece of syntax that a C++ compiler does not have. Under nvcc this is a
// launch on a stream; the CPU emulator of the tests (tests/simt) brings the same two macros.
#ifndef ORRERY_KERNELS_CUDA_LAUNCH_H
#define ORRERY_KERNELS_CUDA_LAUNCH_H

#include <cuda_runtime.h>

#ifdef __CUDACC__
// LAUNCH(kernel, dim3 grid, dim3 block, dynamic shared bytes, stream, arguments...) -> cudaError_t. A kernel
// with commas in its template arguments goes in parentheses. More than 32 KB of shared memory: launch_room
// first. Arguments have no side effects.
// clang-format off
#define LAUNCH(kernel, grid, block, bytes, stream, ...)                                                      \
    (kernel<<<(grid), (block), (bytes), (stream)>>>(__VA_ARGS__), cudaGetLastError())
// clang-format on
// LAUNCH with clusters of two blocks; their number is even.
template <class... P, class... A>
static inline cudaError_t launch_pairs(void (*kernel)(P...), dim3 grid, dim3 block, size_t bytes,
                                       cudaStream_t stream, const A &...arguments) {
    cudaLaunchAttribute pairs = {};
    pairs.id = cudaLaunchAttributeClusterDimension;
    pairs.val.clusterDim = {2, 1, 1};
    cudaLaunchConfig_t c = {};
    c.gridDim = grid, c.blockDim = block, c.dynamicSmemBytes = bytes, c.stream = stream;
    c.attrs = &pairs, c.numAttrs = 1;
    (void)cudaLaunchKernelEx(&c, kernel, arguments...);
    return cudaGetLastError(); // and forgets it
}
// In a kernel: unsigned char *name, the block's dynamic shared memory, 1024-byte aligned.
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#endif

// Asked for from 32 KB on: what a kernel has besides, of fixed size and in alignment, counts towards the 48.
template <class K> static inline cudaError_t launch_room(K *kernel, size_t bytes) {
    return bytes <= 32 * 1024
               ? cudaSuccess
               : cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

#endif
