// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/gpu/standalone.h"

int cuda_check(cudaError_t rc, const char *what, struct err *e) {
    return rc == cudaSuccess ? 0 : err_set(e, ERR_DEVICE, "%s: %s", what, cudaGetErrorString(rc));
}

int cuda_scratch(struct device *d, void **out, size_t bytes, struct err *e) {
    struct bench_device *b = (struct bench_device *)d;
    int rc = 0;
    if (bytes > b->bytes) {
        cudaFree(b->scratch);
        rc = cuda_check(cudaMalloc(&b->scratch, bytes), "scratch", e);
        b->bytes = bytes;
    }
    *out = b->scratch;
    return rc;
}

int cuda_upload(struct device *d, void *to, const void *src, size_t bytes, struct err *e) {
    cudaStream_t stream = ((struct bench_device *)d)->cuda.stream;
    int rc = cuda_check(cudaMemcpyAsync(to, src, bytes, cudaMemcpyHostToDevice, stream), "upload", e);
    return rc ? rc : cuda_check(cudaStreamSynchronize(stream), "upload", e);
}
