// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fake_config.h"
#include "fake_set.h"
#include "trainer/params.h"

static void table(struct params *p, struct config_file *f) {
    struct modality_set set;
    struct err e = {0};
    fake_set(&set, config_values(f));
    if (params_init(p, config_values(f), &set, &e)) fail_msg("%s", e.text);
}

static void layout_has_no_overlaps(void **state) {
    struct config_file *f = fake_config("model.layers=2");
    struct params p;
    int64_t end = 0, count = 0;
    table(&p, f);
    for (int i = 0; i < p.n; i++) {
        const struct param *t = &p.list[i];
        assert_int_equal(t->offset % 16, 0);
        assert_true(t->offset >= end && t->offset < end + 16);
        assert_int_equal(t->elems, t->shape[0] * t->shape[1]);
        assert_ptr_equal(params_find(&p, t->name), t);
        end = t->offset + t->elems;
        count += t->elems;
    }
    assert_true(p.elems >= end && p.elems < end + 16);
    assert_int_equal(p.count, count);
    assert_null(params_find(&p, "blocks.2.mod"));
    params_fini(&p);
    config_close(f);
}

static void expect(const struct params *p, const char *name, int64_t rows, int64_t cols, int parts,
                   enum param_group group) {
    const struct param *t = params_find(p, name);
    if (!t) fail_msg("no %s", name);
    if (t->shape[0] != rows || t->shape[1] != cols || t->parts != parts || t->group != group)
        fail_msg("%s: [%lld, %lld] in %d", name, (long long)t->shape[0], (long long)t->shape[1], t->parts);
}

static void demo_shapes(void **state) {
    struct config_file *f = fake_config("model.width=96");
    struct params p;
    table(&p, f);
    expect(&p, "embed.video.weight", 96, 128 + 2 * 512, 1, PARAM_OTHER);
    expect(&p, "embed.action.weight", 96, 2, 1, PARAM_OTHER);
    expect(&p, "embed.touch.weight", 96, 4 * 3, 1, PARAM_OTHER);
    expect(&p, "slot", 19, 96, 1, PARAM_OTHER);
    expect(&p, "action_map.weight", 96, 2, 1, PARAM_OTHER);
    expect(&p, "cond.1.weight", 64, 28, 1, PARAM_OTHER);
    expect(&p, "cond.2.weight", 576, 64, 1, PARAM_OTHER);
    expect(&p, "blocks.2.qkv.weight", 288, 96, 3, PARAM_MATRIX);
    expect(&p, "blocks.2.up.weight", 512, 96, 2, PARAM_MATRIX);
    expect(&p, "blocks.2.down.weight", 96, 256, 1, PARAM_MATRIX);
    expect(&p, "blocks.2.gamma", 3, 1, 1, PARAM_OTHER);
    expect(&p, "head.video.bias", 128, 1, 1, PARAM_OTHER);
    params_fini(&p);
    config_close(f);
}

// Of eight heads two have keys and values of their own: fewer rows, orthogonalised part by part.
static void grouped_queries_have_smaller_keys(void **state) {
    const char *const overrides[] = {"model.width=256", "model.head_dim=32", "model.kv_heads=2"};
    struct config_file *f;
    struct params p;
    struct err e = {0};
    assert_int_equal(config_load(&f, NULL, overrides, 3, &e), 0);
    table(&p, f);
    expect(&p, "blocks.0.qkv.weight", 256 + 2 * 64, 256, 3, PARAM_MATRIX);
    const int64_t *rows = params_find(&p, "blocks.0.qkv.weight")->part_rows;
    assert_true(rows[0] == 256 && rows[1] == 64 && rows[2] == 64);
    rows = params_find(&p, "blocks.0.up.weight")->part_rows;
    assert_true(rows[0] == rows[1] && rows[0] == params_hidden(config_values(f)) && rows[2] == 0);
    expect(&p, "blocks.0.gamma", 8, 1, 1, PARAM_OTHER);
    params_fini(&p);
    config_close(f);
}

static double spread(const float *v, int64_t rows, int64_t cols, int64_t lo, int64_t hi) {
    double sum = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = lo; c < hi; c++) sum += pow((double)v[r * cols + c], 2);
    return sqrt(sum / (double)(rows * (hi - lo)));
}

// Tensor i as it starts; the caller frees it.
static float *filled(const struct params *p, int i, uint64_t seed) {
    struct device *d = NULL;
    struct err e = {0};
    const struct param *t = &p->list[i];
    float *flat = calloc((size_t)p->elems, sizeof *flat), *out = malloc((size_t)t->elems * sizeof *out);
    if (device_open_cpu(&d, 2, &e) || params_fill(p, i, seed, d, flat, &e)) fail_msg("%s", e.text);
    for (int64_t k = 0; k < p->elems; k++)
        if (k < t->offset || k >= t->offset + t->elems) assert_true(flat[k] == 0);
    memcpy(out, flat + t->offset, (size_t)t->elems * sizeof *out);
    device_close(d);
    free(flat);
    return out;
}

static float *filled_named(const struct params *p, const char *name) {
    return filled(p, (int)(params_find(p, name) - p->list), 1);
}

static void starts_follow_fan_in(void **state) {
    struct config_file *f = fake_config("model.width=96");
    struct params p;
    table(&p, f);
    float *v = filled_named(&p, "embed.video.weight");
    assert_true(fabs(spread(v, 96, 1152, 0, 128) * sqrt(128) - 1) < 0.03);
    assert_true(fabs(spread(v, 96, 1152, 128, 640) * sqrt(512) - 1) < 0.03);
    assert_true(fabs(spread(v, 96, 1152, 640, 1152) * sqrt(512) - 1) < 0.03);
    float *gamma = filled_named(&p, "blocks.0.gamma");
    assert_true(gamma[0] == 8 && gamma[2] == 8);
    float *slot = filled_named(&p, "slot"), *out = filled_named(&p, "blocks.0.out.weight");
    assert_true(fabs(spread(slot, 19, 96, 0, 96) / 0.3 - 1) < 0.06);
    assert_true(spread(out, 96, 96, 0, 96) == 0);
    free(v);
    free(gamma);
    free(slot);
    free(out);
    params_fini(&p);
    config_close(f);
}

static void starts_differ_by_seed_and_tensor(void **state) {
    struct config_file *f = fake_config("model.layers=2");
    struct params p;
    table(&p, f);
    int a = (int)(params_find(&p, "blocks.0.qkv.weight") - p.list);
    int b = (int)(params_find(&p, "blocks.1.qkv.weight") - p.list);
    size_t bytes = (size_t)p.list[a].elems * sizeof(float);
    float *x = filled(&p, a, 1), *other = filled(&p, b, 1), *reseeded = filled(&p, a, 2),
          *again = filled(&p, a, 1);
    assert_memory_not_equal(x, other, bytes);
    assert_memory_not_equal(x, reseeded, bytes);
    assert_memory_equal(x, again, bytes);
    free(x);
    free(other);
    free(reseeded);
    free(again);
    params_fini(&p);
    config_close(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout_has_no_overlaps),
        cmocka_unit_test(demo_shapes),
        cmocka_unit_test(grouped_queries_have_smaller_keys),
        cmocka_unit_test(starts_follow_fan_in),
        cmocka_unit_test(starts_differ_by_seed_and_tensor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
