// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "launcher/boxdir.h"
#include "launcher/skew.h"

#define WORLD 3
enum { STEPS = 60, STEP_MS = 100 }; // of a window

struct scene {
    char folder[40];
    struct blackbox *boxes[WORLD];
    struct watch *watch;
    int64_t now_ns;
};

static int open_scene(void **state) {
    struct scene *s = calloc(1, sizeof *s);
    struct err e = {0};
    char path[64];
    snprintf(s->folder, sizeof s->folder, "/tmp/orrery-test-skew-XXXXXX");
    if (!mkdtemp(s->folder)) return -1;
    const struct watch_options options = {.box_path = s->folder, .world = WORLD, .attempt = 1};
    for (int r = 0; r < WORLD; r++) {
        snprintf(path, sizeof path, "%s/rank-%d.box", s->folder, r);
        if (blackbox_create(&s->boxes[r], path, r, WORLD, 1, "train", &e)) return -1;
    }
    *state = s;
    return watch_open(&s->watch, &options, &e);
}

static int close_scene(void **state) {
    struct scene *s = *state;
    for (int r = 0; r < WORLD; r++) blackbox_close(s->boxes[r]);
    watch_close(s->watch);
    boxdir_remove_tree(s->folder);
    free(s);
    return 0;
}

// Windows in which each step's waits are those; is somebody named in one of them?
static int named_in(struct scene *s, struct skew *k, int windows, const int wait_ms[WORLD]) {
    struct skew_verdict v = {.rank = -1};
    int rank = -1;
    for (int i = 0; i < windows; i++) {
        for (int r = 0; r < WORLD; r++) {
            blackbox_set_step(s->boxes[r], blackbox_page(s->boxes[r])->step + STEPS);
            blackbox_set_phase(s->boxes[r], PHASE_FORWARD, NULL);
            blackbox_page(s->boxes[r])->coll_wait_ns += (int64_t)wait_ms[r] * 1000000 * STEPS;
        }
        watch_poll(s->watch);
        s->now_ns += (int64_t)STEPS * STEP_MS * 1000000;
        if (skew_rank(k, s->watch, s->now_ns, &v)) rank = v.rank;
    }
    return rank;
}

static int judge(void **state, int64_t shards, const int wait_ms[WORLD]) {
    struct skew k;
    struct err e = {0};
    assert_int_equal(skew_init(&k, WORLD, shards, 0.25, &e), 0);
    int rank = named_in(*state, &k, 4, wait_ms);
    skew_fini(&k);
    return rank;
}

static void the_rank_that_the_others_wait_for_is_named(void **state) {
    assert_int_equal(judge(state, 3, (const int[]){40, 2, 41}), 1);
    assert_int_equal(judge(state, 3, (const int[]){20, 2, 21}), -1); // less than a quarter of the step
}

// Four shards on three ranks: the first has two of them, and the others half a step to wait.
static void uneven_shards_make_no_straggler(void **state) {
    const int dealt[] = {0, 50, 50}, late[] = {40, 0, 90};
    assert_int_equal(judge(state, 4, dealt), -1);
    assert_int_equal(judge(state, 3, dealt), 0);
    assert_int_equal(judge(state, 4, late), 1);
}

static void one_bad_window_is_nothing(void **state) {
    struct skew k;
    struct err e = {0};
    const int late[] = {40, 0, 40}, fine[] = {1, 0, 1};
    assert_int_equal(skew_init(&k, WORLD, 3, 0.25, &e), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(named_in(*state, &k, 1, fine), -1);
        assert_int_equal(named_in(*state, &k, 1, late), -1);
    }
    skew_fini(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_rank_that_the_others_wait_for_is_named, open_scene, close_scene),
        cmocka_unit_test_setup_teardown(uneven_shards_make_no_straggler, open_scene, close_scene),
        cmocka_unit_test_setup_teardown(one_bad_window_is_nothing, open_scene, close_scene),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
