// SPDX-License-Identifier: Apache-2.0
// What the CPU back end's files share. The kernels are compiled once per instruction set; KERNEL_ISA names
// the one at hand and ends the name of each of their external functions. Work is cut into tasks by shapes
// alone; a task owns its outputs, so results do not depend on the thread count.
#ifndef ORRERY_KERNELS_CPU_CPU_H
#define ORRERY_KERNELS_CPU_CPU_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels/device.h"
#include "kernels/ops.h"

struct team;

struct cpu_device {
    struct device base;
    const char *isa;
    struct team *team; // NULL: one thread
    void *scratch;     // grows in the first step, then stays
    size_t scratch_bytes;
};

// Working memory of one op call, 64-byte aligned; the next call may overwrite it.
int cpu_scratch(struct device *d, void **out, size_t bytes, struct err *e) ERR_CHECK;

// fn(arg, task) for every task in 0..tasks-1, on the device's threads; in order on one thread.
typedef void cpu_task_fn(void *arg, int64_t task);
void cpu_run(struct device *d, int64_t tasks, cpu_task_fn *fn, void *arg);

static inline int64_t cpu_blocks(int64_t n, int64_t size) {
    return (n + size - 1) / size;
}
static inline int64_t cpu_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

#define CPU_JOIN_(a, b) a##_##b
#define CPU_JOIN(a, b)  CPU_JOIN_(a, b)
#ifdef KERNEL_ISA
#define CPU_FN(name) CPU_JOIN(cpu_##name, KERNEL_ISA)

#define OP(name, doc) int CPU_FN(name)(struct device * d, const struct op_##name##_args *a, struct err *e);
#include "kernels/ops.def"
#undef OP
#endif

// Refuses arguments that do not fit together. Only before anything is acquired.
#define CPU_REQUIRE(condition)                                                                               \
    do {                                                                                                     \
        if (!(condition)) return err_set(e, ERR_BUG, "%s: not so: %s", __func__, #condition);                \
    } while (0)

static inline bool cpu_is_rows(const struct tensor *t, int64_t rows, int64_t cols) {
    return t->data != NULL && t->dtype == DTYPE_F32 && t->rank == 2 && t->shape[0] == rows &&
           t->shape[1] == cols && t->stride[1] == 1 && t->stride[0] >= cols;
}
static inline bool cpu_is_vector(const struct tensor *t, int64_t n) {
    return t->data != NULL && t->dtype == DTYPE_F32 && tensor_elems(t) == n;
}
static inline float *cpu_row(const struct tensor *t, int64_t row) {
    return (float *)t->data + row * t->stride[0];
}

#endif
