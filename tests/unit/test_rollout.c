// SPDX-License-Identifier: Apache-2.0
// What a rollout shows the model, and what it does with the answers.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "eval_set.h"
#include "trainer/rollout.h"

#define FRAMES  7
#define CONTEXT 3
#define WINDOW  5
#define B       2

struct spy {
    struct modality_set set;
    float *x[OPS_MODALITIES_MAX];
    uint64_t sample[B];
    int calls;
    int64_t frames[64], unknown_actions[64]; // per call: frames shown, actions at tau = 0
    float last_tau[64][SET_SENSES];          // tau of the last frame
    bool action_wanted[64];
    float first_noise; // of the first generated video value
    float answer;      // NAN: answer history[f - 1] + 1
};

static void fill(struct spy *s, float value) {
    set_make(&s->set);
    for (int m = 0; m < SET_SENSES; m++) {
        int64_t n = B * FRAMES * s->set.spec[m].frame_elems;
        s->x[m] = malloc(sizeof(float) * (size_t)n);
        for (int64_t i = 0; i < n; i++) s->x[m][i] = value;
    }
    s->sample[0] = 11;
    s->sample[1] = 12;
    s->answer = NAN;
}

static void drop(struct spy *s) {
    for (int m = 0; m < SET_SENSES; m++) free(s->x[m]);
}

static void answer_sense(const struct spy *s, const struct model_input *in, int m, float *pred) {
    int64_t n = s->set.spec[m].frame_elems;
    for (int64_t row = 0; row < in->sequences * in->frames; row++)
        for (int64_t i = 0; i < n; i++) {
            float before = row % in->frames ? in->history[m][(row - 1) * n + i] : 0;
            pred[row * n + i] = isnan(s->answer) ? before + 0.25f : s->answer;
        }
}

static int spy_predict(void *model, const struct model_input *in, float *const *pred, struct err *e) {
    struct spy *s = model;
    int call = s->calls++;
    assert_true(call < 64);
    s->frames[call] = in->frames;
    s->action_wanted[call] = pred[SET_ACTION] != NULL;
    for (int64_t f = 0; f < in->frames; f++)
        if (in->tau[f * SET_SENSES + SET_ACTION] < 0.5f) s->unknown_actions[call]++;
    memcpy(s->last_tau[call], in->tau + (in->frames - 1) * SET_SENSES, sizeof s->last_tau[call]);
    if (call == 0) s->first_noise = in->z[SET_VIDEO][(in->frames - 1) * s->set.spec[SET_VIDEO].frame_elems];
    for (int m = 0; m < SET_SENSES; m++)
        if (pred[m]) answer_sense(s, in, m, pred[m]);
    return 0;
}

static struct rollout_request request(struct spy *s, enum rollout_mode mode, int steps) {
    struct rollout_request q = {.mode = mode,
                                .sequences = B,
                                .frames = FRAMES,
                                .context = CONTEXT,
                                .window = WINDOW,
                                .steps = steps,
                                .seed = 5,
                                .sample = s->sample};
    memcpy(q.x, s->x, sizeof s->x);
    return q;
}

static void run(struct spy *s, const struct rollout_request *q) {
    struct predictor p = {.predict = spy_predict, .model = s};
    struct err e = {0};
    assert_int_equal(rollout_run(&p, &s->set, q, &e), 0);
}

static float at(const struct spy *s, int m, int64_t b, int64_t f) {
    return s->x[m][(b * FRAMES + f) * s->set.spec[m].frame_elems];
}

static void simulate_feeds_its_own_frames_back(void **state) {
    struct spy s = {0};
    fill(&s, 0.5f);
    struct rollout_request q = request(&s, ROLLOUT_SIMULATE, 1);
    run(&s, &q);
    assert_int_equal(s.calls, FRAMES - CONTEXT);
    for (int64_t f = 0; f < FRAMES; f++) {
        float want = f < CONTEXT ? 0.5f : 0.5f + 0.25f * (float)(f - CONTEXT + 1);
        for (int64_t b = 0; b < B; b++) {
            assert_true(at(&s, SET_VIDEO, b, f) == want && at(&s, SET_TOUCH, b, f) == want);
            assert_true(at(&s, SET_ACTION, b, f) == 0.5f);
        }
    }
    assert_int_equal(s.frames[0], CONTEXT + 1);
    assert_int_equal(s.frames[FRAMES - CONTEXT - 1], WINDOW);
    assert_true(s.last_tau[0][SET_ACTION] == 1.0f && s.last_tau[0][SET_VIDEO] == 0.0f);
    assert_false(s.action_wanted[0]);
    drop(&s);
}

static void steps_end_at_the_answer(void **state) {
    for (int steps = 1; steps <= 40; steps += 13) {
        struct spy s = {0};
        fill(&s, 0.5f);
        s.answer = 1.25f;
        struct rollout_request q = request(&s, ROLLOUT_SIMULATE, steps);
        q.frames = FRAMES;
        q.context = FRAMES - 1;
        run(&s, &q);
        assert_int_equal(s.calls, steps);
        float got = at(&s, SET_TOUCH, 0, FRAMES - 1);
        // Above 20 steps the floor of the velocity's denominator leaves a rest of the noise.
        assert_true(fabsf(got - 1.25f) <= (steps <= 20 ? 0.0f : 0.2f));
        assert_true(s.last_tau[steps - 1][SET_VIDEO] == (float)((double)(steps - 1) / steps));
        drop(&s);
    }
}

static void noise_belongs_to_the_sample(void **state) {
    struct spy a = {0}, b = {0}, c = {0};
    fill(&a, 0);
    fill(&b, 0);
    fill(&c, 0);
    b.sample[0] = 99;
    struct rollout_request qa = request(&a, ROLLOUT_SIMULATE, 1), qb = request(&b, ROLLOUT_SIMULATE, 1),
                           qc = request(&c, ROLLOUT_SIMULATE, 1);
    qc.sequences = 1;
    run(&a, &qa);
    run(&b, &qb);
    run(&c, &qc);
    assert_true(a.first_noise != b.first_noise);
    assert_true(a.first_noise == c.first_noise && a.first_noise != 0.0f);
    drop(&a);
    drop(&b);
    drop(&c);
}

static void pixels_stay_in_range(void **state) {
    struct spy s = {0};
    fill(&s, 0.5f);
    s.answer = 7;
    struct rollout_request q = request(&s, ROLLOUT_SIMULATE, 1);
    run(&s, &q);
    assert_true(at(&s, SET_VIDEO, 1, FRAMES - 1) == 2.0f && at(&s, SET_TOUCH, 1, FRAMES - 1) == 7.0f);
    drop(&s);
}

static void generate_knows_no_action(void **state) {
    struct spy s = {0};
    fill(&s, 0.5f);
    struct rollout_request q = request(&s, ROLLOUT_GENERATE, 1);
    run(&s, &q);
    for (int call = 0; call < s.calls; call++) assert_int_equal(s.unknown_actions[call], call + 1);
    assert_true(at(&s, SET_ACTION, 0, FRAMES - 1) == 0.5f);
    assert_true(at(&s, SET_VIDEO, 0, FRAMES - 1) > 1.0f);
    drop(&s);
}

static void policy_acts_then_looks(void **state) {
    struct spy s = {0};
    fill(&s, 0.5f);
    s.answer = 0.75f;
    struct rollout_request q = request(&s, ROLLOUT_POLICY, 1);
    run(&s, &q);
    assert_int_equal(s.calls, 2 * (FRAMES - CONTEXT));
    assert_true(s.action_wanted[0] && !s.action_wanted[1]);
    assert_true(s.last_tau[0][SET_VIDEO] == 0.0f && s.last_tau[1][SET_ACTION] == 1.0f);
    assert_true(at(&s, SET_ACTION, 0, FRAMES - 1) == 0.75f && at(&s, SET_ACTION, 0, 0) == 0.5f);
    drop(&s);
}

static void whole_modes_answer_every_frame(void **state) {
    struct spy s = {0};
    fill(&s, 0.5f);
    s.answer = 0.125f;
    struct rollout_request q = request(&s, ROLLOUT_INVERSE, 1);
    q.window = FRAMES;
    run(&s, &q);
    assert_int_equal(s.calls, 1);
    assert_true(at(&s, SET_ACTION, 1, 0) == 0.125f && at(&s, SET_VIDEO, 1, 0) == 0.5f);
    q = request(&s, ROLLOUT_PERCEIVE, 1);
    q.window = FRAMES;
    q.asked = 1u << SET_AUDIO;
    s.answer = NAN; // previous history + 0.25: the asked sense's history is hidden
    run(&s, &q);
    assert_true(at(&s, SET_AUDIO, 1, FRAMES - 1) == 0.25f && at(&s, SET_TOUCH, 1, 1) == 0.5f);
    drop(&s);
}

struct gap_spy {
    struct spy s;
    unsigned char valid[SET_SENSES][B * FRAMES];
    int64_t context; // frames of an observation that are the data's; FRAMES: all are
    int calls;
};

static bool is_zero(const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!(x[i] == 0)) return false;
    return true;
}

// What is missing is told to be, and carries nothing; what was made since is there.
static int gap_predict(void *model, const struct model_input *in, float *const *pred, struct err *e) {
    struct gap_spy *g = model;
    int64_t shown_to = g->context < FRAMES ? g->context + 1 + g->calls++ : FRAMES;
    for (int m = 0; m < SET_SENSES; m++) {
        int64_t n = g->s.set.spec[m].frame_elems;
        for (int64_t row = 0; row < in->sequences * in->frames; row++) {
            int64_t b = row / in->frames, f = shown_to - in->frames + row % in->frames;
            bool made = g->context == FRAMES ? pred[m] != NULL : m != SET_ACTION && f >= g->context;
            bool there = made || g->valid[m][b * FRAMES + f];
            assert_int_equal(in->valid[m][row], there);
            if (!there)
                assert_true(is_zero(in->z[m] + row * n, n) && is_zero(in->history[m] + row * n, n));
            else if (!pred[m])
                assert_false(is_zero(in->z[m] + row * n, n));
        }
        if (pred[m]) answer_sense(&g->s, in, m, pred[m]);
    }
    return 0;
}

static void what_the_data_lacks_is_told(void **state) {
    const enum rollout_mode modes[] = {ROLLOUT_SIMULATE, ROLLOUT_INVERSE, ROLLOUT_PERCEIVE};
    for (int k = 0; k < 3; k++) {
        struct gap_spy g = {.context = k ? FRAMES : CONTEXT};
        struct err e = {0};
        fill(&g.s, 0.5f);
        memset(g.valid, 1, sizeof g.valid);
        g.valid[SET_VIDEO][CONTEXT - 1] = g.valid[SET_ACTION][CONTEXT + 1] = 0; // of the first sequence
        g.valid[SET_VIDEO][FRAMES + CONTEXT] = g.valid[SET_AUDIO][FRAMES] = 0;  // of the second
        struct rollout_request q = request(&g.s, modes[k], 1);
        struct predictor p = {.predict = gap_predict, .model = &g};
        if (k) q.window = FRAMES;
        q.asked = 1u << SET_AUDIO;
        for (int m = 0; m < SET_SENSES; m++) q.valid[m] = g.valid[m];
        assert_int_equal(rollout_run(&p, &g.s.set, &q, &e), 0);
        drop(&g.s);
    }
}

static void requests_that_do_not_fit_are_refused(void **state) {
    struct spy s = {0};
    fill(&s, 0);
    struct predictor p = {.predict = spy_predict, .model = &s};
    struct rollout_request q = request(&s, ROLLOUT_INVERSE, 1); // 7 frames, the model sees 5
    struct err e = {0};
    assert_int_equal(rollout_run(&p, &s.set, &q, &e), -ERR_BUG);
    err_clear(&e);
    q = request(&s, ROLLOUT_SIMULATE, 0);
    assert_int_equal(rollout_run(&p, &s.set, &q, &e), -ERR_BUG);
    err_clear(&e);
    s.set.action = -1;
    q = request(&s, ROLLOUT_POLICY, 1);
    assert_int_equal(rollout_run(&p, &s.set, &q, &e), -ERR_CONFIG);
    drop(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(simulate_feeds_its_own_frames_back),
        cmocka_unit_test(steps_end_at_the_answer),
        cmocka_unit_test(noise_belongs_to_the_sample),
        cmocka_unit_test(pixels_stay_in_range),
        cmocka_unit_test(generate_knows_no_action),
        cmocka_unit_test(policy_acts_then_looks),
        cmocka_unit_test(whole_modes_answer_every_frame),
        cmocka_unit_test(what_the_data_lacks_is_told),
        cmocka_unit_test(requests_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
