// SPDX-License-Identifier: Apache-2.0
#include "launcher/watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "launcher/watch_impl.h"

#define SILENCE_STEP_MS 1000 // what one look adds at most: a suspended machine raises no alarm

int watch_open(struct watch **out, const struct watch_options *options, struct err *e) {
    struct watch *w = calloc(1, sizeof *w);
    if (!w) return err_set(e, ERR_MEMORY, "no memory to watch the ranks");
    w->options = *options;
    snprintf(w->box_path, sizeof w->box_path, "%s", options->box_path);
    w->eyes = calloc((size_t)options->world, sizeof *w->eyes);
    w->pages = calloc((size_t)options->world, sizeof *w->pages);
    int rc = w->eyes && w->pages ? 0 : err_set(e, ERR_MEMORY, "no memory to watch %d ranks", options->world);
    for (int r = 0; r < options->world && !rc; r++) {
        w->eyes[r].page = calloc(1, sizeof *w->eyes[r].page);
        if (!w->eyes[r].page) rc = err_set(e, ERR_MEMORY, "no memory to watch %d ranks", options->world);
    }
    w->last_ns = clock_monotonic_ns();
    if (rc) {
        watch_close(w);
        return rc;
    }
    *out = w;
    return 0;
}

void watch_close(struct watch *w) {
    if (!w) return;
    for (int r = 0; w->eyes && r < w->options.world; r++) {
        blackbox_close(w->eyes[r].box);
        free(w->eyes[r].page);
    }
    free(w->eyes);
    free(w->pages);
    free(w);
}

static void open_box(struct watch *w, int rank) {
    char path[320];
    struct err not_yet = {0};
    snprintf(path, sizeof path, "%s/rank-%d.box", w->box_path, rank);
    if (blackbox_open(&w->eyes[rank].box, path, &not_yet)) w->eyes[rank].box = NULL;
}

static void follow_steps(struct eye *eye, int64_t now) {
    if (eye->page->step == eye->step) return;
    if (!eye->step_seen_ns) {
        eye->first_step = eye->page->step;
        eye->first_ns = now;
    }
    eye->step = eye->page->step;
    eye->step_seen_ns = now;
}

static void look(struct watch *w, int rank, int64_t now, int64_t passed_ms) {
    struct eye *eye = &w->eyes[rank];
    if (!eye->box) open_box(w, rank);
    if (!eye->box) return;
    blackbox_read(eye->box, eye->page);
    const struct blackbox_page *p = eye->page;
    eye->have = p->rank == rank && p->world == w->options.world && p->attempt == w->options.attempt;
    if (!eye->have) {
        blackbox_close(eye->box);
        eye->box = NULL;
        return;
    }
    eye->silent_ms += passed_ms;
    if (p->heartbeat_ns != eye->heartbeat_ns) eye->silent_ms = 0;
    eye->heartbeat_ns = p->heartbeat_ns;
    follow_steps(eye, now);
}

void watch_poll(struct watch *w) {
    int64_t now = clock_monotonic_ns();
    int64_t passed_ms = (now - w->last_ns) / 1000000;
    w->last_ns = now - (now - w->last_ns) % 1000000;
    if (passed_ms > SILENCE_STEP_MS) passed_ms = SILENCE_STEP_MS;
    for (int r = 0; r < w->options.world; r++) look(w, r, now, passed_ms);
}

const struct blackbox_page *watch_page(const struct watch *w, int rank) {
    return w->eyes[rank].have ? w->eyes[rank].page : NULL;
}

bool watch_waits(const struct blackbox_page *p) {
    return p->coll_waiting != 0;
}

const struct blackbox_page *watch_front(const struct watch *w) {
    for (int r = 0; r < w->options.world; r++)
        if (w->eyes[r].have) return w->eyes[r].page;
    return NULL;
}

bool watch_started(const struct watch *w) {
    const struct blackbox_page *p = watch_front(w);
    return p && p->phase != PHASE_INIT;
}

// ---- for people

void watch_ranks_text(const bool *in, int n, char *out, size_t out_bytes) {
    size_t used = 0;
    out[0] = 0;
    for (int r = 0; r < n && used < out_bytes; r++) {
        int last = r;
        if (!in[r]) continue;
        while (last + 1 < n && in[last + 1]) last++;
        const char *comma = used ? ", " : "";
        if (last > r + 1)
            used += (size_t)snprintf(out + used, out_bytes - used, "%s%d-%d", comma, r, last);
        else
            used += (size_t)snprintf(out + used, out_bytes - used, "%s%d", comma, r);
        if (last > r + 1) r = last;
    }
}

static void duration_text(double seconds, char *out, size_t out_bytes) {
    long long s = (long long)seconds;
    if (s >= 3600)
        snprintf(out, out_bytes, "%lldh%02lldm", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(out, out_bytes, "%lldm%02llds", s / 60, s % 60);
    else
        snprintf(out, out_bytes, "%llds", s);
}

// Pace as we saw it, so that a resumed run is not credited with the steps of an earlier attempt.
static double seconds_left(const struct eye *eye) {
    const struct blackbox_page *p = eye->page;
    double spent = 1e-9 * (double)(clock_monotonic_ns() - eye->first_ns);
    if (!eye->step_seen_ns || p->step <= eye->first_step || p->total_steps <= p->step) return -1;
    return spent * (double)(p->total_steps - p->step) / (double)(p->step - eye->first_step);
}

static size_t append_train(const struct blackbox_page *p, char *out, size_t n) {
    int used = snprintf(out, n, "  loss %.4g  %.1f samples/s  data wait %.0f%%", p->loss, p->samples_per_s,
                        100 * p->data_wait_share);
    return used > 0 && (size_t)used < n ? (size_t)used : 0;
}

void watch_progress(const struct watch *w, char *out, size_t out_bytes) {
    const struct eye *eye = NULL;
    char left[32];
    for (int r = 0; r < w->options.world && !eye; r++)
        if (w->eyes[r].have) eye = &w->eyes[r];
    out[0] = 0;
    if (!eye) return;
    const struct blackbox_page *p = eye->page;
    if (p->part_total > 0) {
        watch_part(p, out, out_bytes);
        return;
    }
    bool steps = !strcmp(p->task, "train") && p->phase != PHASE_EVALUATE && p->phase != PHASE_ROLLOUT;
    if (p->total_steps <= 0 || (steps && !p->samples_seen)) return;
    const char *word = steps                    ? "step"
                       : p->phase == PHASE_INIT ? p->task
                                                : blackbox_phase_name((enum blackbox_phase)p->phase);
    size_t used =
        (size_t)snprintf(out, out_bytes, "%s %lld/%lld", word, (long long)p->step, (long long)p->total_steps);
    if (used < out_bytes && steps && p->samples_seen > 0)
        used += append_train(p, out + used, out_bytes - used);
    double seconds = seconds_left(eye);
    if (seconds < 0 || used >= out_bytes) return;
    duration_text(seconds, left, sizeof left);
    snprintf(out + used, out_bytes - used, "  ETA %s", left);
}

void watch_part(const struct blackbox_page *p, char *out, size_t out_bytes) {
    snprintf(out, out_bytes, "%s %lld/%lld %s", blackbox_phase_name((enum blackbox_phase)p->phase),
             (long long)p->part_done, (long long)p->part_total, p->part_of);
}

void watch_place(const struct blackbox_page *p, int64_t now_ns, char *out, size_t out_bytes) {
    if (!p) {
        snprintf(out, out_bytes, "before its black box was open");
        return;
    }
    double since = 1e-9 * (double)(now_ns - p->phase_since_ns);
    int used = snprintf(out, out_bytes, "step %lld, %s%s%s for %.1f s", (long long)p->step,
                        blackbox_phase_name((enum blackbox_phase)p->phase), *p->place ? " of " : "", p->place,
                        since);
    if (used > 0 && (size_t)used < out_bytes && watch_waits(p))
        snprintf(out + used, out_bytes - (size_t)used, ", waiting in %s (collective %lld)", p->coll_name,
                 (long long)p->coll_waiting);
}
