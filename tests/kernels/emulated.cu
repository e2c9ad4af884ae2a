// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/attention.cuh" // first: it gives the C headers their linkage

#include <stdlib.h>

#include "tests/kernels/emulated.h"

struct emulated {
    struct cuda_device cuda; // first
    void *scratch;
};

int cuda_check(cudaError_t rc, const char *what, struct err *e) {
    return rc == cudaSuccess ? 0 : err_set(e, ERR_DEVICE, "%s: %s", what, cudaGetErrorString(rc));
}

// Fresh and poisoned each time, so that nobody leans on what another call left there.
int cuda_scratch(struct device *d, void **out, size_t bytes, struct err *e) {
    struct emulated *m = (struct emulated *)d;
    cudaFree(m->scratch);
    m->scratch = NULL;
    int rc = cuda_check(cudaMalloc(&m->scratch, bytes), "scratch", e);
    *out = m->scratch;
    return rc;
}

int cuda_upload(struct device *d, void *to, const void *src, size_t bytes, struct err *e) {
    return cuda_check(cudaMemcpy(to, src, bytes, cudaMemcpyHostToDevice), "upload", e);
}

struct device *emulated_open(int compute, unsigned seed, bool late_copies, bool late_products) {
    struct emulated *m = (struct emulated *)calloc(1, sizeof *m);
    m->cuda.compute = compute;
    m->cuda.multiprocessors = 4; // two pairs
    simt_options.seed = seed;
    simt_options.blocks = seed == 0 ? 1 : m->cuda.multiprocessors;
    simt_options.late_copies = late_copies;
    simt_options.late_products = late_products;
    return &m->cuda.base;
}

void emulated_close(struct device *d) {
    struct emulated *m = (struct emulated *)d;
    cuda_attention_close(d);
    cudaFree(m->scratch);
    free(m);
}

void emulated_pairs(struct device *d, bool pairs) {
    ((struct emulated *)d)->cuda.attention_pairs = pairs ? ATTENTION_PAIRS_ALWAYS : ATTENTION_PAIRS_NEVER;
}

void emulated_free_order(struct device *d, bool free_order) {
    ((struct emulated *)d)->cuda.attention_free_order = free_order;
}

int emulated_schedule(struct device *d, const struct mask *m, bool recording, const void **at,
                      struct err *e) {
    const struct attention_schedule *s = NULL;
    cuda_of(d)->recording = recording;
    int rc = attention_schedule(cuda_of(d), &m, 1, {64, 64, false}, &s, e);
    cuda_of(d)->recording = false;
    if (!rc) *at = s->view;
    return rc;
}

void emulated_lend(void *at, int64_t rows, size_t row_bytes, size_t apart, bool holds_something) {
    for (char *row = (char *)at; simt_watched != NULL && rows > 0; rows--, row += apart) {
        simt_watched->allocated(row, row_bytes);
        if (holds_something) simt_watched->written(row, row_bytes);
    }
}

void emulated_take_back(void *at, int64_t rows, size_t row_bytes, size_t apart) {
    for (char *row = (char *)at; simt_watched != NULL && rows > 0; rows--, row += apart)
        simt_watched->freed(row, row_bytes);
}

int emulated_attention(struct device *d, const struct op_attention_args *a, struct err *e) {
    return cuda_attention(d, a, e);
}

int emulated_attention_backward(struct device *d, const struct op_attention_backward_args *a, struct err *e) {
    return cuda_attention_backward(d, a, e);
}
