// SPDX-License-Identifier: Apache-2.0
#include "launcher/roster.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "launcher/proc.h"

#define PROBE_EVERY_MS 2000
#define PROBE_MS       5000
#define BANNED_MS      600000 // for a host that answers, but whose ranks have failed again and again
#define STRIKES        2

int roster_init(struct roster *r, struct job *j, struct err *e) {
    memset(r, 0, sizeof *r);
    r->job = j;
    r->hosts = calloc((size_t)j->hosts.n + 1, sizeof *r->hosts);
    r->seated.list = calloc((size_t)j->hosts.n + 1, sizeof *r->seated.list);
    if (!r->hosts || !r->seated.list) return err_set(e, ERR_MEMORY, "no memory for %d hosts", j->hosts.n);
    roster_seat(r);
    int64_t least = j->config->launch_min_ranks;
    r->least = least > 0 && least < j->ranks ? (int)least : j->ranks;
    return 0;
}

static void end_probe(struct roster_host *h) {
    if (h->probe <= 0) return;
    kill(-h->probe, SIGKILL);
    kill(h->probe, SIGKILL);
    while (waitpid(h->probe, NULL, 0) < 0 && errno == EINTR) {
    }
    h->probe = 0;
}

void roster_fini(struct roster *r) {
    for (int i = 0; r->hosts && i < r->job->hosts.n; i++) end_probe(&r->hosts[i]);
    free(r->hosts);
    hosts_fini(&r->seated);
    r->hosts = NULL;
}

void roster_seat(struct roster *r) {
    r->seated.n = r->job->hosts.n;
    for (int i = 0; i < r->seated.n; i++) r->seated.list[i] = r->job->hosts.list[i];
}

int roster_ranks(const struct roster *r) {
    if (!job_is_far(r->job)) return r->job->ranks;
    int slots = hosts_slots(&r->job->hosts);
    return slots < r->job->ranks ? slots : r->job->ranks;
}

bool roster_leave_out(struct roster *r, int host) {
    struct host *h = &r->job->hosts.list[host];
    h->out = true;
    if (roster_ranks(r) < r->least) h->out = false;
    r->hosts[host].answered = false;
    r->hosts[host].quiet_until = clock_monotonic_ns() + (int64_t)PROBE_EVERY_MS * 1000000;
    return h->out;
}

bool roster_strike(struct roster *r, int host) {
    struct roster_host *h = &r->hosts[host];
    if (++h->strikes < STRIKES || !roster_leave_out(r, host)) return false;
    h->quiet_until = clock_monotonic_ns() + (int64_t)BANNED_MS * 1000000;
    h->strikes = 0;
    return true;
}

void roster_progress(struct roster *r) {
    for (int i = 0; i < r->job->hosts.n; i++) r->hosts[i].strikes = 0;
}

// ---- probes

static void begin_probe(struct roster *r, int host) {
    struct sched_request request = job_sched_request(r->job);
    struct roster_host *h = &r->hosts[host];
    struct strv argv = {0};
    struct err e = {0};
    h->answered = false;
    h->probed_ns = clock_monotonic_ns();
    int rc = r->job->sched->probe(&request, r->job->hosts.list[host].name, &argv, &e);
    struct proc_spec spec = {
        .argv = argv.items, .out = -1, .err = -1, .silent = true, .own_group = true, .death_signal = SIGKILL};
    if (rc || proc_start(&spec, &h->probe, &e)) h->probe = 0;
    strv_fini(&argv);
}

static void probe_ended(struct roster_host *h, int wait_status) {
    h->probe = 0;
    h->answered = WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;
    h->quiet_until = clock_monotonic_ns() + (int64_t)PROBE_EVERY_MS * 1000000;
}

bool roster_reap(struct roster *r, pid_t pid, int wait_status) {
    for (int i = 0; i < r->job->hosts.n; i++) {
        if (r->hosts[i].probe != pid) continue;
        probe_ended(&r->hosts[i], wait_status);
        return true;
    }
    return false;
}

// Waits for the probes under way; who has not answered by then does not answer.
static void await_probes(struct roster *r, int ms) {
    int64_t until_ns = clock_monotonic_ns() + (int64_t)ms * 1000000;
    for (bool waiting = true; waiting && clock_monotonic_ns() < until_ns;) {
        waiting = false;
        for (int i = 0; i < r->job->hosts.n; i++) {
            int status;
            if (r->hosts[i].probe <= 0) continue;
            if (waitpid(r->hosts[i].probe, &status, WNOHANG) == r->hosts[i].probe)
                probe_ended(&r->hosts[i], status);
            else
                waiting = true;
        }
        if (waiting) clock_sleep_ms(10);
    }
    for (int i = 0; i < r->job->hosts.n; i++) end_probe(&r->hosts[i]);
}

int roster_muster(struct roster *r, int ms) {
    int lost = 0, n = r->job->hosts.n;
    if (!r->job->sched->probe) return 0;
    for (int i = 0; i < n; i++)
        if (!r->job->hosts.list[i].out && r->hosts[i].probe <= 0) begin_probe(r, i);
    await_probes(r, ms);
    for (int i = 0; i < n; i++)
        if (!r->job->hosts.list[i].out && !r->hosts[i].answered) lost += roster_leave_out(r, i);
    return lost;
}

// ---- growing

static void look_after(struct roster *r, int host, int64_t now) {
    struct roster_host *h = &r->hosts[host];
    if (h->probe > 0 && now - h->probed_ns > (int64_t)PROBE_MS * 1000000) end_probe(h);
    if (h->probe <= 0 && !h->answered && now >= h->quiet_until) begin_probe(r, host);
}

bool roster_grow(struct roster *r, int ranks, char *back, size_t back_bytes) {
    int64_t now = clock_monotonic_ns();
    size_t used = 0;
    back[0] = 0;
    if (!job_is_far(r->job) || !r->job->sched->probe || ranks >= r->job->ranks) return false;
    for (int i = 0; i < r->job->hosts.n; i++) {
        struct host *h = &r->job->hosts.list[i];
        if (!h->out) continue;
        look_after(r, i, now);
        if (!r->hosts[i].answered) continue;
        h->out = false;
        if (used < back_bytes)
            used += (size_t)snprintf(back + used, back_bytes - used, "%s%s", used ? ", " : "", h->name);
    }
    return roster_ranks(r) > ranks;
}
