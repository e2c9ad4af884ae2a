// SPDX-License-Identifier: Apache-2.0
// A device: memory and an ordered queue of work. `cpu` runs everything at once on the caller's thread (and
// a team of threads); a GPU back end runs in order on a stream. Thread rule: one thread per device.
#ifndef ORRERY_KERNELS_DEVICE_H
#define ORRERY_KERNELS_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct ops;
struct device;

struct device_vtable {
    const char *name;                                                        // "cpu"
    int (*alloc)(struct device *d, void **out, size_t bytes, struct err *e); // 64-byte aligned, not cleared
    void (*release)(struct device *d, void *p);
    int (*copy_in)(struct device *d, void *dst, const void *host_src, size_t bytes, struct err *e);
    int (*copy_out)(struct device *d, void *host_dst, const void *src, size_t bytes, struct err *e);
    int (*zero)(struct device *d, void *dst, size_t bytes, struct err *e);
    // dst[i] = a[i] + b[i], float32, exactly that order; dst may be a or b. The sum of the exact reduction.
    int (*add)(struct device *d, float *dst, const float *a, const float *b, int64_t n, struct err *e);
    int (*sync)(struct device *d, struct err *e); // waits for all queued work; reports its errors
    void (*close)(struct device *d);
};

struct device {
    const struct device_vtable *vtable;
    const struct ops *ops; // kernels/ops.h
    int threads;           // of the CPU back end
};

struct device_info {
    char model[128]; // "AMD EPYC, avx512f" or the GPU's name
    int threads;
    int64_t memory_bytes;
};

// `threads` 0: OMP_NUM_THREADS, else all cores of the affinity mask. Results never depend on it.
int device_open_cpu(struct device **out, int threads, struct err *e) ERR_CHECK;
void device_close(struct device *d); // NULL-safe
void device_describe(const struct device *d, struct device_info *out);

// One block of device memory, planned at start and handed out front to back; nothing is freed singly.
struct arena {
    struct device *device;
    char *base;
    size_t size, used, peak;
};
int arena_init(struct arena *a, struct device *d, size_t bytes, struct err *e) ERR_CHECK;
void arena_fini(struct arena *a);
// 64-byte aligned; BUG when the plan was too small (it names both figures).
int arena_take(struct arena *a, void **out, size_t bytes, struct err *e) ERR_CHECK;
size_t arena_mark(const struct arena *a);
void arena_rewind(struct arena *a, size_t mark);

#endif
