// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "launcher/boxdir.h"
#include "launcher/watch.h"

#define WORLD   3
#define HANG_MS 1200 // far more than a look takes on a busy machine

struct scene {
    char folder[40];
    struct blackbox *boxes[WORLD];
    struct watch *watch;
    struct crew *crew;
};

static void box_path(const struct scene *s, int rank, char *out, size_t n) {
    snprintf(out, n, "%s/rank-%d.box", s->folder, rank);
}

static int open_scene(void **state) {
    struct scene *s = calloc(1, sizeof *s);
    struct err e = {0};
    char path[64];
    snprintf(s->folder, sizeof s->folder, "/tmp/orrery-test-watch-XXXXXX");
    if (!mkdtemp(s->folder)) return -1;
    struct watch_options options = {.box_path = s->folder, .world = WORLD, .attempt = 2, .hang_ms = HANG_MS};
    for (int r = 0; r < WORLD; r++) {
        box_path(s, r, path, sizeof path);
        if (blackbox_create(&s->boxes[r], path, r, WORLD, 2, "train", &e)) return -1;
    }
    const struct crew_options crew = {.world = WORLD};
    if (watch_open(&s->watch, &options, &e) || crew_open(&s->crew, &crew, &e)) return -1;
    *state = s;
    return 0;
}

static int close_scene(void **state) {
    struct scene *s = *state;
    for (int r = 0; r < WORLD; r++) blackbox_close(s->boxes[r]);
    watch_close(s->watch);
    crew_close(s->crew);
    boxdir_remove_tree(s->folder);
    free(s);
    return 0;
}

// All ranks step, so that the run's pace is known.
static void step_all(struct scene *s, int64_t from, int64_t to) {
    for (int64_t step = from; step <= to; step++) {
        for (int r = 0; r < WORLD; r++) {
            blackbox_set_step(s->boxes[r], step);
            blackbox_set_phase(s->boxes[r], PHASE_FORWARD, NULL);
            blackbox_set_phase(s->boxes[r], PHASE_BACKWARD, NULL);
        }
        watch_poll(s->watch);
    }
}

static void poll_for(struct scene *s, int ms, int busy) {
    for (int t = 0; t < ms; t += 10) {
        clock_sleep_ms(10);
        for (int r = 0; r < WORLD; r++)
            if (busy & (1 << r)) blackbox_set_step(s->boxes[r], blackbox_page(s->boxes[r])->step);
        watch_poll(s->watch);
    }
}

// Looks until there is a hang; the machine may be slow.
static bool hangs_at_last(struct scene *s, struct watch_hang *hang) {
    bool hangs = false;
    for (int i = 0; i < 3000 && !hangs; i++) {
        poll_for(s, 10, 0);
        hangs = watch_hang(s->watch, s->crew, hang);
    }
    return hangs;
}

static void wait_in(struct blackbox *box, const char *name) {
    blackbox_coll_begin(box, name, 4200000, 4200000);
    blackbox_coll_wait(box, name, blackbox_page(box)->coll_seq, 4200000);
}

static void a_silent_rank_is_named_with_those_who_wait(void **state) {
    struct scene *s = *state;
    struct watch_hang hang;
    step_all(s, 1, 12);
    for (int r = 0; r < WORLD; r++)
        if (r != 1) wait_in(s->boxes[r], "all-reduce gradients");
    blackbox_set_phase(s->boxes[1], PHASE_BACKWARD, "block 2");
    poll_for(s, 60, 0);
    assert_false(watch_hang(s->watch, s->crew, &hang));
    assert_true(hangs_at_last(s, &hang));
    assert_int_equal(hang.rank, 1);
    assert_non_null(strstr(hang.text, "ranks 0, 2 wait in all-reduce gradients"));
    assert_non_null(strstr(hang.text, "rank 1 has shown no sign of life"));
    assert_non_null(strstr(hang.text, "backward of block 2"));
}

static void signs_of_life_and_slow_phases_raise_no_alarm(void **state) {
    struct scene *s = *state;
    struct watch_hang hang;
    step_all(s, 1, 12);
    poll_for(s, 250, 7);
    assert_false(watch_hang(s->watch, s->crew, &hang));
    for (int r = 0; r < WORLD; r++) blackbox_set_phase(s->boxes[r], PHASE_CHECKPOINT, NULL);
    poll_for(s, HANG_MS + 200, 0);
    assert_false(watch_hang(s->watch, s->crew, &hang));
}

// What is usual decides: a phase that is often silent for long is no hang when it is so again.
static void usual_silences_are_no_hang(void **state) {
    struct scene *s = *state;
    struct watch_hang hang;
    step_all(s, 1, 12);
    for (int r = 0; r < WORLD; r++)
        blackbox_page(s->boxes[r])->silences[PHASE_BACKWARD][18] += 40; // up to 524 ms
    poll_for(s, HANG_MS + 200, 0);
    assert_false(watch_hang(s->watch, s->crew, &hang));
    assert_true(hangs_at_last(s, &hang));
    assert_true(hang.silent_ms > 10 * 500);
}

static void who_is_behind_in_a_deadlock_is_named(void **state) {
    struct scene *s = *state;
    struct watch_hang hang;
    step_all(s, 1, 12);
    for (int r = 0; r < WORLD; r++) {
        blackbox_page(s->boxes[r])->silences[BLACKBOX_WAITING][10] += 20;
        for (int k = 0; k < (r == 2 ? 3 : 4); k++) blackbox_coll_begin(s->boxes[r], "agree", 8, 8);
        blackbox_coll_wait(s->boxes[r], "agree", blackbox_page(s->boxes[r])->coll_seq, 8);
    }
    poll_for(s, 60, 0);
    assert_false(watch_hang(s->watch, s->crew, &hang));
    assert_true(hangs_at_last(s, &hang));
    assert_int_equal(hang.rank, 2);
    assert_non_null(strstr(hang.text, "rank 2 is behind"));
    assert_non_null(strstr(hang.text, "ranks 0, 1 wait in agree"));
}

static void another_order_of_collectives_is_told_before_anything_hangs(void **state) {
    struct scene *s = *state;
    struct watch_hang hang;
    step_all(s, 1, 12);
    for (int r = 0; r < WORLD; r++) {
        blackbox_coll_begin(s->boxes[r], "agree", 8, 8);
        blackbox_coll_begin(s->boxes[r], r == 1 ? "gather" : "reduce", 8 << r, -1); // bytes of its own
        blackbox_coll_begin(s->boxes[r], "agree", 8, 8);
    }
    poll_for(s, 250, 7);
    assert_false(watch_hang(s->watch, s->crew, &hang)); // seen once
    poll_for(s, 250, 7);
    assert_true(watch_hang(s->watch, s->crew, &hang));
    assert_true(hang.discord);
    assert_int_equal(hang.rank, 1);
    assert_non_null(strstr(hang.text, "'reduce'"));
    assert_non_null(strstr(hang.text, "ranks 0, 2"));
    assert_non_null(strstr(hang.text, "'gather'"));
}

static void the_first_steps_have_time(void **state) {
    struct scene *s = *state;
    struct watch_hang hang;
    step_all(s, 1, 1);
    poll_for(s, HANG_MS + 200, 0);
    assert_false(watch_hang(s->watch, s->crew, &hang));
}

// The start has the greatest deadline, not that of a step.
static void a_silent_start_has_the_longest_time(void **state) {
    struct scene *s = *state;
    struct watch_hang hang;
    const int64_t most_ms = 3 * HANG_MS;
    struct watch_options options = {
        .box_path = s->folder, .world = WORLD, .attempt = 2, .hang_ms = HANG_MS, .hang_max_ms = most_ms};
    struct err e = {0};
    watch_close(s->watch);
    assert_int_equal(watch_open(&s->watch, &options, &e), 0);
    poll_for(s, HANG_MS + 200, 0);
    assert_false(watch_hang(s->watch, s->crew, &hang));
    assert_true(hangs_at_last(s, &hang));
    assert_true(hang.silent_ms > most_ms);
    assert_non_null(strstr(hang.text, "init"));
}

static void forged_boxes_are_not_believed(void **state) {
    struct scene *s = *state;
    char path[64], other[64];
    struct err e = {0};
    struct blackbox *forged = NULL;
    // Another rank's box, one of an earlier attempt, and one behind a symlink.
    for (int r = 0; r < WORLD; r++) {
        box_path(s, r, path, sizeof path);
        unlink(path);
    }
    box_path(s, 0, path, sizeof path);
    assert_int_equal(blackbox_create(&forged, path, 1, WORLD, 2, "train", &e), 0);
    blackbox_close(forged);
    box_path(s, 1, path, sizeof path);
    assert_int_equal(blackbox_create(&forged, path, 1, WORLD, 1, "train", &e), 0);
    blackbox_close(forged);
    snprintf(other, sizeof other, "%s/elsewhere", s->folder);
    assert_int_equal(blackbox_create(&forged, other, 2, WORLD, 2, "train", &e), 0);
    blackbox_close(forged);
    box_path(s, 2, path, sizeof path);
    assert_int_equal(symlink(other, path), 0);
    watch_poll(s->watch);
    for (int r = 0; r < WORLD; r++) assert_null(watch_page(s->watch, r));
    assert_null(watch_front(s->watch));
    // Rubbish of the right size.
    char *noise = malloc(sizeof(struct blackbox_page));
    memset(noise, 0xa5, sizeof(struct blackbox_page));
    unlink(path);
    assert_int_equal(bytes_write_file(path, noise, sizeof(struct blackbox_page), &e), 0);
    watch_poll(s->watch);
    assert_null(watch_page(s->watch, 2));
    free(noise);
}

static void progress_reads_like_a_sentence(void **state) {
    struct scene *s = *state;
    char text[256];
    struct blackbox_page *p = blackbox_page(s->boxes[0]);
    p->total_steps = 100;
    p->samples_seen = 12;
    p->loss = 0.25;
    p->samples_per_s = 80;
    p->data_wait_share = 0.02;
    step_all(s, 1, 3);
    watch_progress(s->watch, text, sizeof text);
    assert_non_null(strstr(text, "step 3/100  loss 0.25  80.0 samples/s  data wait 2%  ETA "));
    watch_progress(s->watch, text, 8); // too small is cut, not overrun
    assert_int_equal(strlen(text), 7);
    blackbox_set_phase(s->boxes[0], PHASE_EVALUATE, "sequences 96 to 103");
    blackbox_set_part(s->boxes[0], 96, 256, "sequences");
    watch_poll(s->watch);
    watch_progress(s->watch, text, sizeof text);
    assert_string_equal(text, "evaluate 96/256 sequences");
    blackbox_set_phase(s->boxes[0], PHASE_DATA, "");
    watch_poll(s->watch);
    watch_progress(s->watch, text, sizeof text);
    assert_non_null(strstr(text, "step 3/100")); // the next phase does not count
}

static void rank_lists_are_short(void **state) {
    char text[64];
    const bool in[] = {true, true, true, false, true, false, true, true};
    watch_ranks_text(in, 8, text, sizeof text);
    assert_string_equal(text, "0-2, 4, 6, 7");
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, open_scene, close_scene)
        T(a_silent_rank_is_named_with_those_who_wait),
        T(signs_of_life_and_slow_phases_raise_no_alarm),
        T(the_first_steps_have_time),
        T(a_silent_start_has_the_longest_time),
        T(forged_boxes_are_not_believed),
        T(progress_reads_like_a_sentence),
        T(usual_silences_are_no_hang),
        T(who_is_behind_in_a_deadlock_is_named),
        T(another_order_of_collectives_is_told_before_anything_hangs),
        cmocka_unit_test(rank_lists_are_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
