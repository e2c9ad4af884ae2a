// SPDX-License-Identifier: Apache-2.0
// A device: memory and an ordered queue of work. `cpu` runs everything at once on the caller's thread (and
// a team of threads); a GPU back end runs in order on a stream. Thread rule: one thread per device.
#ifndef ORRERY_KERNELS_DEVICE_H
#define ORRERY_KERNELS_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels/tensor.h"

struct ops;
struct device;
struct device_info;

// Queues besides a GPU's first, and marks in them: for the back end of coll.h that works beside the kernels.
struct device_queues {
    int (*open)(struct device *d, void **queue, struct err *e);
    void (*close)(struct device *d, void *queue);
    // What is put into `queue` from now on waits for what the device's first queue holds now.
    int (*follow)(struct device *d, void *queue, struct err *e);
    // What is put into the first queue from now on waits for the mark.
    int (*join)(struct device *d, void *mark, struct err *e);
    // Behind all that the queue holds now; NULL: the first one.
    int (*mark)(struct device *d, void *queue, void **mark, struct err *e);
    int (*reached)(struct device *d, void *mark, bool *yes, struct err *e);
    void (*unmark)(struct device *d, void *mark);
};

// Work that is recorded once and repeated with one call. Recorded work reads and writes the memory that it
// was recorded with, and no host memory.
struct device_graphs {
    // From begin to end the first queue, and what follows and joins it, records and does not run.
    int (*begin)(struct device *d, struct err *e);
    int (*end)(struct device *d, void **graph, struct err *e);
    int (*launch)(struct device *d, void *graph, struct err *e); // into the first queue
    void (*release)(struct device *d, void *graph);              // NULL-safe
};

// Named stretches of the host's work, one inside another, for a profiler's timeline. `name` is static text;
// number -1: none.
struct device_ranges {
    void (*push)(const char *name, int64_t number);
    void (*pop)(void);
};

struct device_vtable {
    const char *name;                                                        // "cpu"
    int (*alloc)(struct device *d, void **out, size_t bytes, struct err *e); // 64-byte aligned, not cleared
    void (*release)(struct device *d, void *p);
    // Host memory may be used again when they return.
    int (*copy_in)(struct device *d, void *dst, const void *host_src, size_t bytes, struct err *e);
    int (*copy_out)(struct device *d, void *host_dst, const void *src, size_t bytes, struct err *e);
    int (*zero)(struct device *d, void *dst, size_t bytes, struct err *e);
    int (*copy)(struct device *d, void *dst, const void *src, size_t bytes,
                struct err *e); // device to device
    // dst[i] = a[i] + b[i], float32, exactly that order; dst may be a or b. The sum of the exact reduction.
    int (*add)(struct device *d, float *dst, const float *a, const float *b, int64_t n, struct err *e);
    int (*sync)(struct device *d, struct err *e); // waits for all queued work; reports its errors
    void (*describe)(const struct device *d, struct device_info *out);
    void (*close)(struct device *d);
    const struct device_queues *queues; // NULL: everything is over when a call returns
    const struct device_graphs *graphs; // NULL: there is nothing to gain
    const struct device_ranges *ranges; // NULL: no profiler would see them
};

// Memory that peers reach without a copy in between, where a back end of coll.h offers it; it sets this in a
// device, and takes it away again when it closes.
struct device_shared {
    void *arg; // NULL: nobody offers it
    // `alike`: all ranks take a block of this size now. One that cannot be reached is an ordinary one.
    int (*alloc)(void *arg, void **out, size_t bytes, bool alike, struct err *e);
    void (*release)(void *arg, void *p);
};

struct device {
    const struct device_vtable *vtable;
    const struct ops *ops; // kernels/ops.h
    int threads;           // of the CPU back end
    bool host_memory;      // device memory is the host's: pointers go both ways, nothing needs a copy
    enum dtype compute;    // of activations and of the weights that products read; sums are fp32 everywhere
    uint64_t identity;     // the same number only for the same piece of hardware; 0: shared without harm
    uint64_t generation;   // counts up when memory of the device's own went that recorded work may refer to
    // Its queues may wait for a peer that never comes: releases and close return at once and give nothing
    // back, since giving back waits. The process must end right away. Set by coll.h's back ends.
    bool lost;
    struct device_shared shared;
};

struct device_info {
    char model[128]; // "AMD EPYC, avx512f" or the GPU's name
    int threads;
    int compute;                      // of a GPU: 90 for compute capability 9.0; 0: none
    int64_t memory_bytes, free_bytes; // free: -1 not known
};

// `threads` 0: OMP_NUM_THREADS, else all cores that machine.h counts. Results never depend on it.
int device_open_cpu(struct device **out, int threads, struct err *e) ERR_CHECK;
void device_close(struct device *d); // NULL-safe

static inline void device_push(const struct device *d, const char *name, int64_t number) {
    if (d->vtable->ranges) d->vtable->ranges->push(name, number);
}
static inline void device_pop(const struct device *d) {
    if (d->vtable->ranges) d->vtable->ranges->pop();
}

// For what is reduced, gathered and exchanged: memory as from alloc, and reachable for peers where that is
// offered. With `alike` all ranks call it together. To be released before the coll is closed.
int device_alloc_shared(struct device *d, void **out, size_t bytes, bool alike, struct err *e) ERR_CHECK;
void device_release_shared(struct device *d, void *p);

enum device_precision { DEVICE_BF16, DEVICE_FP32, DEVICE_TF32 }; // of a GPU's products
struct device_gpu_options {
    int local_rank; // takes GPU number local_rank of those that this process sees, counted round
    enum device_precision precision;
};
// Loads liborrery_cuda.so, which lies beside the program (or where ORRERY_CUDA_PLUGIN says), and opens a GPU.
// ABSENT: there is no plug-in, no driver or no GPU, or one that is too old; one line with the cure.
int device_open_gpu(struct device **out, const struct device_gpu_options *o, struct err *e) ERR_CHECK;

// What liborrery_cuda.so exports as `orrery_plugin`. Its first words are those of every version.
#define DEVICE_PLUGIN_ABI 5
struct coll;
struct coll_options;
struct device_plugin {
    uint32_t abi, ops_bytes; // DEVICE_PLUGIN_ABI, sizeof(struct ops)
    const char *version;     // of Orrery
    int (*open)(struct device **out, const struct device_gpu_options *o, struct err *e);
    // The NCCL back end of coll.h above the host's own, which it takes over when it succeeds.
    int (*coll_open)(struct coll **out, struct coll *host, const struct coll_options *o, struct err *e);
};
int device_plugin(const struct device_plugin **out, struct err *e) ERR_CHECK;
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
