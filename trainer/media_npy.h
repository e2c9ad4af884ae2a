// SPDX-License-Identifier: Apache-2.0
// NumPy arrays (.npy format 1.0 to 3.0): a bounded reader and a writer of float32. Little-endian, C order,
// numbers only: no objects, no structures. The input is hostile: every size is checked before it is used.
#ifndef ORRERY_TRAINER_MEDIA_NPY_H
#define ORRERY_TRAINER_MEDIA_NPY_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define MEDIA_NPY_RANK_MAX 6

struct media_npy {
    int rank;
    int64_t shape[MEDIA_NPY_RANK_MAX];
    int64_t elems; // product of shape
    float *data;   // [elems], converted; owned
};

// Reads f4, f8, u1, i1, i2, u2, i4, u4, i8 into floats. At most max_elems. DATA: what is wrong with it.
int media_npy_read(const void *bytes, size_t n, int64_t max_elems, struct media_npy *out,
                   struct err *e) ERR_CHECK;
// DATA names the first row with a number that is none or infinite.
int media_npy_check_finite(const struct media_npy *a, struct err *e) ERR_CHECK;
void media_npy_fini(struct media_npy *a);
// Appends a version 1.0 file of "<f4".
int media_npy_write(struct buf *out, int rank, const int64_t *shape, const float *data,
                    struct err *e) ERR_CHECK;

#endif
