// SPDX-License-Identifier: Apache-2.0
// Tensor views: a typed, strided window on memory that somebody else owns. No allocation, no arithmetic.
#ifndef ORRERY_KERNELS_TENSOR_H
#define ORRERY_KERNELS_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype { DTYPE_F32, DTYPE_BF16 };

static inline size_t dtype_bytes(enum dtype t) {
    return t == DTYPE_BF16 ? 2 : 4;
}

#define TENSOR_DIMS 4

// Row-major; stride counts elements; the last dimension is contiguous. data may be NULL where an op says that
// an argument is optional.
struct tensor {
    void *data;
    enum dtype dtype;
    int rank;
    int64_t shape[TENSOR_DIMS];
    int64_t stride[TENSOR_DIMS];
};

static inline struct tensor tensor_1d(void *data, int64_t n) {
    struct tensor t = {data, DTYPE_F32, 1, {n, 1, 1, 1}, {1, 1, 1, 1}};
    return t;
}

static inline struct tensor tensor_2d(void *data, int64_t rows, int64_t cols) {
    struct tensor t = {data, DTYPE_F32, 2, {rows, cols, 1, 1}, {cols, 1, 1, 1}};
    return t;
}

// Rows that lie ld elements apart (a slice of columns of a wider matrix).
static inline struct tensor tensor_rows(void *data, int64_t rows, int64_t cols, int64_t ld) {
    struct tensor t = {data, DTYPE_F32, 2, {rows, cols, 1, 1}, {ld, 1, 1, 1}};
    return t;
}

static inline struct tensor tensor_none(void) {
    struct tensor t = {NULL, DTYPE_F32, 0, {0, 0, 0, 0}, {0, 0, 0, 0}};
    return t;
}

static inline float *tensor_f32(const struct tensor *t) {
    return (float *)t->data;
}

static inline int64_t tensor_elems(const struct tensor *t) {
    int64_t n = 1;
    for (int d = 0; d < t->rank; d++) n *= t->shape[d];
    return n;
}

#endif
