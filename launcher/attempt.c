// SPDX-License-Identifier: Apache-2.0
#include "launcher/attempt.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "launcher/proc.h"
#include "launcher/signals.h"
#include "storage/dataset.h"

#define TICK_MS     50
#define FAREWELL_MS 2000 // for mpirun to end by itself when all ranks have
#define TEARDOWN_MS 300  // ... when they were killed
#define GRAVE_MS    1000
#define FOLDER_MS   2000 // between two looks at the run folder
#define PING_MS     500  // between two pings of guards on other machines
#define LOOK_MAX_MS 1000 // what one look adds at most to a silence: a suspended supervisor blames nobody

// ---- begin

static int start_launcher(struct supervisor *s, struct err *e) {
    struct strv argv = {0}, env = {0};
    char name[128];
    int fd = -1;
    struct job_attempt a = {.number = s->number,
                            .ranks = s->world,
                            .control = crew_address(s->crew),
                            .token = crew_token(s->crew),
                            .box_path = s->o->boxes->path,
                            .log_path = s->log_path};
    snprintf(name, sizeof name, "logs/%s-%d/launch.log", s->o->log_prefix, s->number);
    int rc = rundir_append(s->o->job->run, name, &fd, e);
    if (!rc) rc = rundir_join(s->o->job->run, name, s->launch_log, sizeof s->launch_log, e);
    if (!rc) rc = job_command(s->o->job, &a, &argv, &env, e);
    struct proc_spec spec = {.argv = argv.items,
                             .env = env.items,
                             .out = fd,
                             .err = fd,
                             .own_group = true,
                             .death_signal = SIGKILL};
    if (!rc) rc = proc_start(&spec, &s->launcher, e);
    if (!rc) keeper_tell(s->o->keeper, s->launcher);
    if (fd >= 0) close(fd);
    strv_fini(&argv);
    strv_fini(&env);
    return rc;
}

static bool uses_store(const struct config *c) {
    return dataset_is_remote(c->data_train) || store_is_remote(c->checkpoint_url);
}

static int attempt_begin(struct supervisor *s, struct err *e) {
    const struct job *j = s->o->job;
    char name[96];
    struct watch_options look = {.box_path = s->o->boxes->path,
                                 .world = s->world,
                                 .attempt = s->number,
                                 .hang_ms = j->config->launch_hang_s * 1000,
                                 .hang_max_ms = j->config->launch_hang_max_s * 1000,
                                 .hang_factor = j->config->launch_hang_factor,
                                 .store_ms = uses_store(j->config) ? j->config->store_deadline_s * 1000 : 0};
    struct crew_options crew = {.world = s->world,
                                .listen_on = job_is_far(j) ? j->netif.address : NULL,
                                .box_path = job_is_far(j) ? s->o->boxes->path : NULL};
    roster_seat(&s->roster);
    s->growing = false;
    s->refused = 0;
    s->began_ns = s->looked_ns = clock_monotonic_ns();
    memset(s->silent_ms, 0, (size_t)j->ranks * sizeof *s->silent_ms);
    s->doubt_since_ns = 0;
    s->launcher_ended = false;
    memset(s->told, 0, (size_t)j->ranks * sizeof *s->told);
    snprintf(name, sizeof name, "logs/%s-%d", s->o->log_prefix, s->number);
    int rc = boxdir_clear_boxes(s->o->boxes->path, e);
    if (!rc) rc = rundir_make(j->run, name, s->log_path, sizeof s->log_path, e);
    if (!rc) rc = crew_open(&s->crew, &crew, e);
    if (!rc) rc = watch_open(&s->watch, &look, e);
    if (!rc) rc = skew_init(&s->skew, s->world, j->config->comm_shards, j->config->launch_straggler, e);
    if (!rc) rc = start_launcher(s, e);
    if (!rc && s->o->record) {
        s->o->record->attempt = s->number;
        s->o->record->ranks = s->world;
        rc = rundir_write_record(j->run, s->o->record, e);
    }
    struct json_writer *w = ledger_event(s->o->ledger, "attempt-start");
    json_put_int(w, "attempt", s->number);
    json_put_int(w, "ranks", s->world);
    json_put_string(w, "task", j->request->task);
    ledger_end_event(s->o->ledger);
    return rc;
}

// ---- under way

// Pids of other machines mean nothing here.
static void tell_keeper(struct supervisor *s) {
    if (job_is_far(s->o->job)) return;
    for (int r = 0; r < crew_world(s->crew); r++) {
        const struct crew_rank *rank = crew_rank(s->crew, r);
        if (!rank->pid || s->told[r] == rank->pid) continue;
        s->told[r] = rank->pid;
        keeper_tell(s->o->keeper, rank->guard_pid);
        keeper_tell(s->o->keeper, rank->pid);
    }
}

static void attach_debugger(struct supervisor *s) {
    struct debug *d = s->o->job->request->debug;
    if (!d || d->rank >= crew_world(s->crew)) return;
    const struct crew_rank *rank = crew_rank(s->crew, d->rank);
    if (rank->pid <= 0 || rank->pid == d->begun) return;
    progress_clear(&s->progress);
    debug_attach(d, rank->pid, rank->host, job_is_far(s->o->job), s->log);
}

static enum ledger_kind kind_now(const struct supervisor *s) {
    const struct blackbox_page *p = watch_front(s->watch);
    if (s->obeyed != STOP_NONE) return LEDGER_STOP;
    if (s->growing) return LEDGER_RESTART;
    if (!watch_started(s->watch)) return s->resumed ? LEDGER_RESTART : LEDGER_STARTUP;
    switch ((enum blackbox_phase)p->phase) {
    case PHASE_CHECKPOINT: return LEDGER_CHECKPOINT;
    case PHASE_EVALUATE:
    case PHASE_ROLLOUT: return LEDGER_EVALUATE;
    default: return LEDGER_PRODUCTIVE;
    }
}

static void account(struct supervisor *s) {
    const struct blackbox_page *p = watch_front(s->watch);
    enum ledger_kind kind = kind_now(s);
    ledger_spend(s->o->ledger, kind, p && kind == LEDGER_PRODUCTIVE ? p->data_wait_share : 0);
    if (!p || p->checkpoint_step <= s->best_checkpoint) return;
    s->best_checkpoint = p->checkpoint_step;
    roster_progress(&s->roster);
    ledger_saved(s->o->ledger);
    json_put_int(ledger_event(s->o->ledger, "checkpoint"), "step", p->checkpoint_step);
    ledger_end_event(s->o->ledger);
}

// Guards on other machines: pings, and for how long each has been silent.
static void look_far(struct supervisor *s) {
    int64_t now = clock_monotonic_ns(), passed_ms = (now - s->looked_ns) / 1000000;
    if (!job_is_far(s->o->job)) return;
    s->looked_ns += passed_ms * 1000000;
    if (passed_ms > LOOK_MAX_MS) passed_ms = LOOK_MAX_MS;
    for (int r = 0; r < s->world; r++) {
        const struct crew_rank *rank = crew_rank(s->crew, r);
        bool heard = !rank->connected || rank->heard_ns > s->looked_ns - passed_ms * 1000000;
        s->silent_ms[r] = heard ? 0 : s->silent_ms[r] + passed_ms;
    }
    if (now - s->pinged_ns < (int64_t)PING_MS * 1000000) return;
    s->pinged_ns = now;
    crew_ping(s->crew);
}

// A host that was lost answers again: stop at a checkpoint, so that the next attempt has its ranks.
static void look_after_hosts(struct supervisor *s) {
    char back[256];
    if (s->growing || s->wish != STOP_NONE || !watch_started(s->watch)) return;
    if (!roster_grow(&s->roster, s->world, back, sizeof back)) return;
    s->growing = true;
    progress_clear(&s->progress);
    log_info(s->log, "host %s is back: saving, then going on with %d ranks", back, roster_ranks(&s->roster));
    ledger_note(s->o->ledger, "host-back", back);
    crew_save_all(s->crew);
}

static void tell_straggler(struct supervisor *s, const struct skew_verdict *v, const char *text) {
    struct json_writer *w = ledger_event(s->o->ledger, "straggler");
    json_put_int(w, "rank", v->rank);
    json_put_string(w, "host", crew_rank(s->crew, v->rank)->host);
    json_put_double(w, "late_ms", v->late_ms);
    json_put_string(w, "text", text);
    ledger_end_event(s->o->ledger);
    progress_clear(&s->progress);
    log_warn(s->log, "straggler: %s", text);
}

static void look_for_stragglers(struct supervisor *s) {
    struct skew_verdict v;
    char text[256];
    if (skew_rank(&s->skew, s->watch, clock_monotonic_ns(), &v)) {
        snprintf(text, sizeof text, "the others wait %.0f ms of every step (%.0f ms) for rank %d on host %s",
                 v.late_ms, v.step_ms, v.rank, crew_rank(s->crew, v.rank)->host);
        tell_straggler(s, &v, text);
    }
    if (!job_is_far(s->o->job) || !skew_host(&s->skew, s->crew, &s->roster.seated, &v)) return;
    snprintf(text, sizeof text,
             "host %.60s is far on the network: %.0f ms there and back, the other hosts %.1f ms",
             s->roster.seated.list[v.host].name, v.late_ms, v.others_ms);
    tell_straggler(s, &v, text);
}

// Without its lock nothing keeps a second run out, and what the ranks have open is written to nowhere. Not
// where a server that is away would keep us from judging the attempt.
static void look_after_folder(struct supervisor *s) {
    const struct rundir *run = s->o->job->run;
    int64_t now = clock_monotonic_ns();
    if (!s->folder_local || s->orphaned || now - s->folder_ns < (int64_t)FOLDER_MS * 1000000) return;
    s->folder_ns = now;
    s->orphaned = rundir_is_lost(run);
    if (!s->orphaned) return;
    progress_clear(&s->progress);
    log_warn(
        s->log,
        "%s was removed or replaced beneath the run: its logs, metrics and events are lost from here on, "
        "and a second run could start there; Ctrl-C stops this one",
        run->given);
}

// Who knocks without the token, or speaks another protocol, is turned away; the first time it is told.
static void tell_refused(struct supervisor *s) {
    int refused = crew_refused(s->crew);
    if (refused == s->refused) return;
    bool first = s->refused == 0;
    s->refused = refused;
    if (!first) return;
    progress_clear(&s->progress);
    log_warn(s->log, "a connection to %s was refused: %s", crew_address(s->crew), crew_refusal(s->crew));
    ledger_note(s->o->ledger, "connection-refused", crew_refusal(s->crew));
}

// A rank in a debugger cannot save, and waiting for it would have no end.
static void heed_debugger(struct supervisor *s) {
    const struct debug *d = s->o->job->request->debug;
    if (s->wish != STOP_SAVE || !d || !debug_holds(d, job_is_far(s->o->job))) return;
    s->wish = STOP_NOW;
    progress_clear(&s->progress);
    log_info(s->log, "%s: rank %d is in %s and cannot save", proc_signal_name(s->wish_signal), d->rank,
             d->tool->name);
}

static void obey_wish(struct supervisor *s) {
    if (s->wish == s->obeyed) return;
    heed_debugger(s);
    s->obeyed = s->wish;
    progress_clear(&s->progress);
    if (s->wish == STOP_NOW) {
        log_warn(s->log, "stopping at once");
        return;
    }
    log_info(s->log, "%s: asking all ranks to save and stop%s", proc_signal_name(s->wish_signal),
             s->wish_signal == SIGINT ? "; Ctrl-C again stops at once" : "");
    ledger_note(s->o->ledger, "stop-asked", proc_signal_name(s->wish_signal));
    crew_save_all(s->crew);
}

static void tick(struct supervisor *s) {
    char text[256];
    s->assembled |= crew_count(s->crew, CREW_ABSENT) == 0;
    tell_refused(s);
    look_far(s);
    look_after_hosts(s);
    look_after_folder(s);
    watch_poll(s->watch);
    look_for_stragglers(s);
    account(s);
    tell_keeper(s);
    attach_debugger(s);
    if (s->wish != STOP_NONE) return;
    watch_progress(s->watch, text, sizeof text);
    progress_show(&s->progress, text);
}

static int attempt_watch(struct supervisor *s, struct verdict *v, enum outcome *out, struct err *e) {
    int64_t last_tick_ns = 0;
    int rc = 0;
    *out = OUTCOME_NONE;
    while (!rc && *out == OUTCOME_NONE) {
        struct pollfd fds[2] = {{s->signal_fd, POLLIN, 0}, {crew_fd(s->crew), POLLIN, 0}};
        if (poll(fds, 2, s->doubt_since_ns ? JUDGE_GLANCE_MS / 3 : TICK_MS) < 0 && errno != EINTR)
            return err_errno(e, errno, "cannot wait");
        signals_take(s);
        rc = crew_process(s->crew, e);
        obey_wish(s);
        if (clock_monotonic_ns() - last_tick_ns >= (int64_t)TICK_MS * 1000000) {
            tick(s);
            last_tick_ns = clock_monotonic_ns();
        }
        if (!rc) *out = judge_attempt(s, v);
        if (*out == OUTCOME_FAILED) account(s);
    }
    return rc;
}

// ---- end

static bool wait_for_launcher(struct supervisor *s, int ms) {
    int64_t until_ns = clock_monotonic_ns() + (int64_t)ms * 1000000;
    struct err ignored = {0};
    while (s->launcher && clock_monotonic_ns() < until_ns) {
        struct pollfd p = {s->signal_fd, POLLIN, 0};
        if (poll(&p, 1, 10) < 0 && errno != EINTR) break;
        signals_take(s);
        if (crew_process(s->crew, &ignored)) err_clear(&ignored);
    }
    return !s->launcher;
}

static int count_survivors(const struct supervisor *s, bool bury) {
    int n = 0;
    // Pids of other machines; there the guards see to it.
    if (job_is_far(s->o->job)) return 0;
    for (int r = 0; r < crew_world(s->crew); r++) {
        const struct crew_rank *rank = crew_rank(s->crew, r);
        bool guard = proc_alive(rank->guard_pid), ended = rank->state == CREW_ENDED;
        if (guard && bury) kill(rank->guard_pid, SIGKILL);
        // A rank without its guard is dead by its death signal; what it had started may not be.
        if (!ended && rank->pid > 0 && (bury || !guard)) kill(-rank->pid, SIGKILL);
        n += guard + (!ended && proc_alive(rank->pid));
    }
    return n;
}

static void tear_down(struct supervisor *s, bool orderly) {
    struct err ignored = {0};
    crew_tell_all(s->crew, orderly ? WIRE_BYE : WIRE_KILL);
    if (!wait_for_launcher(s, orderly ? FAREWELL_MS : TEARDOWN_MS)) {
        kill(-s->launcher, SIGKILL);
        kill(s->launcher, SIGKILL);
        wait_for_launcher(s, GRAVE_MS);
    }
    for (int ms = 0; ms < GRAVE_MS; ms += 10) {
        // A guard's last words: its rank's pid, its end.
        if (crew_process(s->crew, &ignored)) err_clear(&ignored);
        if (!count_survivors(s, ms >= TEARDOWN_MS)) break;
        clock_sleep_ms(10);
        signals_reap(s);
    }
    // What mpirun had started to reach the other hosts (ssh, srun) outlives it when a host is dead.
    if (job_is_far(s->o->job)) proc_kill_children(s->o->keeper->pid);
    signals_reap(s);
}

static void save_boxes(struct supervisor *s) {
    char path[RUNDIR_PATH_BYTES + 16];
    struct err e = {0};
    if (!s->o->record) return;
    if (rundir_make(s->o->job->run, "blackbox", path, sizeof path, &e)) goto out;
    if (boxdir_clear_boxes(path, &e)) goto out;
    if (boxdir_save_boxes(s->o->boxes->path, path, &e)) goto out;
out:
    if (e.code) log_warn(s->log, "the black boxes are not saved: %s", e.text);
}

// Whoever has stopped the run wants all of it to end. Else what a debugger shows of the end stays to be read.
static void end_debugger(struct supervisor *s) {
    struct debug *d = s->o->job->request->debug;
    if (d && s->wish != STOP_NONE) debug_end(d);
}

static void attempt_end(struct supervisor *s, bool orderly) {
    if (s->crew) tear_down(s, orderly);
    end_debugger(s);
    keeper_forget(s->o->keeper);
    save_boxes(s);
    watch_close(s->watch);
    skew_fini(&s->skew);
    crew_close(s->crew);
    s->watch = NULL;
    s->crew = NULL;
}

static void announce(struct supervisor *s, const struct verdict *v) {
    struct buf text;
    struct err full = {0};
    buf_init(&text, 1 << 16);
    progress_clear(&s->progress);
    if (!verdict_text(v, &text, &full) && bytes_write_whole(s->log->fd, text.data, text.len) < text.len)
        err_clear(&full);
    buf_fini(&text);
    verdict_json(v, ledger_event(s->o->ledger, "verdict"));
    ledger_end_event(s->o->ledger);
}

// ---- all of it

static void farewell(struct supervisor *s, enum outcome outcome) {
    char text[256];
    watch_poll(s->watch);
    watch_progress(s->watch, text, sizeof text);
    account(s);
    progress_final(&s->progress, text);
    if (outcome == OUTCOME_DONE && s->o->record)
        log_info(s->log, "done: %s, %.1f s in this command", s->o->job->run->given,
                 1e-9 * (double)(clock_monotonic_ns() - s->o->ledger->begin_ns));
    ledger_note(s->o->ledger, outcome == OUTCOME_DONE ? "done" : "saved", text);
}

int attempt_run(struct supervisor *s, struct verdict *v, enum outcome *outcome, struct err *e) {
    int rc = attempt_begin(s, e);
    if (!rc) rc = attempt_watch(s, v, outcome, e);
    bool orderly = !rc && (*outcome == OUTCOME_DONE || *outcome == OUTCOME_SAVED);
    if (orderly) farewell(s, *outcome);
    s->o->job->failed = !rc && *outcome == OUTCOME_FAILED;
    if (s->o->job->failed) announce(s, v);
    attempt_end(s, orderly);
    if (!rc && *outcome == OUTCOME_FAILED) ledger_spend(s->o->ledger, LEDGER_DETECT, 0);
    return rc;
}
