// SPDX-License-Identifier: Apache-2.0
// Starting weights. The stream's own draws, cut into tasks at its blocks of two normals.
#include "kernels/cpu/cpu.h"

enum { DRAW_TASK = 4096 }; // elements: whole blocks

static void draw_task(void *arg, int64_t task) {
    const struct op_draw_args *a = arg;
    int64_t cols = a->w.shape[1], lo = task * DRAW_TASK, hi = cpu_min(lo + DRAW_TASK, tensor_elems(&a->w));
    struct rng_stream r;
    rng_stream_init(&r, a->key, 0, 0);
    r.element = (uint32_t)(lo / 2);
    for (int64_t i = lo; i < hi; i++) {
        double scale = i % cols < a->first_cols ? a->first_scale : a->rest_scale;
        cpu_row(&a->w, i / cols)[i % cols] = (float)(scale * rng_next_normal(&r));
    }
}

int CPU_FN(draw)(struct device *d, const struct op_draw_args *a, struct err *e) {
    CPU_REQUIRE(cpu_is_rows(&a->w, a->w.shape[0], a->w.shape[1]) && tensor_elems(&a->w) / 2 < UINT32_MAX);
    cpu_run(d, cpu_blocks(tensor_elems(&a->w), DRAW_TASK), draw_task, (void *)a);
    return 0;
}
