// SPDX-License-Identifier: Apache-2.0
// Hosts that are lost and come back, with probes that are commands of this machine.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "launcher/roster.h"

#define MUSTER_MS 60000 // no answer is waited for: every probe ends

static const char *lost_name; // this host does not answer

static int probe(const struct sched_request *r, const char *host, struct strv *argv, struct err *e) {
    return strv_add(argv, lost_name && !strcmp(host, lost_name) ? "false" : "true", e);
}

static const struct sched fake = {.name = "fake", .place = PLACE_HOSTS, .probe = probe};

static void begin(struct job *j, struct config *c, struct roster *r) {
    struct err e = {0};
    memset(c, 0, sizeof *c);
    c->launch_min_ranks = 1;
    *j = (struct job){.config = c, .sched = &fake, .ranks = 6};
    assert_int_equal(hosts_parse(&j->hosts, "h1:2,h2:2,h3:2", &e), 0);
    assert_int_equal(roster_init(r, j, &e), 0);
    roster_seat(r);
    lost_name = NULL;
}

static void end(struct job *j, struct roster *r) {
    roster_fini(r);
    hosts_fini(&j->hosts);
}

static void a_muster_leaves_out_who_does_not_answer(void **state) {
    static struct job j;
    static struct config c;
    struct roster r;
    begin(&j, &c, &r);
    assert_int_equal(roster_muster(&r, MUSTER_MS), 0);
    assert_int_equal(roster_ranks(&r), 6);
    lost_name = "h2";
    assert_int_equal(roster_muster(&r, MUSTER_MS), 1);
    assert_int_equal(roster_ranks(&r), 4);
    assert_true(j.hosts.list[1].out);
    end(&j, &r);
}

// Whoever has failed is looked for among those that took part, not among those that are left.
static void a_loss_moves_nobody_of_the_attempt_that_it_ended(void **state) {
    static struct job j;
    static struct config c;
    struct roster r;
    begin(&j, &c, &r);
    lost_name = "h2";
    assert_int_equal(roster_muster(&r, MUSTER_MS), 1);
    assert_int_equal(hosts_of_rank(&r.seated, 2), 1);
    assert_int_equal(hosts_of_rank(&r.seated, 4), 2);
    assert_int_equal(hosts_first_rank(&r.seated, 2), 4);
    roster_seat(&r);
    assert_int_equal(hosts_of_rank(&r.seated, 2), 2);
    end(&j, &r);
}

// ... nor does a host that comes back: it has no ranks before the next attempt.
static void a_host_that_is_back_has_no_ranks_yet(void **state) {
    static struct job j;
    static struct config c;
    struct roster r;
    char back[64] = "";
    begin(&j, &c, &r);
    assert_true(roster_leave_out(&r, 0));
    r.hosts[0].quiet_until = 0;
    roster_seat(&r);
    for (int i = 0; i < 10000 && !roster_grow(&r, 4, back, sizeof back); i++) {
        int status;
        if (r.hosts[0].probe > 0 && waitpid(r.hosts[0].probe, &status, 0) == r.hosts[0].probe)
            assert_true(roster_reap(&r, r.hosts[0].probe, status));
    }
    assert_string_equal(back, "h1");
    assert_int_equal(roster_ranks(&r), 6);
    assert_int_equal(hosts_of_rank(&r.seated, 0), 1);
    assert_int_equal(hosts_of_rank(&r.seated, 3), 2);
    end(&j, &r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_muster_leaves_out_who_does_not_answer),
                                       cmocka_unit_test(a_loss_moves_nobody_of_the_attempt_that_it_ended),
                                       cmocka_unit_test(a_host_that_is_back_has_no_ranks_yet)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
