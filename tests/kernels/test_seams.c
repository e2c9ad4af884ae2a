// SPDX-License-Identifier: Apache-2.0
// Masks, the arena, the device, the team.
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/cpu/team.h"
#include "kernels/device.h"
#include "kernels/mask.h"
#include "kernels/ops.h"
#include "mask_make.h"

struct frames {
    int64_t per_frame, window, skipped;
};

static int block_causal_visible(void *arg, int64_t q, int64_t k) {
    const struct frames *f = arg;
    int64_t qf = f->skipped + q / f->per_frame, kf = k / f->per_frame;
    return kf <= qf && (f->window == 0 || kf > qf - f->window);
}

static void same_mask(const struct mask *a, const struct mask *b) {
    assert_int_equal(a->queries, b->queries);
    assert_int_equal(a->keys, b->keys);
    assert_int_equal(a->n_runs, b->n_runs);
    assert_int_equal(a->n_intervals, b->n_intervals);
    assert_memory_equal(a->runs, b->runs, (size_t)a->n_runs * sizeof *a->runs);
    assert_memory_equal(a->intervals, b->intervals, (size_t)a->n_intervals * sizeof *a->intervals);
}

static void block_causal_is_its_predicate(void **state) {
    struct err e = {0};
    for (int64_t window = 0; window <= 4; window++) {
        for (int64_t last = 1; last <= 5; last++) {
            struct frames f = {3, window, 5 - last};
            struct mask a, b = mask_make(last * 3, 15, block_causal_visible, &f);
            assert_int_equal(mask_block_causal(&a, 5, 3, window, last, &e), 0);
            assert_int_equal(mask_check(&a, &e), 0);
            assert_int_equal(mask_check(&b, &e), 0);
            assert_int_equal(mask_pairs(&a), mask_pairs(&b));
            if (last > 1 && window != 1) same_mask(&a, &b);
            mask_fini(&a);
            mask_fini(&b);
        }
    }
}

static void full_sees_all(void **state) {
    struct err e = {0};
    struct mask m = mask_make_full(7, 11);
    assert_int_equal(mask_check(&m, &e), 0);
    assert_int_equal(mask_pairs(&m), 77);
    mask_fini(&m);
}

static void nonsense_is_refused(void **state) {
    struct err e = {0};
    struct mask m;
    assert_int_not_equal(mask_block_causal(&m, INT64_MAX / 2, 1000, 0, 1, &e), 0);
    err_clear(&e);
    m = mask_make_full(4, 4);
    m.intervals[0].hi = 5;
    assert_int_not_equal(mask_check(&m, &e), 0);
    err_clear(&e);
    m.intervals[0].hi = 4;
    m.runs[0].q_hi = 3;
    assert_int_not_equal(mask_check(&m, &e), 0);
    mask_fini(&m);
}

static void arena_hands_out_what_was_planned(void **state) {
    struct err e = {0};
    struct device *d = NULL;
    struct arena a;
    void *p = NULL, *q = NULL;
    assert_int_equal(device_open_cpu(&d, 1, &e), 0);
    assert_int_equal(arena_init(&a, d, 256, &e), 0);
    assert_int_equal(arena_take(&a, &p, 10, &e), 0);
    size_t mark = arena_mark(&a);
    assert_int_equal(arena_take(&a, &q, 192, &e), 0);
    assert_int_equal((uintptr_t)p % 64 + (uintptr_t)q % 64, 0);
    assert_int_equal((char *)q - (char *)p, 64);
    assert_int_equal(arena_take(&a, &q, 1, &e), -ERR_BUG);
    assert_non_null(strstr(e.text, "256"));
    arena_rewind(&a, mark);
    err_clear(&e);
    assert_int_equal(arena_take(&a, &q, 192, &e), 0);
    assert_int_equal(a.peak, 256);
    arena_fini(&a);
    device_close(d);
}

static void unknown_isa_is_named(void **state) {
    struct err e = {0};
    struct device *d = NULL;
    setenv("ORRERY_ISA", "mmx", 1);
    assert_int_equal(device_open_cpu(&d, 1, &e), -ERR_USAGE);
    assert_non_null(strstr(e.text, "mmx"));
    unsetenv("ORRERY_ISA");
    device_close(NULL);
}

static void device_adds_and_copies(void **state) {
    struct err e = {0};
    struct device *d = NULL;
    enum { N = 100001 };
    assert_int_equal(device_open_cpu(&d, 2, &e), 0);
    float *x = malloc(N * sizeof *x);
    void *y = NULL;
    assert_int_equal(d->vtable->alloc(d, &y, N * sizeof *x, &e), 0);
    assert_int_equal(d->vtable->zero(d, y, N * sizeof *x, &e), 0);
    for (int i = 0; i < N; i++) x[i] = (float)i;
    assert_int_equal(d->vtable->add(d, y, y, x, N, &e), 0);
    assert_int_equal(d->vtable->add(d, y, y, x, N, &e), 0);
    assert_int_equal(d->vtable->copy_out(d, x, y, N * sizeof *x, &e), 0);
    assert_int_equal(d->vtable->sync(d, &e), 0);
    for (int i = 0; i < N; i++) assert_true(x[i] == 2 * (float)i);
    struct device_info info;
    device_describe(d, &info);
    assert_int_equal(info.threads, 2);
    assert_true(info.memory_bytes > 0 && info.model[0] != '\0');
    d->vtable->release(d, y);
    free(x);
    device_close(d);
}

static void misfits_are_refused(void **state) {
    struct err e = {0};
    struct device *d = NULL;
    float x[16] = {0};
    assert_int_equal(device_open_cpu(&d, 1, &e), 0);
    struct op_gemm_args g = {.a = tensor_2d(x, 2, 3), .b = tensor_2d(x, 2, 3), .c = tensor_2d(x, 2, 3)};
    assert_int_equal(d->ops->gemm(d, &g, &e), -ERR_BUG);
    assert_non_null(strstr(e.text, "gemm"));
    device_close(d);
}

// Each matrix [rows, cols] of so many at a time, by hand; and a larger batch is refused.
static void muon_takes_what_fills_a_gpu(void **state) {
    static const struct {
        int64_t rows, cols;
        int most;
    } of[] = {{1, 1, 256},     {96, 256, 256},  {129, 129, 64},  {1024, 1024, 4},
              {4096, 1024, 4}, {768, 3072, 7},  {2048, 2048, 1}, {8192, 8192, 1},
              {128, 16384, 8}, {1, 1 << 25, 1}, {1536, 1536, 2}, {640, 640, 11}};
    struct err e = {0};
    struct device *d = NULL;
    float x[1] = {0};
    const int64_t at[257] = {0};
    const struct op_update now = {.skip = 1};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        int most = op_muon_most(of[i].rows, of[i].cols);
        assert_int_equal(most, of[i].most);
        assert_int_equal(most, op_muon_most(of[i].cols, of[i].rows));
        if (most > 1) assert_true(op_muon_work_elems(of[i].rows, of[i].cols, most) <= 256 << 18);
    }
    struct op_muon_args a = {.rows = 1, .cols = 1, .at = at, .count = 257, .now = &now};
    a.w = a.g = a.m = tensor_1d(x, 1);
    float *work = calloc((size_t)op_muon_work_elems(1, 1, 257), sizeof *work);
    a.work = tensor_1d(work, op_muon_work_elems(1, 1, 257));
    assert_int_equal(device_open_cpu(&d, 1, &e), 0);
    assert_int_equal(d->ops->muon(d, &a, &e), -ERR_BUG);
    a.count = 1;
    assert_int_equal(d->ops->muon(d, &a, &e), 0);
    device_close(d);
    free(work);
}

struct marks {
    _Atomic int seen[500];
};

static void mark(void *arg, int64_t task) {
    struct marks *m = arg;
    atomic_fetch_add(&m->seen[task], 1);
}

static void team_does_every_task_once(void **state) {
    struct err e = {0};
    for (int threads = 1; threads <= 5; threads += 2) {
        struct team *t = NULL;
        assert_int_equal(team_create(&t, threads, &e), 0);
        for (int job = 0; job < 400; job++) {
            struct marks m = {0};
            int64_t tasks = job % 7 == 0 ? 500 : job % 5;
            team_run(t, tasks, mark, &m);
            for (int64_t i = 0; i < 500; i++) assert_int_equal(m.seen[i], i < tasks);
            if (job % 100 == 0) usleep(2000); // long enough for the members to fall asleep
        }
        team_destroy(t);
    }
    struct team *none = NULL;
    assert_int_equal(team_create(&none, 1 << 20, &e), -ERR_USAGE);
}

static void threads_follow_the_environment(void **state) {
    const char *before = getenv("OMP_NUM_THREADS");
    char *keep = before != NULL ? strdup(before) : NULL;
    setenv("OMP_NUM_THREADS", "3", 1);
    assert_int_equal(team_default_threads(), 3);
    setenv("OMP_NUM_THREADS", "-3", 1);
    assert_true(team_default_threads() >= 1);
    unsetenv("OMP_NUM_THREADS");
    if (keep != NULL) setenv("OMP_NUM_THREADS", keep, 1);
    free(keep);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_causal_is_its_predicate), cmocka_unit_test(full_sees_all),
        cmocka_unit_test(nonsense_is_refused),           cmocka_unit_test(arena_hands_out_what_was_planned),
        cmocka_unit_test(unknown_isa_is_named),          cmocka_unit_test(device_adds_and_copies),
        cmocka_unit_test(misfits_are_refused),           cmocka_unit_test(muon_takes_what_fills_a_gpu),
        cmocka_unit_test(team_does_every_task_once),     cmocka_unit_test(threads_follow_the_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
