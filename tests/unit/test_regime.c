// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fake_config.h"
#include "fake_set.h"
#include "trainer/regime.h"

enum { F = 10, M = 4, DRAWS = 20000 };

struct drawn {
    float tau[F * M], past[F], tau_history[F], hide[M];
    enum regime regime;
};

struct fixture {
    struct config_file *file;
    struct modality_set set;
};

static struct fixture *set_fixture(struct fixture *f, struct config_file *file) {
    f->file = file;
    fake_set(&f->set, config_values(file));
    f->set.action = 0;
    return f;
}

static struct drawn draw(const struct fixture *f, uint64_t sample) {
    struct drawn d;
    memset(&d, 0xff, sizeof d); // NaN: what is not drawn is found
    struct regime_draw out = {d.tau, d.past, d.tau_history, d.hide};
    d.regime = regime_sample(config_values(f->file), &f->set, F, sample, &out);
    return d;
}

static bool actions_are(const struct drawn *d, int lo, int hi, float tau) {
    for (int f = lo; f < hi; f++)
        if (d->tau[f * M] != tau) return false;
    return true;
}

// Frames at the start whose observations are all clean.
static int context_of(const struct drawn *d) {
    int f = 0;
    while (f < F && d->tau[f * M + 1] == 1 && d->tau[f * M + 2] == 1 && d->tau[f * M + 3] == 1) f++;
    return f;
}

static void check_forward(const struct drawn *d, int64_t *free_targets, int64_t *from_noise) {
    int context = context_of(d);
    assert_true(context >= 1 && context <= 4);
    assert_true(actions_are(d, context, F, 1));
    bool asked = actions_are(d, 0, context, 0);
    assert_true(asked || actions_are(d, 0, context, 1));
    *free_targets += asked;
    bool noise = true;
    for (int f = context; f < F; f++)
        for (int i = 1; i < M; i++) {
            assert_true(d->tau[f * M + i] < 1);
            noise = noise && d->tau[f * M + i] == 0;
        }
    *from_noise += noise;
}

static void check_cross(const struct drawn *d) {
    assert_true(actions_are(d, 0, F, 1));
    assert_true(d->tau[3] == 1 && d->hide[3] == 1 && d->hide[0] == 1);
    assert_true(d->hide[1] == 0 || d->hide[2] == 0);
    for (int f = 0; f < F; f++)
        for (int i = 1; i < 3; i++) assert_true(d->tau[f * M + i] == d->hide[i]);
}

static void check_policy(const struct drawn *d) {
    int context = context_of(d);
    assert_true(context >= 1 && context <= 4);
    assert_true(actions_are(d, 0, context, 1));
    for (int f = context; f < F; f++) {
        assert_true(d->tau[f * M] < 1);
        for (int i = 1; i < M; i++) assert_true(d->tau[f * M + i] == 0);
    }
}

static void shares_and_shapes(void **state) {
    struct fixture fix, *f = set_fixture(&fix, fake_config("run.seed=3"));
    const double want[] = {0.55, 0.15, 0.12, 0.09, 0.09};
    int64_t count[5] = {0}, free_targets = 0, from_noise = 0;
    for (uint64_t s = 0; s < DRAWS; s++) {
        struct drawn d = draw(f, s);
        count[d.regime]++;
        for (int k = 0; k < F * M; k++) assert_true(d.tau[k] >= 0 && d.tau[k] <= 1);
        if (d.regime == REGIME_FORWARD) check_forward(&d, &free_targets, &from_noise);
        if (d.regime == REGIME_POLICY) check_policy(&d);
        if (d.regime == REGIME_CROSS) check_cross(&d);
        if (d.regime == REGIME_INVERSE) assert_true(context_of(&d) == F && d.tau[0] < 1);
        if (d.regime != REGIME_CROSS) assert_true(d.hide[1] == 1 && d.hide[2] == 1);
    }
    for (int r = 0; r < 5; r++) assert_true(fabs((double)count[r] / DRAWS - want[r]) < 0.012);
    assert_true(fabs((double)free_targets / (double)count[0] - 0.3) < 0.02);
    assert_true(fabs((double)from_noise / (double)count[0] - 0.5) < 0.05);
    config_close(f->file);
}

static void history_is_shifted_and_noised_on_half(void **state) {
    struct fixture fix, *f = set_fixture(&fix, fake_config("mix.history_noise=0.3"));
    int64_t noisy = 0;
    for (uint64_t s = 0; s < DRAWS; s++) {
        struct drawn d = draw(f, s);
        assert_true(d.tau_history[0] == 1);
        for (int k = 1; k < F; k++) assert_true(d.tau_history[k] == d.past[k - 1]);
        for (int k = 0; k < F; k++) assert_true(d.past[k] > 0.7f - 1e-6f && d.past[k] <= 1);
        noisy += d.past[0] < 1;
    }
    assert_true(fabs((double)noisy / DRAWS - 0.5) < 0.02);
    config_close(f->file);
}

static void median_of_tau(void **state) {
    struct fixture fix,
        *f = set_fixture(&fix, fake_config("mix.forward=0", "mix.inverse=0", "mix.policy=0", "mix.cross=0"));
    int64_t below = 0;
    float median = (float)(1 / (1 + exp(0.4)));
    for (uint64_t s = 0; s < 2000; s++) {
        struct drawn d = draw(f, s);
        assert_int_equal(d.regime, REGIME_INDEPENDENT);
        for (int k = 0; k < F * M; k++) below += d.tau[k] < median;
    }
    assert_true(fabs((double)below / (2000.0 * F * M) - 0.5) < 0.01);
    config_close(f->file);
}

static void a_function_of_seed_and_sample(void **state) {
    struct fixture fix, other, *f = set_fixture(&fix, fake_config("run.seed=1"));
    struct fixture *g = set_fixture(&other, fake_config("run.seed=2"));
    int same = 0;
    for (uint64_t s = 0; s < 100; s++) {
        struct drawn a = draw(f, s), b = draw(f, s), c = draw(g, s);
        assert_memory_equal(a.tau, b.tau, sizeof a.tau);
        assert_memory_equal(a.past, b.past, sizeof a.past);
        same += !memcmp(a.tau, c.tau, sizeof a.tau);
    }
    assert_true(same < 30);
    config_close(f->file);
    config_close(g->file);
}

static void without_actions_nothing_breaks(void **state) {
    struct fixture fix, *f = set_fixture(&fix, fake_config("run.seed=1"));
    f->set.action = -1;
    for (uint64_t s = 0; s < 1000; s++) {
        struct drawn d = draw(f, s);
        for (int k = 0; k < F * M; k++) assert_true(d.tau[k] >= 0 && d.tau[k] <= 1);
    }
    config_close(f->file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_and_shapes),
        cmocka_unit_test(history_is_shifted_and_noised_on_half),
        cmocka_unit_test(median_of_tau),
        cmocka_unit_test(a_function_of_seed_and_sample),
        cmocka_unit_test(without_actions_nothing_breaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
