// SPDX-License-Identifier: Apache-2.0
// A CUDA device that the emulator runs, for C tests. Device memory is host memory.
#ifndef ORRERY_TESTS_KERNELS_EMULATED_H
#define ORRERY_TESTS_KERNELS_EMULATED_H

#include <stdbool.h>

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

// compute: 80 or 90. seed: the order of threads, and the pace of blocks, which run side by side; 0: in order,
// one block after another. late: asynchronous work is put off as long as allowed.
struct device *emulated_open(int compute, unsigned seed, bool late_copies, bool late_products);
void emulated_close(struct device *d);
void emulated_pairs(struct device *d, bool pairs);           // always or never; else where they pay
void emulated_free_order(struct device *d, bool free_order); // of the backward's sums of dq
// The device may use these rows (not what lies between them), or no longer. Holds something: is not to be
// written before it is read.
void emulated_lend(void *at, int64_t rows, size_t row_bytes, size_t apart, bool holds_something);
void emulated_take_back(void *at, int64_t rows, size_t row_bytes, size_t apart);
// Where the schedule of a mask lies; while something is recorded, or not.
int emulated_schedule(struct device *d, const struct mask *m, bool recording, const void **at, struct err *e);
int emulated_attention(struct device *d, const struct op_attention_args *a, struct err *e);
int emulated_attention_backward(struct device *d, const struct op_attention_backward_args *a, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
