// SPDX-License-Identifier: Apache-2.0
// One rank's training step: it learns, its sums do not depend on how the batch is cut, NaN is caught before
// the update.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "fake_step.h"

static struct step_report run(struct fixture *f, int64_t number) {
    struct err e = {0};
    struct step_report r = {0};
    int64_t votes[STEP_VOTES] = {3, 0, 1, 0};
    f->batch.first = number * f->batch.count;
    if (step_run(f->step, &f->batch, number, votes, &r, &e)) fail_msg("%s", e.text);
    assert_true(votes[0] == 3 && votes[1] == 0 && votes[2] == 1);
    return r;
}

static float *weights_of(struct fixture *f) {
    size_t bytes = (size_t)model_params(f->model)->elems * sizeof(float);
    float *copy = malloc(bytes);
    memcpy(copy, model_weights(f->model), bytes);
    return copy;
}

static bool weights_are(struct fixture *f, const float *kept) {
    return !memcmp(kept, model_weights(f->model), (size_t)model_params(f->model)->elems * sizeof(float));
}

static void the_loss_falls(void **state) {
    struct fixture f;
    open_fixture(&f, fake_config(SMALL, "comm.shards=4"));
    double first = 0, last = 0;
    for (int64_t n = 0; n < 40; n++) {
        double loss = run(&f, n).loss;
        if (n < 5) first += loss;
        if (n >= 35) last += loss;
    }
    if (!(last < 0.5 * first)) fail_msg("%g, then %g", first, last);
    close_fixture(&f);
}

// Each active element weighs the same, wherever its sequence ended up.
static void the_cut_does_not_matter(void **state) {
    struct step_report whole = {0};
    static const char *const shards[] = {"comm.shards=1", "comm.shards=2", "comm.shards=8"};
    for (int k = 0; k < 3; k++) {
        struct fixture f;
        open_fixture(&f, fake_config(SMALL, "optim.lr=0.001", shards[k]));
        (void)run(&f, 0);
        struct step_report r = run(&f, 1);
        if (k == 0) whole = r;
        assert_true(fabs(r.loss - whole.loss) <= 1e-5 * whole.loss);
        assert_true(fabs(r.grad_norm - whole.grad_norm) <= 1e-3 * whole.grad_norm);
        for (int i = 0; i < f.set.n; i++)
            assert_true(fabs(r.loss_of[i] - whole.loss_of[i]) <= 1e-5 * whole.loss_of[i]);
        close_fixture(&f);
    }
}

static void reductions_agree(void **state) {
    struct fixture f, g;
    open_fixture(&f, fake_config(SMALL, "comm.shards=4"));
    open_fixture(&g, fake_config(SMALL, "comm.shards=4", "comm.reduce=fast"));
    struct step_report a = run(&f, 0), b = run(&g, 0);
    assert_true(a.loss == b.loss);
    assert_true(fabs(a.grad_norm - b.grad_norm) <= 1e-5 * a.grad_norm);
    close_fixture(&f);
    close_fixture(&g);
}

// Frames without data count for nothing: not in the loss, not in its divisor.
static void invalid_frames_do_not_count(void **state) {
    struct fixture f;
    open_fixture(&f, fake_config(SMALL, "comm.shards=2", "optim.lr=0"));
    double all = run(&f, 0).loss_of[1];
    memset(f.batch.valid[1], 0, (size_t)(f.batch.count * f.batch.frames));
    struct step_report none = run(&f, 0);
    assert_true(none.loss_of[1] == 0 && all > 0);
    for (int64_t k = 0; k < f.batch.frames; k++) f.batch.valid[1][k] = 1; // one sequence
    assert_true(isfinite(run(&f, 0).loss));
    close_fixture(&f);
}

static void nan_stops_before_the_update(void **state) {
    struct fixture f;
    struct err e = {0};
    struct step_report r = {0};
    int64_t votes[STEP_VOTES] = {0};
    open_fixture(&f, fake_config(SMALL, "comm.shards=4"));
    float *kept = weights_of(&f);
    f.batch.x[3][77] = NAN;
    assert_int_equal(step_run(f.step, &f.batch, 0, votes, &r, &e), -ERR_DATA);
    assert_non_null(strstr(e.text, "step 1: "));
    assert_true(weights_are(&f, kept));
    free(kept);
    close_fixture(&f);
}

static void nan_is_skipped_on_demand(void **state) {
    struct fixture f;
    open_fixture(&f, fake_config(SMALL, "comm.shards=4", "train.on_nan=skip", "fault.inject=nan:step=1"));
    assert_false(run(&f, 0).skipped);
    float *kept = weights_of(&f);
    struct step_report bad = run(&f, 1); // injected
    assert_true(bad.skipped);
    assert_true(bad.suspect_first >= f.batch.count && bad.suspects >= 1 && bad.suspects < f.batch.count);
    assert_true(weights_are(&f, kept));
    float x = f.batch.x[3][77];
    f.batch.x[3][77] = INFINITY;
    assert_true(run(&f, 2).skipped);
    assert_true(weights_are(&f, kept));
    f.batch.x[3][77] = x;
    assert_false(run(&f, 3).skipped);
    assert_false(weights_are(&f, kept));
    free(kept);
    close_fixture(&f);
}

static void ranks_share_the_batch(void **state) {
    struct config_file *file = fake_config(SMALL, "comm.shards=4");
    int64_t first, count, upto = 8 * 7;
    for (int r = 0; r < 3; r++) {
        step_range(config_values(file), 3, r, 7, &first, &count);
        assert_int_equal(first, upto);
        upto += count;
    }
    assert_int_equal(upto, 8 * 8);
    config_close(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_loss_falls),
        cmocka_unit_test(the_cut_does_not_matter),
        cmocka_unit_test(reductions_agree),
        cmocka_unit_test(invalid_frames_do_not_count),
        cmocka_unit_test(nan_stops_before_the_update),
        cmocka_unit_test(nan_is_skipped_on_demand),
        cmocka_unit_test(ranks_share_the_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
