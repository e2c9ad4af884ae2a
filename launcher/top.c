// SPDX-License-Identifier: Apache-2.0
#include "launcher/top.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/process.h"
#include "launcher/watch.h"

#define SILENT_S 5.0
#define LATE_MS  1.0 // less is nobody's fault
#define GIB      1073741824.0

int top_open(struct top *t, const char *run, struct err *e) {
    struct err absent = {0};
    int rc = rundir_open(&t->run, run, false, e);
    if (!rc && nvml_open(&t->nvml, &absent)) t->nvml = NULL;
    return rc;
}

void top_close(struct top *t) {
    why_fini(&t->why);
    free(t->before);
    free(t->ranks);
    nvml_close(t->nvml);
    rundir_close(&t->run);
}

// ---- looking

static struct top_count count_of(const struct why *w, const struct blackbox_page *p) {
    struct top_count c = {.pid = p->pid, .step = p->step, .wait_ns = p->coll_wait_ns};
    for (int i = 0; i < PHASE_COUNT; i++) c.busy_ns += p->phase_ns[i];
    if (w->now_ns > p->phase_since_ns) c.busy_ns += w->now_ns - p->phase_since_ns;
    if (watch_waits(p) && w->now_ns > p->coll_since_ns) c.wait_ns += w->now_ns - p->coll_since_ns;
    return c;
}

// Since the look before, where that was the same process and some time has passed.
static struct top_count since(const struct top *t, int i, const struct top_count *now) {
    struct top_count d = *now;
    if (i >= t->n_before || t->before[i].pid != now->pid || now->busy_ns <= t->before[i].busy_ns) return d;
    d.step -= t->before[i].step;
    d.wait_ns -= t->before[i].wait_ns;
    d.busy_ns -= t->before[i].busy_ns;
    return d;
}

static double share(int64_t part, int64_t whole) {
    double x = whole > 0 ? (double)part / (double)whole : NAN;
    return x < 0 ? 0 : x > 1 ? 1 : x;
}

// Who waits longest for its peers came first; all others were later by what they wait less.
static void rank_lateness(struct top *t, const struct top_count *counts) {
    int64_t most = 0;
    for (int i = 0; i < t->why.n; i++) {
        struct top_count d = since(t, i, &counts[i]);
        if (d.wait_ns > most) most = d.wait_ns;
    }
    for (int i = 0; i < t->why.n; i++) {
        struct top_count d = since(t, i, &counts[i]);
        struct top_rank *r = &t->ranks[i];
        r->wait_share = share(d.wait_ns, d.busy_ns);
        r->data_share = t->why.pages[i].data_wait_share;
        r->late_ms = 1e-6 * (double)(most - d.wait_ns) / (d.step > 0 ? (double)d.step : 1);
    }
}

// A process of this host that a signal has stopped, even in the midst of a wait. Elsewhere nobody can tell.
static bool is_stopped(const struct blackbox_page *p) {
    char here[sizeof p->host], path[40], text[512];
    if (strncmp(process_host(here, sizeof here, ""), p->host, sizeof here) != 0) return false;
    snprintf(path, sizeof path, "/proc/%d/stat", p->pid);
    FILE *f = fopen(path, "re");
    if (!f) return false;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    const char *name_end = strrchr(text, ')');
    return name_end && (!strncmp(name_end, ") T", 3) || !strncmp(name_end, ") t", 3));
}

static void mark(struct top *t) {
    int latest = -1;
    double most = LATE_MS;
    for (int i = 0; i < t->why.n; i++) {
        const struct blackbox_page *p = &t->why.pages[i];
        struct top_rank *r = &t->ranks[i];
        r->silent_s = 1e-9 * (double)(t->why.now_ns - p->heartbeat_ns);
        bool silent = t->why.live && r->silent_s > SILENT_S;
        r->stopped = silent && is_stopped(p);
        r->wanted = p->err_code || r->stopped || (silent && !watch_waits(p));
        if (r->late_ms > most) latest = i;
        if (r->late_ms > most) most = r->late_ms;
    }
    if (latest >= 0 && t->why.live) t->ranks[latest].wanted = true;
}

int top_look(struct top *t, struct err *e) {
    why_fini(&t->why);
    int rc = why_read(&t->why, &t->run, e);
    if (rc) return rc;
    size_t n = (size_t)t->why.n + 1;
    struct top_count *counts = calloc(n, sizeof *counts);
    free(t->ranks);
    t->ranks = calloc(n, sizeof *t->ranks);
    if (!counts || !t->ranks) {
        free(counts);
        return err_set(e, ERR_MEMORY, "no memory for %d ranks", t->why.n);
    }
    for (int i = 0; i < t->why.n; i++) counts[i] = count_of(&t->why, &t->why.pages[i]);
    rank_lateness(t, counts);
    mark(t);
    free(t->before);
    t->before = counts;
    t->n_before = t->why.n;
    return 0;
}

// ---- as text

static const char *state_of(const struct why *w) {
    if (w->live) return "running";
    // A supervisor that was killed had no time to write how it ended.
    return strcmp(w->record.state, "running") != 0 ? w->record.state : "interrupted";
}

// The rank that is farthest tells of the run.
static const struct blackbox_page *front(const struct why *w) {
    const struct blackbox_page *p = NULL;
    for (int i = 0; i < w->n; i++)
        if (!p || w->pages[i].step > p->step) p = &w->pages[i];
    return p;
}

static int put_step(const struct blackbox_page *p, struct buf *out, struct err *e) {
    char saved[32] = "none yet";
    if (p->checkpoint_step >= 0) snprintf(saved, sizeof saved, "%" PRId64, p->checkpoint_step);
    return buf_appendf(
        out, e, "step %" PRId64 "/%" PRId64 "  loss %.5g  grad norm %.4g  %.1f samples/s  checkpoint %s\n",
        p->step, p->total_steps, p->loss, p->grad_norm, p->samples_per_s, saved);
}

static int put_part(struct top *t, const struct blackbox_page *p, struct buf *out, struct err *e) {
    char text[128];
    watch_part(p, text, sizeof text);
    t->head_lines++;
    return buf_appendf(out, e, "%s\n", text);
}

static int put_head(struct top *t, struct buf *out, struct err *e) {
    const struct why *w = &t->why;
    const struct blackbox_page *p = front(w);
    int rc = buf_appendf(out, e, "%.200s (%s): %s, attempt %" PRId64 ", %" PRId64 " rank%s\n", t->run.given,
                         w->record.id, state_of(w), w->record.attempt, w->record.ranks,
                         w->record.ranks == 1 ? "" : "s");
    if (!rc && !p)
        rc = buf_appendf(out, e, "no black box yet%s%.60s\n",
                         w->live ? " here; the run's supervisor is on host " : "",
                         w->live ? w->record.host : "");
    else if (!rc)
        rc = put_step(p, out, e);
    if (!rc && p && p->part_total > 0 && w->live) rc = put_part(t, p, out, e);
    if (!rc && w->unread[0]) rc = buf_appendf(out, e, "not read: %s\n", w->unread);
    return rc;
}

static int put_gpus(struct top *t, struct buf *out, struct err *e) {
    int rc = 0;
    for (int i = 0; t->nvml && i < nvml_count(t->nvml) && !rc; i++) {
        struct nvml_gpu g;
        struct err bad = {0};
        if (nvml_read(t->nvml, i, &g, &bad))
            rc = buf_appendf(out, e, "!GPU %d: %.120s\n", i, bad.text);
        else
            rc = buf_appendf(out, e, " GPU %d %.40s: %d %% busy, %.1f of %.1f GiB\n", i, g.name,
                             g.busy_percent, (double)g.memory_used_bytes / GIB,
                             (double)g.memory_total_bytes / GIB);
        t->head_lines++;
    }
    return rc;
}

static const char *percent(double share_of_one, char out[8]) {
    if (isnan(share_of_one))
        snprintf(out, 8, "-");
    else
        snprintf(out, 8, "%.0f%%", 100 * share_of_one);
    return out;
}

static int put_rank(const struct top *t, int i, struct buf *out, struct err *e) {
    const struct blackbox_page *p = &t->why.pages[i];
    const struct top_rank *r = &t->ranks[i];
    char wait[8], data[8];
    int rc = buf_appendf(out, e, "%c%5d %-12.12s %8" PRId64 " %-10.10s %7.1fs %5s %5s %8.1f  ",
                         r->wanted ? '!' : ' ', p->rank, p->host, p->step,
                         blackbox_phase_name((enum blackbox_phase)p->phase),
                         1e-9 * (double)(t->why.now_ns - p->phase_since_ns), percent(r->data_share, data),
                         percent(r->wait_share, wait), r->late_ms);
    if (!rc && p->err_code) return buf_appendf(out, e, "error: %.120s\n", p->err_text);
    if (!rc && r->stopped)
        return buf_appendf(out, e, "silent for %.0f s: stopped by a signal\n", r->silent_s);
    if (!rc && watch_waits(p))
        return buf_appendf(out, e, "waits in %.40s (collective %" PRId64 ")\n", p->coll_name, p->coll_seq);
    if (!rc && t->why.live && r->silent_s > SILENT_S)
        rc = buf_appendf(out, e, "silent for %.0f s  ", r->silent_s);
    return rc ? rc : buf_appendf(out, e, "%.80s\n", p->place);
}

static int later_first(const void *a, const void *b, void *arg) {
    const struct top *t = arg;
    double x = t->ranks[*(const int *)a].late_ms, y = t->ranks[*(const int *)b].late_ms;
    if (x != y) return x < y ? 1 : -1;
    return *(const int *)a - *(const int *)b;
}

static int put_ranks(struct top *t, struct buf *out, struct err *e) {
    int *order = calloc((size_t)t->why.n + 1, sizeof *order), rc = 0;
    if (!order) return err_set(e, ERR_MEMORY, "no memory for %d ranks", t->why.n);
    for (int i = 0; i < t->why.n; i++) order[i] = i;
    if (t->by_lateness) qsort_r(order, (size_t)t->why.n, sizeof *order, later_first, t);
    for (int i = 0; i < t->why.n && !rc; i++) rc = put_rank(t, order[i], out, e);
    free(order);
    return rc;
}

int top_text(struct top *t, struct buf *out, struct err *e) {
    t->head_lines = TOP_HEAD_LINES;
    int rc = put_head(t, out, e);
    if (!rc) rc = put_gpus(t, out, e);
    if (!rc && t->why.comparison[0] && t->why.live) {
        rc = buf_appendf(out, e, " now: %.400s\n", t->why.comparison);
        t->head_lines++;
    }
    if (!rc)
        rc = buf_appendf(out, e, " %5s %-12s %8s %-10s %8s %5s %5s %8s  %s\n", "RANK", "HOST", "STEP",
                         "PHASE", "FOR", "DATA", "WAIT", "LATE ms", "AT");
    return rc ? rc : put_ranks(t, out, e);
}

// ---- as JSON

static void put_json_rank(struct json_writer *w, const struct top *t, int i) {
    const struct blackbox_page *p = &t->why.pages[i];
    const struct top_rank *r = &t->ranks[i];
    json_put_object(w, NULL);
    json_put_int(w, "rank", p->rank);
    json_put_string(w, "host", p->host);
    json_put_int(w, "pid", p->pid);
    json_put_int(w, "step", p->step);
    json_put_string(w, "phase", blackbox_phase_name((enum blackbox_phase)p->phase));
    json_put_double(w, "seconds_in_phase", 1e-9 * (double)(t->why.now_ns - p->phase_since_ns));
    json_put_double(w, "seconds_silent", r->silent_s);
    json_put_double(w, "data_share", r->data_share);
    json_put_double(w, "wait_share", r->wait_share);
    json_put_double(w, "late_ms", r->late_ms);
    json_put_bool(w, "waits", watch_waits(p));
    json_put_bool(w, "wanted", r->wanted);
    json_put_string(w, "place", p->place);
    json_put_string(w, "error", p->err_code ? p->err_text : "");
    json_close(w, '}');
}

static void put_json_gpus(struct json_writer *w, const struct top *t) {
    json_put_array(w, "gpus");
    for (int i = 0; t->nvml && i < nvml_count(t->nvml); i++) {
        struct nvml_gpu g;
        struct err bad = {0};
        if (nvml_read(t->nvml, i, &g, &bad)) continue;
        json_put_object(w, NULL);
        json_put_int(w, "gpu", i);
        json_put_string(w, "name", g.name);
        json_put_int(w, "busy_percent", g.busy_percent);
        json_put_int(w, "memory_used_bytes", g.memory_used_bytes);
        json_put_int(w, "memory_total_bytes", g.memory_total_bytes);
        json_close(w, '}');
    }
    json_close(w, ']');
}

int top_json(const struct top *t, struct buf *out, struct err *e) {
    const struct blackbox_page *p = front(&t->why);
    struct json_writer w;
    json_begin(&w, out);
    json_put_object(&w, NULL);
    json_put_string(&w, "id", t->why.record.id);
    json_put_string(&w, "state", state_of(&t->why));
    json_put_int(&w, "attempt", t->why.record.attempt);
    json_put_int(&w, "step", p ? p->step : -1);
    json_put_int(&w, "total_steps", p ? p->total_steps : -1);
    json_put_double(&w, "loss", p ? p->loss : NAN);
    json_put_double(&w, "samples_per_s", p ? p->samples_per_s : NAN);
    json_put_int(&w, "checkpoint_step", p ? p->checkpoint_step : -1);
    json_put_int(&w, "part_done", p ? p->part_done : 0);
    json_put_int(&w, "part_total", p ? p->part_total : 0);
    json_put_string(&w, "part_of", p && p->part_total ? p->part_of : "");
    json_put_string(&w, "comparison", t->why.comparison);
    json_put_array(&w, "ranks");
    for (int i = 0; t->why.pages && i < t->why.n; i++) put_json_rank(&w, t, i);
    json_close(&w, ']');
    put_json_gpus(&w, t);
    json_close(&w, '}');
    return json_end(&w, e);
}
