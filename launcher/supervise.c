// SPDX-License-Identifier: Apache-2.0
#include "launcher/supervise.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "launcher/attempt.h"
#include "launcher/proc.h"
#include "launcher/signals.h"

#define MUSTER_MS     3000 // for hosts to answer, when one seems lost
#define BACKOFF_MAX_S 30

// ---- between two attempts

// Waits before a retry when a service was away, or mpirun failed; a wish to stop ends the wait.
static void back_off(struct supervisor *s, const struct verdict *v, int failures) {
    if (v->code != ERR_UNAVAILABLE || v->cls != ERR_CLASS_RETRY) return;
    int seconds = failures < 5 ? 1 << failures : BACKOFF_MAX_S;
    int64_t until_ns = clock_monotonic_ns() + (int64_t)seconds * 1000000000;
    log_info(s->log, "next attempt in %d s", seconds);
    for (int64_t left_ns; s->wish == STOP_NONE && (left_ns = until_ns - clock_monotonic_ns()) > 0;) {
        struct pollfd p = {s->signal_fd, POLLIN, 0};
        if (poll(&p, 1, (int)(left_ns / 1000000) + 1) > 0) signals_take(s);
    }
    ledger_spend(s->o->ledger, LEDGER_IDLE, 0);
}

static void tell_left_out(struct supervisor *s, int host, const char *why) {
    const char *name = s->o->job->hosts.list[host].name;
    log_warn(s->log, "host %s is left out (%s): going on with %d of %d ranks", name, why,
             roster_ranks(&s->roster), s->o->job->ranks);
    ledger_note(s->o->ledger, "host-left-out", name);
}

// Asks every host whether it is there; those that do not answer are left out. How many.
static int muster(struct supervisor *s) {
    struct job *j = s->roster.job;
    bool *was_out = job_is_far(j) ? calloc((size_t)j->hosts.n + 1, sizeof *was_out) : NULL;
    if (!was_out) return 0;
    for (int i = 0; i < j->hosts.n; i++) was_out[i] = j->hosts.list[i].out;
    int lost = roster_muster(&s->roster, MUSTER_MS);
    for (int i = 0; i < j->hosts.n; i++)
        if (j->hosts.list[i].out && !was_out[i]) tell_left_out(s, i, "no answer");
    free(was_out);
    return lost;
}

// A failure that may be the machine's: which hosts does the next attempt have?
static void choose_hosts(struct supervisor *s, const struct verdict *v) {
    struct job *j = s->roster.job;
    if (!job_is_far(j)) return;
    int host = v->rank >= 0 ? hosts_of_rank(&s->roster.seated, v->rank) : -1;
    // Heard nothing from it: out, until it answers. Else it may have been a process and not the machine.
    bool silent = host >= 0 && v->kind == VERDICT_HOST && v->silent_ms > 0;
    if (silent && roster_leave_out(&s->roster, host))
        tell_left_out(s, host, "lost");
    else if (silent)
        log_warn(s->log, "without host %s fewer than launch.min_ranks ranks would be left", v->host);
    if (v->kind == VERDICT_HOST) muster(s);
    if (host < 0 || j->hosts.list[host].out || v->cls != ERR_CLASS_RANK || silent) return;
    if (roster_strike(&s->roster, host)) tell_left_out(s, host, "its ranks failed again");
}

// Asked to stop after a failure that another attempt may mend: the newest checkpoint is what that one would
// have begun with, so the same command goes on from there.
static int stopped_between(struct supervisor *s, const struct verdict *v) {
    char text[96];
    if (s->wish != STOP_SAVE || s->best_checkpoint < 0) return verdict_exit_status(v);
    snprintf(text, sizeof text, "%s before the next attempt: step %lld is saved",
             proc_signal_name(s->wish_signal), (long long)s->best_checkpoint);
    log_info(s->log, "%s", text);
    ledger_note(s->o->ledger, "saved", text);
    return err_exit_code(ERR_SAVED);
}

// After a failure: -1 when another attempt is worth it, else the exit status.
static int go_on(struct supervisor *s, const struct verdict *v, int64_t best_before, int *failures) {
    bool progress = s->best_checkpoint > best_before;
    *failures = progress ? 1 : *failures + 1;
    ledger_lose(s->o->ledger);
    // A start that failed, or a peer that was lost on the way, may be a host that is gone.
    bool asks = v->kind == VERDICT_LAUNCH || (v->kind == VERDICT_CRASH && v->code == ERR_PEER);
    bool fewer = asks && muster(s) > 0;
    if (!verdict_may_retry(v) && !fewer) return verdict_exit_status(v);
    if (*failures >= s->o->attempts) {
        if (s->o->attempts > 1) log_error(s->log, "%d attempts without progress: giving up", *failures);
        return verdict_exit_status(v);
    }
    choose_hosts(s, v);
    back_off(s, v, *failures - 1);
    if (s->wish != STOP_NONE) return stopped_between(s, v);
    log_info(s->log, "restarting: attempt %d, from %s", s->number + 1,
             s->best_checkpoint >= 0 ? "the newest checkpoint" : "where the run began");
    return -1;
}

// ---- all of them

static int stopped_status(struct supervisor *s) {
    progress_clear(&s->progress);
    log_warn(s->log, "stopped without saving");
    ledger_note(s->o->ledger, "stopped", proc_signal_name(s->wish_signal));
    return 128 + s->wish_signal;
}

static int run_attempts(struct supervisor *s, struct err *e) {
    struct verdict *v = calloc(1, sizeof *v);
    int failures = 0, status = -1;
    int rc = v ? 0 : err_set(e, ERR_MEMORY, "no memory for a verdict");
    while (!rc && status < 0) {
        enum outcome outcome = OUTCOME_NONE;
        int64_t best_before = s->best_checkpoint;
        s->number++;
        s->world = roster_ranks(&s->roster);
        rc = attempt_run(s, v, &outcome, e);
        if (rc) break;
        if (outcome == OUTCOME_DONE) status = 0;
        bool grows = outcome == OUTCOME_SAVED && s->growing && s->wish == STOP_NONE;
        if (outcome == OUTCOME_SAVED && !grows) status = err_exit_code(ERR_SAVED);
        if (grows) failures = 0;
        if (outcome == OUTCOME_STOPPED) status = stopped_status(s);
        if (outcome == OUTCOME_FAILED) status = go_on(s, v, best_before, &failures);
        s->resumed = true;
    }
    free(v);
    return rc ? rc : status;
}

int supervise_run(const struct supervise_options *options, struct err *e) {
    struct supervisor s = {
        .o = options, .log = options->log, .signal_fd = -1, .best_checkpoint = options->resume_step};
    size_t ranks = (size_t)options->job->ranks;
    s.number = rundir_last_attempt(options->job->run, options->log_prefix, e);
    s.folder_local = rundir_is_local(options->job->run);
    s.told = calloc(ranks, sizeof *s.told);
    s.silent_ms = calloc(ranks, sizeof *s.silent_ms);
    progress_init(&s.progress, options->log);
    int rc = s.told && s.silent_ms ? 0 : err_set(e, ERR_MEMORY, "no memory to supervise");
    if (!rc && s.number < 0) rc = s.number;
    if (!rc) rc = signals_open(&s, e);
    if (!rc) rc = roster_init(&s.roster, options->job, e);
    if (!rc) rc = run_attempts(&s, e);
    ledger_spend(options->ledger, LEDGER_STOP, 0);
    ledger_account(options->ledger);
    if (s.signal_fd >= 0) close(s.signal_fd);
    roster_fini(&s.roster);
    free(s.silent_ms);
    free(s.told);
    return rc;
}
