// SPDX-License-Identifier: Apache-2.0
// A .npy member that goes by in pieces, front to back: its shape, and its first number that is none or
// infinite. Only its header is kept. Whatever is no .npy, or one with a header that cannot be read, has no
// shape.
#ifndef ORRERY_STORAGE_NPY_SCAN_H
#define ORRERY_STORAGE_NPY_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/sample_meta.h"

#define NPY_HEAD_MAX 4096 // bytes in which the header must end
#define NPY_RANK_MAX 6

struct npy_shape {
    int rank; // -1: none
    int64_t dim[NPY_RANK_MAX];
};

struct npy_scan {
    struct npy_shape shape;
    int64_t bad; // the first number that is not finite; -1: none
    char head[NPY_HEAD_MAX];
    size_t n_head, header; // bytes of it; 0: not known yet
    bool dull;             // no .npy, or one of whole numbers: the rest is not looked at
    size_t width;          // bytes of a float
    int64_t seen;          // floats
    unsigned char part[8]; // of one that two pieces share
    size_t n_part;
};

void npy_scan_init(struct npy_scan *s);
void npy_scan_feed(struct npy_scan *s, const void *bytes, size_t n);
// Of a member that has gone by: "is [5, 64, 64, 3], its stream says [steps, 32, 32, 3]", "row 17 holds a
// number that is not finite". False: nothing is wrong with it as far as can be seen.
bool npy_shape_differs(const struct npy_shape *shape, const struct stream_schema *stream, char why[200]);
bool npy_scan_is_bad(const struct npy_scan *s, char why[200]);

#endif
