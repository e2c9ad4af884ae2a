// SPDX-License-Identifier: Apache-2.0
// Metrics against cases worked out by hand: the perfect picture, the shifted one, the NaN.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "eval_set.h"
#include "trainer/baseline.h"
#include "trainer/eval_bootstrap.h"
#include "trainer/eval_record.h"
#include "trainer/metrics_image.h"
#include "trainer/metrics_signal.h"

#define SIDE             16
#define CLOSE(a, b, tol) assert_true(fabs((double)(a) - (double)(b)) <= (tol))

static const struct image_shape shape = {SIDE, SIDE, 2};
static const struct patch_grid grid = {SIDE, SIDE, 2, 8, 0};

static void draw(float *image, double x, double y) {
    memset(image, 0, sizeof(float) * SIDE * SIDE * 2);
    baseline_draw_disc(image, &grid, 0, x, y, 3, 1);
    baseline_draw_disc(image, &grid, 1, 16 - x, 16 - y, 2, 1);
}

static void a_perfect_picture_has_no_error(void **state) {
    float a[SIDE * SIDE * 2];
    double ssim, count;
    unsigned char region[SIDE * SIDE];
    struct err e = {0};
    draw(a, 8, 6);
    CLOSE(metrics_squared_error(a, a, SIDE * SIDE * 2), 0, 0);
    assert_int_equal(metrics_ssim(a, a, shape, &ssim, &e), 0);
    CLOSE(ssim, 1, 1e-6);
    metrics_moving_region(a, a, shape, region);
    CLOSE(metrics_region_error(a, a, shape, region, -1, &count), 0, 0);
    CLOSE(count, 0, 0);
    CLOSE(metrics_psnr(0), 90, 1e-9);
}

static void a_shift_by_one_pixel_is_seen(void **state) {
    float a[SIDE * SIDE * 2], b[SIDE * SIDE * 2];
    double ca[2], cb[2], ssim, count;
    unsigned char region[SIDE * SIDE];
    struct err e = {0};
    draw(a, 7, 6);
    draw(b, 8, 6);
    metrics_centroid(a, shape, 0, ca);
    metrics_centroid(b, shape, 0, cb);
    CLOSE(ca[0], 7, 0.02);
    CLOSE(ca[1], 6, 0.02);
    CLOSE(cb[0] - ca[0], 1, 0.02);
    CLOSE(cb[1] - ca[1], 0, 0.02);
    assert_int_equal(metrics_ssim(a, b, shape, &ssim, &e), 0);
    assert_true(ssim < 0.99 && ssim > 0.3);
    // Both discs move, so the whole error lies where something moved.
    metrics_moving_region(a, b, shape, region);
    double all = metrics_squared_error(a, b, SIDE * SIDE * 2);
    CLOSE(metrics_region_error(a, b, shape, region, -1, &count), all, 0.02 * all);
    assert_true(count > 0 && count < SIDE * SIDE * 2);
    // Near the pusher, its own channel alone counts.
    metrics_object_region(a, b, shape, 0, region);
    double own = metrics_region_error(a, b, shape, region, 0, &count);
    assert_true(own > 0 && own < all);
    assert_true(region[6 * SIDE + 7] && !region[15 * SIDE + 15]);
}

static void an_empty_picture_has_its_centroid_in_the_middle(void **state) {
    float a[SIDE * SIDE * 2] = {0};
    double c[2];
    metrics_centroid(a, shape, 1, c);
    CLOSE(c[0], 8, 1e-6);
    CLOSE(c[1], 8, 1e-6);
}

static void psnr_is_what_its_formula_says(void **state) {
    float a[4] = {0, 0, 0, 0}, b[4] = {0.1f, 0.1f, 0.1f, 0.1f};
    CLOSE(metrics_psnr(metrics_squared_error(a, b, 4) / 4), 20, 1e-5);
}

static void nan_is_never_good(void **state) {
    float a[SIDE * SIDE * 2], b[SIDE * SIDE * 2];
    double c[2], ssim, count;
    unsigned char region[SIDE * SIDE];
    struct err e = {0};
    draw(a, 7, 6);
    draw(b, 7, 6);
    b[2 * (6 * SIDE + 7)] = NAN;
    assert_true(isnan(metrics_psnr(metrics_squared_error(a, b, SIDE * SIDE * 2))));
    metrics_centroid(b, shape, 0, c);
    assert_true(isnan(c[0]));
    assert_int_equal(metrics_ssim(a, b, shape, &ssim, &e), 0);
    assert_true(isnan(ssim));
    metrics_moving_region(a, b, shape, region);
    assert_true(isnan(metrics_region_error(a, b, shape, region, -1, &count)));
    for (int bar = 0; bar < EVAL_BARS; bar++) assert_false(eval_bar_passes(bar, NAN));
}

static void touch_adds_up_over_subsamples(void **state) {
    float one[2] = {(float)asinh(3), (float)asinh(-4)};
    float two[4] = {(float)asinh(1), (float)asinh(-4), (float)asinh(2), 0};
    float none[4] = {0};
    CLOSE(metrics_impulse_error(two, none, 2, 2), 3 * 3 + 4 * 4, 1e-4);
    CLOSE(metrics_contact_level(one, 1, 2), hypot(asinh(3), asinh(4)), 1e-5);
    CLOSE(metrics_contact_level(two, 2, 2), metrics_contact_level(one, 1, 2), 1e-5);
    CLOSE(metrics_impulse_error(one, one, 1, 2), 0, 0);
}

static void sounds_rise_and_differ(void **state) {
    float quiet[4] = {0, 0, 0, 0}, loud[4] = {1, 1, 1, 1}, mixed[4] = {2, -2, 0, 0};
    CLOSE(metrics_rise(quiet, loud, 4), 1, 1e-9);
    CLOSE(metrics_rise(loud, quiet, 4), 0, 0);
    CLOSE(metrics_rise(quiet, mixed, 4), 0.5, 1e-9);
    CLOSE(metrics_spectral_distance(quiet, mixed, 4), sqrt(2), 1e-9);
}

static void f1_counts(void **state) {
    CLOSE(metrics_f1(4, 4, 4), 1, 0);
    CLOSE(metrics_f1(4, 2, 2), 2.0 / 3, 1e-12);
    CLOSE(metrics_f1(4, 0, 0), 0, 0);
    assert_true(isnan(metrics_f1(0, 0, 0)));
}

// ---- numbers of records.
#define HORIZON 6

static double *record_of(double model_error, double copy_error) {
    double *r = calloc((size_t)eval_record_elems(HORIZON), sizeof *r);
    for (int row = 0; row < EVAL_ROWS; row++)
        for (int64_t h = 0; h < HORIZON; h++) {
            double *cell = eval_record_cell(r, HORIZON, row, h);
            cell[SUM_PIXELS] = 100;
            cell[SUM_ERROR] = row == EVAL_MODEL ? model_error : copy_error;
            cell[SUM_OBJECT_FRAMES] = 2;
            cell[SUM_PUCK] = row == EVAL_MODEL ? 1 : 4;
        }
    double *probe = eval_record_probe(r, HORIZON, PROBE_INVERSE);
    probe[0] = 1;
    probe[1] = 20;
    return r;
}

static void numbers_follow_from_sums(void **state) {
    double *r = record_of(1, 10), *n = calloc((size_t)eval_numbers_count(HORIZON), sizeof *n);
    eval_numbers(r, HORIZON, n);
    CLOSE(n[eval_number_metric(HORIZON, EVAL_MODEL, METRIC_PSNR, 0)], 20, 1e-9);
    CLOSE(n[eval_number_metric(HORIZON, EVAL_MODEL, METRIC_SKILL, 3)], 0.9, 1e-9);
    CLOSE(n[eval_number_metric(HORIZON, EVAL_COPY_LAST, METRIC_SKILL, 0)], 0, 1e-12);
    CLOSE(n[eval_number_metric(HORIZON, EVAL_MODEL, METRIC_PUCK, 0)], 0.5, 1e-12);
    CLOSE(n[eval_number_probe(HORIZON, PROBE_INVERSE)], 0.95, 1e-12);
    assert_true(isnan(n[eval_number_metric(HORIZON, EVAL_MODEL, METRIC_TOUCH_R2, 0)]));
    CLOSE(n[eval_number_bar(HORIZON, 0)], 10, 1e-9);    // PSNR above constant velocity
    CLOSE(n[eval_number_bar(HORIZON, 3)], 0.25, 1e-12); // puck error against it
    assert_true(eval_bar_passes(0, n[eval_number_bar(HORIZON, 0)]));
    assert_true(eval_bar_passes(3, 0.5) && !eval_bar_passes(3, 0.51) && !eval_bar_passes(6, 0.92));
    free(r);
    free(n);
}

static void bootstrap_is_deterministic_and_brackets_the_value(void **state) {
    int64_t elems = eval_record_elems(HORIZON), numbers = eval_numbers_count(HORIZON), n = 40;
    double *records = calloc((size_t)(n * elems), sizeof *records),
           *out = calloc((size_t)(5 * numbers), sizeof *out);
    double *lo = out, *hi = out + numbers, *lo2 = out + 2 * numbers, *hi2 = out + 3 * numbers,
           *v = out + 4 * numbers;
    double *sum = calloc((size_t)elems, sizeof *sum);
    struct err e = {0};
    for (int64_t i = 0; i < n; i++) {
        double *r = record_of(1 + (double)(i % 7), 10);
        memcpy(records + i * elems, r, sizeof(double) * (size_t)elems);
        for (int64_t k = 0; k < elems; k++) sum[k] += r[k];
        free(r);
    }
    eval_numbers(sum, HORIZON, v);
    struct eval_bootstrap b = {.records = records, .n = n, .horizon = HORIZON, .replicates = 203, .seed = 3};
    assert_int_equal(eval_bootstrap(&b, lo, hi, &e), 0);
    assert_int_equal(eval_bootstrap(&b, lo2, hi2, &e), 0);
    int64_t at = eval_number_metric(HORIZON, EVAL_MODEL, METRIC_PSNR, 0);
    assert_memory_equal(&lo[at], &lo2[at], sizeof(double));
    assert_memory_equal(&hi[at], &hi2[at], sizeof(double));
    assert_true(lo[at] < v[at] && v[at] < hi[at] && hi[at] - lo[at] < 3);
    b.seed = 4;
    assert_int_equal(eval_bootstrap(&b, lo2, hi2, &e), 0);
    assert_true(lo[at] != lo2[at]);
    free(records);
    free(out);
    free(sum);
}

// ---- baselines.
static void baselines_fill_the_future(void **state) {
    float x[2 * 4 * 3] = {0}, mean[3] = {7, 8, 9};
    struct baseline_shape s = {2, 4, 2};
    for (int i = 0; i < 24; i++) x[i] = (float)i;
    baseline_copy_last(x, s, 3, NULL, mean);
    assert_true(x[5] == 5 && x[6] == 3 && x[11] == 5 && x[12 + 6] == 15);
    const unsigned char valid[8] = {1, 0, 1, 1, 0, 0, 1, 1}; // the last given frame is missing, and all are
    baseline_copy_last(x, s, 3, valid, mean);
    assert_true(x[6] == 0 && x[11] == 2 && x[12 + 6] == 7 && x[12 + 11] == 9);
    baseline_mean(x, s, 3, mean);
    assert_true(x[5] == 5 && x[6] == 7 && x[12 + 11] == 9);
}

static void constant_velocity_goes_on_until_the_wall(void **state) {
    enum { FRAMES = 8, CONTEXT = 2 };
    static float x[FRAMES * SIDE * SIDE * 2], picture[SIDE * SIDE * 2];
    struct baseline_objects o = {.n = 1, .radius = {3.0 / SIDE}, .hi = {1, 1}};
    o.before[0][0] = 4.0 / SIDE;
    o.now[0][0] = 6.0 / SIDE;
    o.before[0][1] = o.now[0][1] = 8.0 / SIDE;
    baseline_constant_velocity(x, FRAMES, CONTEXT, &grid, &o);
    for (int f = CONTEXT; f < FRAMES; f++) {
        double c[2], want = 6 + 2 * (f - CONTEXT + 1);
        for (int i = 0; i < SIDE * SIDE * 2; i++) picture[i] = x[f * SIDE * SIDE * 2 + i] / 2;
        metrics_centroid(picture, shape, 0, c);
        CLOSE(c[0], want > 13 ? 13 : want, 0.05);
        CLOSE(c[1], 8, 0.05);
    }
}

static void means_come_from_valid_frames(void **state) {
    struct modality_set set;
    struct baseline_sums sums;
    struct baseline_means means;
    struct err e = {0};
    float action[3 * 2] = {1, 2, 3, 4, 100, 100}, zeros[3 * SET_SIDE * SET_SIDE * 2] = {0};
    unsigned char valid[3] = {1, 1, 0}, all[3] = {1, 1, 1};
    set_make(&set);
    float *x[OPS_MODALITIES_MAX] = {action, zeros, zeros, zeros};
    unsigned char *ok[OPS_MODALITIES_MAX] = {valid, all, NULL, all};
    assert_int_equal(baseline_sums_init(&sums, &set, &e), 0);
    baseline_sums_add(&sums, &set, x, ok, 3);
    assert_int_equal(baseline_means_init(&means, &set, &sums, &e), 0);
    assert_true(means.mean[SET_ACTION][0] == 2 && means.mean[SET_ACTION][1] == 3);
    CLOSE(means.spread[SET_ACTION], 1, 1e-9);
    CLOSE(means.spread[SET_VIDEO], 0, 0);
    baseline_means_fini(&means);
    sums.frames[SET_TOUCH] = 0;
    assert_int_equal(baseline_means_init(&means, &set, &sums, &e), 0);
    assert_true(means.mean[SET_TOUCH][0] == 0 && means.spread[SET_TOUCH] == 0);
    baseline_means_fini(&means);
    baseline_sums_fini(&sums);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_perfect_picture_has_no_error),
        cmocka_unit_test(a_shift_by_one_pixel_is_seen),
        cmocka_unit_test(an_empty_picture_has_its_centroid_in_the_middle),
        cmocka_unit_test(psnr_is_what_its_formula_says),
        cmocka_unit_test(nan_is_never_good),
        cmocka_unit_test(touch_adds_up_over_subsamples),
        cmocka_unit_test(sounds_rise_and_differ),
        cmocka_unit_test(f1_counts),
        cmocka_unit_test(numbers_follow_from_sums),
        cmocka_unit_test(bootstrap_is_deterministic_and_brackets_the_value),
        cmocka_unit_test(baselines_fill_the_future),
        cmocka_unit_test(constant_velocity_goes_on_until_the_wall),
        cmocka_unit_test(means_come_from_valid_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
