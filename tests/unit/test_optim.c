// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "fake_config.h"
#include "fake_set.h"
#include "trainer/optim.h"

struct fixture {
    struct config_file *file;
    const struct config *c;
    struct params params;
    struct device *device;
    float *weights, *grads;
};

static void fill(float *v, int64_t n, uint32_t stream) {
    struct rng_stream r;
    rng_stream_init(&r, rng_key(3, RNG_TEST, stream), 0, 0);
    for (int64_t i = 0; i < n; i++) v[i] = (float)rng_next_normal(&r);
}

// Random numbers in the tensors, zeros in the gaps.
static float *random_flat(const struct params *p, uint32_t stream) {
    float *v = calloc((size_t)p->elems, sizeof *v);
    for (int i = 0; i < p->n; i++) fill(v + p->list[i].offset, p->list[i].elems, stream + (uint32_t)i);
    return v;
}

static void open_fixture(struct fixture *f, struct config_file *file) {
    struct modality_set set;
    struct err e = {0};
    f->file = file;
    f->c = config_values(file);
    fake_set(&set, f->c);
    assert_int_equal(params_init(&f->params, f->c, &set, &e), 0);
    assert_int_equal(device_open_cpu(&f->device, 1, &e), 0);
    f->weights = random_flat(&f->params, 100);
    f->grads = random_flat(&f->params, 300);
}

static void close_fixture(struct fixture *f) {
    free(f->weights);
    free(f->grads);
    device_close(f->device);
    params_fini(&f->params);
    config_close(f->file);
}

static bool is_border(const struct params *p, int64_t offset) {
    for (int i = 0; i < p->n; i++)
        if (p->list[i].offset == offset) return true;
    return offset == p->elems;
}

static void shares_cover_all_at_tensor_borders(void **state) {
    struct fixture f;
    open_fixture(&f, fake_config("model.layers=3"));
    for (int size = 1; size <= 9; size++) {
        int64_t offset[10];
        optim_split(f.c, &f.params, size, offset);
        assert_int_equal(offset[0], 0);
        assert_int_equal(offset[size], f.params.elems);
        for (int r = 0; r < size; r++) {
            assert_true(offset[r] <= offset[r + 1]);
            assert_true(is_border(&f.params, offset[r]));
        }
    }
    close_fixture(&f);
}

// Muon's share of two ranks: no worse than two to one.
static void shares_are_balanced(void **state) {
    struct fixture f;
    open_fixture(&f, fake_config("model.layers=4"));
    int64_t offset[3];
    optim_split(f.c, &f.params, 2, offset);
    int matrices = 0, first = 0;
    for (int i = 0; i < f.params.n; i++) {
        if (f.params.list[i].group != PARAM_MATRIX) continue;
        matrices++;
        first += f.params.list[i].offset < offset[1];
    }
    assert_int_equal(matrices, 16);
    assert_true(first >= 6 && first <= 10);
    close_fixture(&f);
}

// The norm over what is clipped, from all ranks' squares.
static double norm_of(const struct optim *o, const double *squares, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        if (optim_clips(o, i)) sum += squares[i];
    return sqrt(sum);
}

// `low`: the copy in bf16, or NULL.
static void run_updates(struct fixture *f, int size, float *weights, uint16_t *low) {
    struct err e = {0};
    struct optim *o[4] = {0};
    for (int r = 0; r < size; r++)
        assert_int_equal(optim_create(&o[r], f->c, &f->params, f->device, size, r, weights, &e), 0);
    double *squares = calloc((size_t)f->params.n, sizeof *squares);
    int64_t *bad = calloc((size_t)f->params.n, sizeof *bad);
    for (int64_t step = 1; step <= 3; step++) {
        struct op_update now = optim_numbers(f->c, 0.01, step);
        for (int r = 0; r < size; r++) {
            int lo, hi;
            optim_owned(o[r], &lo, &hi);
            const float *own = f->grads + optim_offsets(o[r])[r];
            assert_int_equal(optim_squares(o[r], own, squares + lo, bad + lo, &e), 0);
        }
        now.grad_scale = (float)(1 / norm_of(o[0], squares, f->params.n));
        for (int r = 0; r < size; r++)
            assert_int_equal(optim_update(o[r], weights, low, f->grads + optim_offsets(o[r])[r], &now, &e),
                             0);
    }
    for (int r = 0; r < size; r++) optim_destroy(o[r]);
    free(squares);
    free(bad);
}

static void ranks_make_the_same_bits(void **state) {
    struct fixture f;
    open_fixture(&f, fake_config("model.layers=2", "optim.ema=0.99"));
    size_t bytes = (size_t)f.params.elems * sizeof(float);
    float *one = malloc(bytes), *many = malloc(bytes);
    for (int size = 2; size <= 4; size++) {
        memcpy(one, f.weights, bytes);
        memcpy(many, f.weights, bytes);
        run_updates(&f, 1, one, NULL);
        run_updates(&f, size, many, NULL);
        assert_memory_equal(one, many, bytes);
        assert_memory_not_equal(one, f.weights, bytes);
    }
    free(one);
    free(many);
    close_fixture(&f);
}

// The bf16 copy too, rounded at random: every rank writes its own tensors. Each number is at a neighbour of
// its weight, and with another seed at another one as often as not.
static void ranks_round_the_same(void **state) {
    struct fixture f, other;
    open_fixture(&f, fake_config("model.layers=2", "optim.stochastic_rounding=true"));
    open_fixture(&other, fake_config("model.layers=2", "optim.stochastic_rounding=true", "run.seed=99"));
    size_t n = (size_t)f.params.elems, bytes = n * sizeof(float), differ = 0;
    float *w = malloc(bytes);
    uint16_t *one = calloc(n, sizeof *one), *many = calloc(n, sizeof *many);
    memcpy(w, f.weights, bytes);
    run_updates(&f, 1, w, one);
    for (int size = 2; size <= 4; size++) {
        memset(many, 0, n * sizeof *many);
        memcpy(w, f.weights, bytes);
        run_updates(&f, size, w, many);
        assert_memory_equal(one, many, n * sizeof *one);
    }
    memcpy(w, f.weights, bytes);
    run_updates(&other, 1, w, many);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &w[i], sizeof bits);
        assert_true(one[i] == bits >> 16 || one[i] == (bits >> 16) + 1);
        differ += one[i] != many[i];
    }
    assert_true(differ > n / 4);
    free(one);
    free(many);
    free(w);
    close_fixture(&f);
    close_fixture(&other);
}

// First AdamW step: w - lr g / (|g| + eps), and with clipping the same, since its scale cancels.
static void adamw_follows_its_formula(void **state) {
    struct fixture f;
    open_fixture(&f,
                 fake_config("model.layers=1", "optim.kind=adamw", "optim.weight_decay=0.1", "optim.clip=0"));
    struct err e = {0};
    struct optim *o = NULL;
    float *w = malloc((size_t)f.params.elems * sizeof *w);
    memcpy(w, f.weights, (size_t)f.params.elems * sizeof *w);
    assert_int_equal(optim_create(&o, f.c, &f.params, f.device, 1, 0, w, &e), 0);
    const struct op_update now = optim_numbers(f.c, 0.01, 1);
    assert_int_equal(optim_update(o, w, NULL, f.grads, &now, &e), 0);
    for (int i = 0; i < f.params.n; i++) {
        const struct param *t = &f.params.list[i];
        double decay = t->group == PARAM_MATRIX ? 0.1 : 0;
        for (int64_t k = t->offset; k < t->offset + t->elems; k++) {
            double g = (double)f.grads[k], w0 = (double)f.weights[k];
            double want = w0 - 0.01 * (g / (fabs(g) + 1e-8) + decay * w0);
            if (!(fabs((double)w[k] - want) <= 2e-6)) fail_msg("%s: %g, not %g", t->name, (double)w[k], want);
        }
    }
    optim_destroy(o);
    free(w);
    close_fixture(&f);
}

static void clipping_scales_the_gradient(void **state) {
    struct fixture f;
    open_fixture(&f, fake_config("model.layers=1", "optim.clip=1"));
    struct err e = {0};
    struct optim *o = NULL;
    assert_int_equal(optim_create(&o, f.c, &f.params, f.device, 1, 0, f.weights, &e), 0);
    struct op_update now = optim_numbers(f.c, 0, 1);
    now.grad_scale = 1.0f / 50;
    assert_int_equal(optim_update(o, f.weights, NULL, f.grads, &now, &e), 0);
    int slot = (int)(params_find(&f.params, "slot") - f.params.list);
    const float *m = optim_state_of(o, slot, OPTIM_M), *g = f.grads + f.params.list[slot].offset;
    for (int k = 0; k < 50; k++) assert_true(fabsf(m[k] - 0.1f * g[k] / 50) <= 1e-6f);
    assert_non_null(optim_state_of(o, slot, OPTIM_V));
    int qkv = (int)(params_find(&f.params, "blocks.0.qkv.weight") - f.params.list);
    assert_null(optim_state_of(o, qkv, OPTIM_V));
    m = optim_state_of(o, qkv, OPTIM_M);
    g = f.grads + f.params.list[qkv].offset;
    for (int k = 0; k < 50; k++) assert_true(m[k] == g[k]);
    optim_destroy(o);
    close_fixture(&f);
}

static void squares_count_what_is_not_finite(void **state) {
    struct fixture f;
    open_fixture(&f, fake_config("model.layers=1"));
    struct err e = {0};
    struct optim *o = NULL;
    double *squares = calloc((size_t)f.params.n, sizeof *squares), want = 0;
    int64_t *bad = calloc((size_t)f.params.n, sizeof *bad);
    assert_int_equal(optim_create(&o, f.c, &f.params, f.device, 1, 0, f.weights, &e), 0);
    assert_int_equal(optim_squares(o, f.grads, squares, bad, &e), 0);
    for (int i = 0; i < f.params.n; i++) assert_int_equal(bad[i], 0);
    for (int i = 0; i < f.params.n; i++) {
        const struct param *t = &f.params.list[i];
        if (t->group == PARAM_MATRIX) continue;
        for (int64_t k = 0; k < t->elems; k++) want += pow((double)f.grads[t->offset + k], 2);
    }
    assert_true(fabs(norm_of(o, squares, f.params.n) - sqrt(want)) <= 1e-9 * sqrt(want));
    f.grads[f.params.list[3].offset + 1] = NAN;
    f.grads[f.params.list[5].offset] = INFINITY;
    assert_int_equal(optim_squares(o, f.grads, squares, bad, &e), 0);
    for (int i = 0; i < f.params.n; i++) assert_int_equal(bad[i], i == 3 || i == 5);
    optim_destroy(o);
    free(squares);
    free(bad);
    close_fixture(&f);
}

// Whatever the gradients are: not one bit of weights and state changes.
static void a_skipped_update_writes_nothing(void **state) {
    struct fixture f;
    open_fixture(&f, fake_config("model.layers=1", "optim.ema=0.9"));
    struct err e = {0};
    struct optim *o = NULL;
    size_t bytes = (size_t)f.params.elems * sizeof(float);
    float *kept = malloc(bytes);
    struct op_update now = optim_numbers(f.c, 0.01, 1);
    assert_int_equal(optim_create(&o, f.c, &f.params, f.device, 1, 0, f.weights, &e), 0);
    now.skip = 1;
    memcpy(kept, f.weights, bytes);
    for (int i = 0; i < f.params.n; i++) f.grads[f.params.list[i].offset] = NAN;
    assert_int_equal(optim_update(o, f.weights, NULL, f.grads, &now, &e), 0);
    assert_memory_equal(kept, f.weights, bytes);
    for (int i = 0; i < f.params.n; i++) {
        const float *m = optim_state_of(o, i, OPTIM_M), *v = optim_state_of(o, i, OPTIM_V);
        const float *average = optim_state_of(o, i, OPTIM_AVERAGE);
        for (int64_t k = 0; k < f.params.list[i].elems; k++) {
            assert_true(m[k] == 0 && (!v || v[k] == 0));
            assert_true(average[k] == kept[f.params.list[i].offset + k]);
        }
    }
    optim_destroy(o);
    free(kept);
    close_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_cover_all_at_tensor_borders),
        cmocka_unit_test(shares_are_balanced),
        cmocka_unit_test(ranks_make_the_same_bits),
        cmocka_unit_test(ranks_round_the_same),
        cmocka_unit_test(adamw_follows_its_formula),
        cmocka_unit_test(clipping_scales_the_gradient),
        cmocka_unit_test(squares_count_what_is_not_finite),
        cmocka_unit_test(a_skipped_update_writes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
