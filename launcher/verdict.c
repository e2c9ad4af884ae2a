// SPDX-License-Identifier: Apache-2.0
#include "launcher/verdict.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "launcher/proc.h"
#include "launcher/ranklog.h"

#define TAIL_BYTES     8000
#define MPI_ABORT_CODE 1 // what MPI ends a rank with that lost its peer or mpirun; our own codes are others

static bool has_failed(const struct crew_rank *r) {
    if (r->state == CREW_LOST) return true;
    return r->state == CREW_ENDED && (r->signal || (r->code != 0 && r->code != err_exit_code(ERR_SAVED)));
}

// Failures that follow from another rank's: a peer was lost, a wait was in vain, the launcher asked to stop.
static bool is_victim(const struct crew_rank *r) {
    if (r->state != CREW_ENDED) return false;
    return r->signal == SIGTERM ||
           (!r->signal && (r->code == err_exit_code(ERR_PEER) || r->code == err_exit_code(ERR_TIMEOUT) ||
                           r->code == MPI_ABORT_CODE));
}

bool verdict_needed(const struct crew *crew) {
    for (int r = 0; r < crew_world(crew); r++)
        if (has_failed(crew_rank(crew, r))) return true;
    return false;
}

// The earliest failure that is no victim, else the earliest.
static int first_failure(const struct crew *crew) {
    int best = -1;
    for (int r = 0; r < crew_world(crew); r++) {
        const struct crew_rank *now = crew_rank(crew, r), *then = best < 0 ? NULL : crew_rank(crew, best);
        if (!has_failed(now)) continue;
        bool truer = !then || is_victim(then) > is_victim(now);
        bool earlier = then && is_victim(then) == is_victim(now) && now->ended_ns < then->ended_ns;
        if (truer || earlier) best = r;
    }
    return best;
}

bool verdict_is_doubtful(const struct crew *crew) {
    int r = first_failure(crew);
    return r >= 0 && (is_victim(crew_rank(crew, r)) || crew_rank(crew, r)->state == CREW_LOST);
}

bool verdict_is_wordless(const struct crew *crew, const struct watch *w) {
    int r = first_failure(crew);
    if (r < 0 || crew_rank(crew, r)->state != CREW_ENDED || crew_rank(crew, r)->signal) return false;
    const struct blackbox_page *p = watch_page(w, r);
    return p && !p->err_code;
}

bool verdict_is_premature(const struct crew *crew) {
    int r = first_failure(crew);
    return r >= 0 && crew_rank(crew, r)->state == CREW_LOST && crew_count(crew, CREW_ABSENT) > 0;
}

bool verdict_is_external(const struct crew *crew) {
    int r = first_failure(crew);
    const struct crew_rank *rank = r < 0 ? NULL : crew_rank(crew, r);
    // A rank that MPI crashes in for its own slip dies of a fault signal, not of these.
    return rank && (rank->state == CREW_LOST || rank->signal == SIGKILL);
}

static void take_box(struct verdict *v, const struct blackbox_page *p) {
    v->step = p ? p->step : -1;
    snprintf(v->phase, sizeof v->phase, "%s",
             p ? blackbox_phase_name((enum blackbox_phase)p->phase) : "start");
    watch_place(p, v->heard_ns, v->place, sizeof v->place);
    if (!p || !p->err_code) return;
    v->code = (enum err_code)p->err_code;
    snprintf(v->error, sizeof v->error, "%s", p->err_text);
}

static void describe_others(struct verdict *v, const struct crew *crew, struct watch *w) {
    char ranks[256];
    int n = 0, first = -1;
    bool *waits = calloc((size_t)v->world, sizeof *waits);
    for (int r = 0; waits && r < v->world; r++) {
        const struct blackbox_page *p = watch_page(w, r);
        waits[r] = r != v->rank && p && watch_waits(p) && crew_rank(crew, r)->state == CREW_RUNNING;
        if (waits[r] && first < 0) first = r;
        n += waits[r];
    }
    if (n) {
        const struct blackbox_page *p = watch_page(w, first);
        watch_ranks_text(waits, v->world, ranks, sizeof ranks);
        snprintf(v->others, sizeof v->others, "rank%s %s waited in %s (collective %lld)", n > 1 ? "s" : "",
                 ranks, p->coll_name, (long long)p->coll_waiting);
    }
    free(waits);
}

// The end of a log: its last lines, as many as a verdict shows.
static void read_tail(const char *path, char *out, size_t out_bytes) {
    char text[TAIL_BYTES + 1];
    struct stat st;
    int lines = 0;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    out[0] = 0;
    if (fd < 0) return;
    bool regular = !fstat(fd, &st) && S_ISREG(st.st_mode);
    ssize_t n =
        regular ? pread(fd, text, TAIL_BYTES, st.st_size > TAIL_BYTES ? st.st_size - TAIL_BYTES : 0) : 0;
    close(fd);
    if (n <= 0) return;
    text[n] = 0;
    bytes_blank_nul(text, (size_t)n);
    char *at = text + n - 1;
    while (at > text && !(at[-1] == '\n' && ++lines == RANKLOG_LINES)) at--;
    snprintf(out, out_bytes, "%s", at);
    for (char *c = out; *c; c++)
        if (((unsigned char)*c < 0x20 && *c != '\n') || *c == 0x7f) *c = ' ';
}

static void take_rank(struct verdict *v, int rank, const struct crew *crew, struct watch *w,
                      const char *log_dir) {
    const struct crew_rank *r = crew_rank(crew, rank);
    v->rank = rank;
    v->world = crew_world(crew);
    v->pid = r->pid;
    v->signal = r->state == CREW_ENDED ? r->signal : 0;
    v->exit_code = r->state == CREW_ENDED ? r->code : 0;
    v->heard_ns = r->ended_ns ? r->ended_ns : clock_monotonic_ns();
    snprintf(v->host, sizeof v->host, "%s", r->host);
    snprintf(v->log_path, sizeof v->log_path, "%s/rank-%d.log", log_dir, rank);
    if (r->last_lines)
        snprintf(v->lines, sizeof v->lines, "%s", r->last_lines);
    else
        read_tail(v->log_path, v->lines, sizeof v->lines);
    take_box(v, watch_page(w, rank));
    describe_others(v, crew, w);
}

static const char *signal_hint(int number) {
    switch (number) {
    case SIGKILL: return "; somebody's kill -9, or the kernel's memory killer (see dmesg)";
    case SIGXCPU: return "; its limit of CPU time is used up (ulimit -t)";
    case SIGBUS: return "; a mapped file lost its disk space, or memory is faulty";
    case SIGSEGV:
    case SIGILL:
    case SIGFPE:
    case SIGABRT: return "; a fault in the program: please report it with the log";
    default: return "";
    }
}

// MPI's own code says nothing of a rank that it ends.
static bool ended_by_mpi(const struct verdict *v) {
    return v->exit_code == MPI_ABORT_CODE && v->code == ERR_PEER;
}

// A rank that could not open its black box told only its log.
static void take_logged_error(struct verdict *v) {
    for (const char *line = v->lines; *line;
         line += line[strcspn(line, "\n")] ? strcspn(line, "\n") + 1 : strlen(line)) {
        const char *at = strstr(line, "error: ");
        size_t n = strcspn(line, "\n");
        if (at && at < line + n)
            snprintf(v->error, sizeof v->error, "%.*s", (int)(line + n - at) - 7, at + 7);
    }
}

static void name_crash(struct verdict *v, const struct crew_rank *r) {
    char who[192], where[96] = "";
    snprintf(who, sizeof who, "rank %d (host %s, pid %lld)", v->rank, v->host, (long long)v->pid);
    if (v->step >= 0)
        snprintf(where, sizeof where, " after step %lld, in phase %s", (long long)v->step, v->phase);
    if (r->state == CREW_LOST)
        snprintf(v->cause, sizeof v->cause, "%s: its guard (pid %d) vanished%s", who, (int)r->guard_pid,
                 where);
    else if (r->signal)
        snprintf(v->cause, sizeof v->cause, "%s was killed by signal %d (%s)%s%s", who, r->signal,
                 proc_signal_name(r->signal), where, signal_hint(r->signal));
    else if (v->error[0])
        snprintf(v->cause, sizeof v->cause, "%s failed%s: %s", who, where, v->error);
    else
        snprintf(v->cause, sizeof v->cause, "%s ended with exit code %d%s%s%s%s%s", who, r->code,
                 v->code ? " (" : "", v->code ? err_words(v->code) : "", v->code ? ")" : "", where,
                 ended_by_mpi(v) && !strcmp(v->phase, "init")
                     ? "; 'orrery doctor' looks for what MPI lacks here"
                     : "");
}

void verdict_of_crash(struct verdict *v, const struct crew *crew, struct watch *w, int attempt,
                      const char *log_dir) {
    int rank = first_failure(crew);
    const struct crew_rank *r = crew_rank(crew, rank);
    memset(v, 0, sizeof *v);
    v->kind = VERDICT_CRASH;
    v->attempt = attempt;
    take_rank(v, rank, crew, w, log_dir);
    bool by_code = r->state == CREW_ENDED && !r->signal;
    if (!by_code) v->code = ERR_OK;
    if (by_code && (!v->code || err_exit_code(v->code) != r->code)) v->code = err_from_exit_code(r->code);
    if (by_code && r->code == MPI_ABORT_CODE && !v->error[0]) v->code = ERR_PEER;
    v->cls = v->code ? err_class_of(v->code) : ERR_CLASS_RANK;
    if (by_code && v->step < 0 && !ended_by_mpi(v)) take_logged_error(v);
    name_crash(v, r);
}

void verdict_of_hang(struct verdict *v, const struct watch_hang *hang, const struct crew *crew,
                     struct watch *w, int attempt, const char *log_dir) {
    memset(v, 0, sizeof *v);
    v->kind = hang->discord ? VERDICT_DISCORD : VERDICT_HANG;
    v->attempt = attempt;
    take_rank(v, hang->rank < 0 ? 0 : hang->rank, crew, w, log_dir);
    v->rank = hang->rank;
    v->code = hang->discord ? ERR_BUG : ERR_TIMEOUT;
    v->cls = hang->discord ? ERR_CLASS_BUG : ERR_CLASS_RETRY;
    v->silent_ms = hang->silent_ms;
    if (v->rank < 0)
        snprintf(v->cause, sizeof v->cause, "%s", hang->text);
    else
        snprintf(v->cause, sizeof v->cause, "%s (host %s, pid %lld)", hang->text, v->host, (long long)v->pid);
}

void verdict_of_host(struct verdict *v, int rank, int n, int64_t silent_ms, const struct crew *crew,
                     struct watch *w, int attempt, const char *log_dir) {
    char ranks[64], what[160];
    memset(v, 0, sizeof *v);
    v->kind = VERDICT_HOST;
    v->attempt = attempt;
    take_rank(v, rank, crew, w, log_dir);
    v->code = ERR_PEER;
    v->cls = ERR_CLASS_RANK;
    v->silent_ms = silent_ms;
    if (n > 1)
        snprintf(ranks, sizeof ranks, "ranks %d-%d", rank, rank + n - 1);
    else
        snprintf(ranks, sizeof ranks, "rank %d", rank);
    if (silent_ms)
        snprintf(what, sizeof what, "has not been heard for %.1f s: its link is cut, or it is frozen or down",
                 1e-3 * (double)silent_ms);
    else
        snprintf(what, sizeof what, "is lost: all its guards vanished at once");
    snprintf(v->cause, sizeof v->cause, "host %s (%s) %s; it was at %s", v->host, ranks, what, v->place);
}

static const char *launch_hint(const char *lines) {
    if (strstr(lines, "not enough slots")) return "; mpirun finds too few slots: fewer ranks, -n";
    if (strstr(lines, "run mpirun as root") || strstr(lines, "run as root"))
        return "; set OMPI_ALLOW_RUN_AS_ROOT=1 and OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1";
    if (strstr(lines, "rank asked") || strstr(lines, "asked for"))
        return "; the world has another size than asked for";
    if (strstr(lines, "No space left")) return "; a disk is full: see orrery doctor";
    return "";
}

static void begin_launch(struct verdict *v, const struct verdict_start *start) {
    memset(v, 0, sizeof *v);
    v->kind = VERDICT_LAUNCH;
    v->rank = -1;
    v->step = -1;
    v->world = start->world;
    v->attempt = start->attempt;
    v->heard_ns = clock_monotonic_ns();
    v->code = ERR_UNAVAILABLE;
    snprintf(v->log_path, sizeof v->log_path, "%s", start->log_path);
    read_tail(start->log_path, v->lines, sizeof v->lines);
}

void verdict_of_launch(struct verdict *v, const struct verdict_start *start, int wait_status) {
    char before[64] = "its rank was there";
    begin_launch(v, start);
    v->exit_code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 0;
    v->signal = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0;
    int killed_by = v->exit_code > 128 ? v->exit_code - 128 : 0; // as a shell tells it, so does mpirun
    v->cls = v->signal || killed_by ? ERR_CLASS_RANK : start->again ? ERR_CLASS_RETRY : ERR_CLASS_JOB;
    if (start->world > 1) snprintf(before, sizeof before, "all %d ranks were there", start->world);
    if (v->signal)
        snprintf(v->cause, sizeof v->cause, "%s was killed by signal %d (%s)", start->starter, v->signal,
                 proc_signal_name(v->signal));
    else if (killed_by)
        snprintf(v->cause, sizeof v->cause, "a process was killed by signal %d (%s) before %s", killed_by,
                 proc_signal_name(killed_by), before);
    else
        snprintf(v->cause, sizeof v->cause, "%s ended with exit code %d before %s%s", start->starter,
                 v->exit_code, before, launch_hint(v->lines));
}

void verdict_of_late(struct verdict *v, const struct verdict_start *start, const struct crew *crew,
                     int64_t waited_s) {
    char ranks[200] = "?";
    int world = crew_world(crew);
    bool *absent = calloc((size_t)world, sizeof *absent);
    begin_launch(v, start);
    v->cls = ERR_CLASS_RETRY;
    for (int r = 0; absent && r < world; r++) absent[r] = crew_rank(crew, r)->state == CREW_ABSENT;
    if (absent) watch_ranks_text(absent, world, ranks, sizeof ranks);
    snprintf(v->cause, sizeof v->cause,
             "%d of %d guards were not there after %lld s (ranks %s), and %s still runs; where starts are "
             "slow, raise launch.start_s",
             crew_count(crew, CREW_ABSENT), world, (long long)waited_s, ranks, start->starter);
    free(absent);
}

int verdict_exit_status(const struct verdict *v) {
    if (v->kind == VERDICT_HANG) return err_exit_code(ERR_TIMEOUT);
    if (v->kind == VERDICT_DISCORD) return err_exit_code(ERR_BUG);
    if (v->signal) return 128 + v->signal;
    if (v->kind == VERDICT_LAUNCH) return err_exit_code(ERR_UNAVAILABLE);
    return v->exit_code && !ended_by_mpi(v) ? v->exit_code : err_exit_code(ERR_PEER);
}

bool verdict_may_retry(const struct verdict *v) {
    return v->cls == ERR_CLASS_RETRY || v->cls == ERR_CLASS_RANK;
}

static int append_line(const struct verdict *v, const char *line, int n, struct buf *out, struct err *e) {
    size_t error = strlen(v->error);
    const char *at = error && strstr(v->cause, v->error) ? memmem(line, (size_t)n, v->error, error) : NULL;
    if (!at) return buf_appendf(out, e, "    %.*s\n", n, line);
    const char *rest = at + error;
    return buf_appendf(out, e, "    %.*s" VERDICT_CAUSE "%.*s\n", (int)(at - line), line,
                       (int)(line + n - rest), rest);
}

static int append_lines(const struct verdict *v, struct buf *out, struct err *e) {
    const char *lines = v->lines;
    int rc = 0;
    while (*lines && !rc) {
        size_t n = strcspn(lines, "\n");
        rc = append_line(v, lines, (int)n, out, e);
        lines += n + (lines[n] == '\n');
    }
    return rc;
}

int verdict_text(const struct verdict *v, struct buf *out, struct err *e) {
    static const char *const titles[] = {
        [VERDICT_CRASH] = "failed",         [VERDICT_HANG] = "hangs",
        [VERDICT_LAUNCH] = "did not start", [VERDICT_HOST] = "lost a host",
        [VERDICT_DISCORD] = "lost its way",
    };
    int rc = buf_appendf(out, e, "attempt %d %s\n", v->attempt, titles[v->kind]);
    if (!rc && v->rank >= 0)
        rc = buf_appendf(out, e, "  rank %d of %d on host %s, pid %lld: %s\n", v->rank, v->world, v->host,
                         (long long)v->pid, v->place);
    if (!rc && v->others[0]) rc = buf_appendf(out, e, "  %s\n", v->others);
    if (!rc && v->lines[0]) rc = buf_appendf(out, e, "  last lines of %s:\n", v->log_path);
    if (!rc && v->lines[0]) rc = append_lines(v, out, e);
    if (!rc && !v->lines[0]) rc = buf_appendf(out, e, "  log (empty): %s\n", v->log_path);
    return rc ? rc : buf_appendf(out, e, "cause: %s\n", v->cause);
}

// ---- the record

static const char *const kind_names[] = {
    [VERDICT_CRASH] = "crash", [VERDICT_HANG] = "hang",       [VERDICT_LAUNCH] = "launch",
    [VERDICT_HOST] = "host",   [VERDICT_DISCORD] = "discord",
};
#define KINDS (sizeof kind_names / sizeof *kind_names)

void verdict_json(const struct verdict *v, struct json_writer *w) {
    json_put_string(w, "kind", kind_names[v->kind]);
    json_put_int(w, "attempt", v->attempt);
    json_put_int(w, "rank", v->rank);
    json_put_int(w, "world", v->world);
    json_put_string(w, "host", v->host);
    json_put_int(w, "pid", v->pid);
    json_put_int(w, "signal", v->signal);
    json_put_int(w, "exit_code", v->exit_code);
    json_put_string(w, "class", err_class_name(v->cls));
    json_put_int(w, "step", v->step);
    json_put_string(w, "phase", v->phase);
    json_put_string(w, "place", v->place);
    json_put_string(w, "error", v->error);
    json_put_string(w, "others", v->others);
    json_put_string(w, "cause", v->cause);
    json_put_string(w, "log", v->log_path);
    json_put_string(w, "lines", v->lines);
}

static void take_text(const struct json_value *o, const char *key, char *out, size_t out_bytes, bool lines) {
    snprintf(out, out_bytes, "%s", json_string_or(o, key, ""));
    for (char *at = out; *at; at++)
        if (((unsigned char)*at < 0x20 && !(lines && *at == '\n')) || *at == 0x7f) *at = '?';
}

static int take_int(const struct json_value *o, const char *key) {
    int64_t value = json_int_or(o, key, 0);
    return value >= -1 && value <= INT32_MAX ? (int)value : 0;
}

void verdict_from_json(struct verdict *v, const struct json_value *o) {
    char kind[16];
    memset(v, 0, sizeof *v);
    take_text(o, "kind", kind, sizeof kind, false);
    for (size_t k = 0; k < KINDS; k++)
        if (!strcmp(kind, kind_names[k])) v->kind = (enum verdict_kind)k;
    v->attempt = take_int(o, "attempt");
    v->rank = take_int(o, "rank");
    v->world = take_int(o, "world");
    v->pid = take_int(o, "pid");
    v->signal = take_int(o, "signal");
    v->exit_code = take_int(o, "exit_code");
    v->step = json_int_or(o, "step", -1);
    take_text(o, "host", v->host, sizeof v->host, false);
    take_text(o, "phase", v->phase, sizeof v->phase, false);
    take_text(o, "place", v->place, sizeof v->place, false);
    take_text(o, "error", v->error, sizeof v->error, false);
    take_text(o, "others", v->others, sizeof v->others, false);
    take_text(o, "cause", v->cause, sizeof v->cause, false);
    take_text(o, "log", v->log_path, sizeof v->log_path, false);
    take_text(o, "lines", v->lines, sizeof v->lines, true);
}
