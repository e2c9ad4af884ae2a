// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "kernels/device.h"

enum { ARENA_ALIGN = 64 };

void device_close(struct device *d) {
    if (d != NULL) d->vtable->close(d);
}

int device_alloc_shared(struct device *d, void **out, size_t bytes, bool alike, struct err *e) {
    if (!d->shared.arg) return d->vtable->alloc(d, out, bytes, e);
    return d->shared.alloc(d->shared.arg, out, bytes, alike, e);
}

void device_release_shared(struct device *d, void *p) {
    if (d->shared.arg)
        d->shared.release(d->shared.arg, p);
    else
        d->vtable->release(d, p);
}

void device_describe(const struct device *d, struct device_info *out) {
    memset(out, 0, sizeof *out);
    d->vtable->describe(d, out);
}

int arena_init(struct arena *a, struct device *d, size_t bytes, struct err *e) {
    memset(a, 0, sizeof *a);
    void *base = NULL;
    int rc = d->vtable->alloc(d, &base, bytes > 0 ? bytes : ARENA_ALIGN, e);
    if (rc != 0) return rc;
    *a = (struct arena){.device = d, .base = base, .size = bytes};
    return 0;
}

void arena_fini(struct arena *a) {
    if (a->base != NULL) a->device->vtable->release(a->device, a->base);
    memset(a, 0, sizeof *a);
}

int arena_take(struct arena *a, void **out, size_t bytes, struct err *e) {
    size_t left = a->size - a->used;
    if (bytes > left) {
        return err_set(e, ERR_BUG, "arena: %zu bytes asked for, %zu of %zu planned bytes left", bytes, left,
                       a->size);
    }
    *out = a->base + a->used;
    size_t padding = (ARENA_ALIGN - bytes % ARENA_ALIGN) % ARENA_ALIGN;
    a->used += bytes + (padding < left - bytes ? padding : left - bytes);
    if (a->used > a->peak) a->peak = a->used;
    return 0;
}

size_t arena_mark(const struct arena *a) {
    return a->used;
}

void arena_rewind(struct arena *a, size_t mark) {
    if (mark <= a->used) a->used = mark;
}
