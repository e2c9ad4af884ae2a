// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "launcher/crew.h"
#include "launcher/verdict.h"

static struct wire connect_to(const struct crew *c) {
    struct wire w;
    struct err e = {0};
    int fd;
    assert_int_equal(wire_connect(crew_address(c), &fd, &e), 0);
    wire_init(&w, fd);
    return w;
}

static void send_type(struct wire *w, enum wire_type type, int rank, int world, const char *token) {
    struct wire_message m = {.type = type, .rank = rank, .world = world, .pid = 4000 + rank, .host = "h1"};
    struct err e = {0};
    if (token) snprintf(m.token, sizeof m.token, "%s", token);
    assert_int_equal(wire_send(w, &m, &e), 0);
}

static void settle(struct crew *c) {
    struct err e = {0};
    for (int i = 0; i < 20; i++) {
        assert_int_equal(crew_process(c, &e), 0);
        clock_sleep_ms(2);
    }
}

static struct crew *open_crew(int world) {
    struct crew *c = NULL;
    struct err e = {0};
    const struct crew_options options = {.world = world};
    assert_int_equal(crew_open(&c, &options, &e), 0);
    return c;
}

static void a_guard_with_the_token_is_let_in(void **state) {
    struct crew *c = open_crew(2);
    struct wire w = connect_to(c);
    send_type(&w, WIRE_HELLO, 1, 2, crew_token(c));
    send_type(&w, WIRE_STARTED, 1, 2, NULL);
    settle(c);
    assert_int_equal(crew_rank(c, 1)->state, CREW_RUNNING);
    assert_int_equal(crew_rank(c, 1)->pid, 4001);
    assert_string_equal(crew_rank(c, 1)->host, "h1");
    assert_int_equal(crew_rank(c, 0)->state, CREW_ABSENT);
    assert_true(crew_rank(c, 1)->connected);
    assert_false(crew_rank(c, 0)->connected);
    wire_fini(&w);
    crew_close(c);
}

static void expect_refused(int rank, int world, const char *token, enum wire_type type) {
    struct crew *c = open_crew(2);
    struct wire w = connect_to(c);
    send_type(&w, type, rank, world, token ? token : crew_token(c));
    settle(c);
    assert_int_equal(crew_refused(c), 1);
    assert_int_equal(crew_count(c, CREW_ABSENT), 2);
    wire_fini(&w);
    crew_close(c);
}

static void strangers_are_turned_away(void **state) {
    expect_refused(0, 2, "ffffffffffffffffffffffffffffffff", WIRE_HELLO);
    expect_refused(0, 2, "", WIRE_HELLO);
    expect_refused(2, 2, NULL, WIRE_HELLO);
    expect_refused(-1, 2, NULL, WIRE_HELLO);
    expect_refused(0, 3, NULL, WIRE_HELLO);
    expect_refused(0, 2, NULL, WIRE_ENDED);
}

static void a_rank_that_is_here_cannot_be_taken_over(void **state) {
    struct crew *c = open_crew(1);
    struct wire first = connect_to(c), second = connect_to(c);
    send_type(&first, WIRE_HELLO, 0, 1, crew_token(c));
    settle(c);
    send_type(&second, WIRE_HELLO, 0, 1, crew_token(c));
    settle(c);
    assert_int_equal(crew_refused(c), 1);
    assert_true(crew_rank(c, 0)->connected);
    wire_fini(&first);
    wire_fini(&second);
    crew_close(c);
}

// As when the supervisor was stopped for a while: all of them wait when it looks again.
static void all_guards_may_come_at_once(void **state) {
    enum { WORLD = 150 };
    struct crew *c = open_crew(WORLD);
    struct wire w[WORLD];
    for (int r = 0; r < WORLD; r++) {
        w[r] = connect_to(c);
        send_type(&w[r], WIRE_HELLO, r, WORLD, crew_token(c));
    }
    settle(c);
    for (int r = 0; r < WORLD; r++) assert_true(crew_rank(c, r)->connected);
    assert_int_equal(crew_refused(c), 0);
    for (int r = 0; r < WORLD; r++) wire_fini(&w[r]);
    crew_close(c);
}

static void silent_strangers_keep_nobody_out(void **state) {
    enum { STRANGERS = 200 };
    struct crew *c = open_crew(2);
    struct wire silent[STRANGERS], early = connect_to(c), late;
    settle(c);
    for (int i = 0; i < STRANGERS; i++) silent[i] = connect_to(c);
    send_type(&early, WIRE_HELLO, 0, 2, crew_token(c));
    settle(c);
    late = connect_to(c);
    send_type(&late, WIRE_HELLO, 1, 2, crew_token(c));
    settle(c);
    assert_true(crew_rank(c, 0)->connected && crew_rank(c, 1)->connected);
    assert_true(crew_refused(c) > 0);
    assert_string_equal(crew_refusal(c), "it said nothing, and others came (from 127.0.0.1)");
    for (int i = 0; i < STRANGERS; i++) wire_fini(&silent[i]);
    wire_fini(&early);
    wire_fini(&late);
    crew_close(c);
}

static void rubbish_harms_nobody(void **state) {
    struct crew *c = open_crew(1);
    struct wire good = connect_to(c), bad = connect_to(c);
    char noise[4096];
    memset(noise, 'x', sizeof noise);
    assert_int_equal(write(bad.fd, noise, sizeof noise), sizeof noise);
    send_type(&good, WIRE_HELLO, 0, 1, crew_token(c));
    settle(c);
    assert_int_equal(crew_refused(c), 1);
    assert_int_equal(crew_rank(c, 0)->state, CREW_HERE);
    wire_fini(&good);
    wire_fini(&bad);
    crew_close(c);
}

// A guard whose rank has started.
static struct wire join_crew(struct crew *c, int rank, int world) {
    struct wire w = connect_to(c);
    send_type(&w, WIRE_HELLO, rank, world, crew_token(c));
    send_type(&w, WIRE_STARTED, rank, world, NULL);
    settle(c);
    return w;
}

static void a_guard_that_vanishes_is_lost(void **state) {
    struct crew *c = open_crew(1);
    struct wire w = join_crew(c, 0, 1);
    assert_false(verdict_needed(c));
    wire_fini(&w);
    settle(c);
    assert_int_equal(crew_rank(c, 0)->state, CREW_LOST);
    assert_true(verdict_needed(c));
    crew_close(c);
}

static bool hears_save(struct wire *w) {
    struct wire_message m;
    struct err e = {0};
    bool have = false;
    assert_int_equal(wire_receive(w, &e), 0);
    assert_int_equal(wire_next(w, &m, &have, &e), 0);
    return have && m.type == WIRE_SAVE;
}

static void who_starts_late_is_asked_to_save_too(void **state) {
    struct crew *c = open_crew(2);
    struct wire early = join_crew(c, 0, 2), late;
    assert_false(hears_save(&early));
    crew_save_all(c);
    assert_true(hears_save(&early));
    late = connect_to(c);
    send_type(&late, WIRE_HELLO, 1, 2, crew_token(c));
    settle(c);
    assert_false(hears_save(&late));
    send_type(&late, WIRE_STARTED, 1, 2, NULL);
    settle(c);
    assert_true(hears_save(&late));
    wire_fini(&early);
    wire_fini(&late);
    crew_close(c);
}

// When one does not come to life mpirun ends the others: whoever of them vanishes first is not the cause.
static void a_guard_that_vanishes_before_all_came_tells_little(void **state) {
    struct crew *c = open_crew(2);
    struct wire early = join_crew(c, 0, 2), late;
    assert_false(verdict_is_premature(c));
    wire_fini(&early);
    settle(c);
    assert_true(verdict_is_premature(c));
    late = connect_to(c);
    send_type(&late, WIRE_HELLO, 1, 2, crew_token(c));
    settle(c);
    assert_false(verdict_is_premature(c));
    wire_fini(&late);
    crew_close(c);
}

static void end_rank(struct wire *w, int rank, int signal_number, int code) {
    struct wire_message m = {.type = WIRE_ENDED,
                             .rank = rank,
                             .world = 3,
                             .pid = 4000 + rank,
                             .signal = signal_number,
                             .code = code};
    struct err e = {0};
    assert_int_equal(wire_send(w, &m, &e), 0);
}

// Rank 2 lost its peer first in time; rank 1's own failure is the cause all the same.
static void the_cause_goes_before_its_victims(void **state) {
    struct crew *c = open_crew(3);
    struct wire w[3];
    struct watch *watch = NULL;
    struct watch_options options = {.box_path = "/nonexistent", .world = 3, .attempt = 1};
    struct err e = {0};
    static struct verdict v;
    for (int r = 0; r < 3; r++) w[r] = join_crew(c, r, 3);
    end_rank(&w[2], 2, 0, err_exit_code(ERR_PEER));
    settle(c);
    assert_true(verdict_is_doubtful(c));
    end_rank(&w[1], 1, SIGKILL, 0);
    settle(c);
    assert_false(verdict_is_doubtful(c));
    assert_int_equal(watch_open(&watch, &options, &e), 0);
    verdict_of_crash(&v, c, watch, 1, "/nonexistent");
    assert_int_equal(v.rank, 1);
    assert_int_equal(v.signal, SIGKILL);
    assert_int_equal(v.cls, ERR_CLASS_RANK);
    assert_int_equal(verdict_exit_status(&v), 128 + SIGKILL);
    assert_non_null(strstr(v.cause, "rank 1 (host h1, pid 4001) was killed by signal 9 (SIGKILL)"));
    for (int r = 0; r < 3; r++) wire_fini(&w[r]);
    watch_close(watch);
    crew_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guard_with_the_token_is_let_in),
        cmocka_unit_test(strangers_are_turned_away),
        cmocka_unit_test(a_rank_that_is_here_cannot_be_taken_over),
        cmocka_unit_test(all_guards_may_come_at_once),
        cmocka_unit_test(silent_strangers_keep_nobody_out),
        cmocka_unit_test(rubbish_harms_nobody),
        cmocka_unit_test(a_guard_that_vanishes_is_lost),
        cmocka_unit_test(a_guard_that_vanishes_before_all_came_tells_little),
        cmocka_unit_test(who_starts_late_is_asked_to_save_too),
        cmocka_unit_test(the_cause_goes_before_its_victims),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
