// SPDX-License-Identifier: Apache-2.0
// Who is missing when nothing moves: silence against deadlines that are learned from the run, waits for each
// other, collectives that differ.
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "launcher/discord.h"
#include "launcher/pace.h"
#include "launcher/watch_impl.h"

#define STORE_MARGIN_MS 10000
#define COLD_MS         60000   // deadline while nothing is known of a phase that computes
#define SLOW_FLOOR_MS   60000   // least deadline of saving and evaluating
#define HANG_MAX_MS     1800000 // deadline while nothing is known of these
#define PACE_FACTOR     10
#define DISCORD_MS      200 // between two comparisons of the ranks' collectives, more with many ranks

static int64_t ceiling_ms(const struct watch *w) {
    return w->options.hang_max_ms > 0 ? w->options.hang_max_ms : HANG_MAX_MS;
}

// A multiple of what is usual, between floor and ceiling; `cold` while nothing is known.
static int64_t learned_ms(const struct watch *w, const struct pace *pace, int row, int64_t floor_ms,
                          int64_t cold_ms) {
    int64_t factor = w->options.hang_factor > 0 ? w->options.hang_factor : PACE_FACTOR;
    int64_t usual = pace_high_ms(pace, row), ms = usual < 0 ? cold_ms : factor * usual;
    if (ms > ceiling_ms(w)) ms = ceiling_ms(w);
    return ms > floor_ms ? ms : floor_ms;
}

static int64_t largest(int64_t a, int64_t b) {
    return a > b ? a : b;
}

// How long a rank that waits for no peer may be silent where it is. A store that does not answer is waited
// for until its own deadline.
static int64_t patience_ms(const struct watch *w, const struct pace *pace, const struct eye *eye) {
    int64_t floor_ms = w->options.hang_ms, store_ms = w->options.store_ms;
    int phase = eye->page->phase;
    if (store_ms) store_ms += STORE_MARGIN_MS;
    switch ((enum blackbox_phase)phase) {
    case PHASE_FORWARD:
    case PHASE_BACKWARD:
    case PHASE_OPTIMISER:
    case PHASE_COLLECTIVE: return learned_ms(w, pace, phase, floor_ms, COLD_MS);
    case PHASE_DATA: return learned_ms(w, pace, phase, largest(floor_ms, store_ms), COLD_MS);
    // What is read and set up there has no pace that could be learned.
    case PHASE_INIT: return largest(largest(floor_ms, ceiling_ms(w)), store_ms);
    default:
        return learned_ms(w, pace, phase, largest(largest(floor_ms, SLOW_FLOOR_MS), store_ms), ceiling_ms(w));
    }
}

// Out of the others' way: waits for them, or has done its work.
static bool is_patient(const struct watch *w, const struct crew *crew, int rank) {
    const struct eye *eye = &w->eyes[rank];
    const struct crew_rank *r = crew_rank(crew, rank);
    return !r->halted && r->state != CREW_ENDED && watch_waits(eye->page);
}

static int64_t deadline_ms(const struct watch *w, const struct pace *pace, const struct crew *crew,
                           int rank) {
    const struct crew_rank *r = crew_rank(crew, rank);
    if (r->halted || r->state == CREW_ENDED) return w->options.hang_ms;
    return patience_ms(w, pace, &w->eyes[rank]);
}

static void name_waiters(const struct watch *w, int except, char *out, size_t out_bytes) {
    char ranks[256];
    int n = 0, first = -1, world = w->options.world;
    bool *waits = calloc((size_t)world, sizeof *waits);
    out[0] = 0;
    for (int r = 0; waits && r < world; r++) {
        waits[r] = r != except && w->eyes[r].have && watch_waits(w->eyes[r].page);
        if (waits[r] && first < 0) first = r;
        n += waits[r];
    }
    if (n) {
        const struct blackbox_page *p = w->eyes[first].page;
        watch_ranks_text(waits, world, ranks, sizeof ranks);
        snprintf(out, out_bytes, "rank%s %s wait%s in %s (collective %lld, %.1f MB); ", n > 1 ? "s" : "",
                 ranks, n > 1 ? "" : "s", p->coll_name, (long long)p->coll_waiting,
                 1e-6 * (double)p->coll_bytes);
    }
    free(waits);
}

static void describe_hang(const struct watch *w, const struct crew *crew, struct watch_hang *h) {
    char waiters[384], place[192];
    const struct crew_rank *r = crew_rank(crew, h->rank);
    name_waiters(w, h->rank, waiters, sizeof waiters);
    watch_place(watch_page(w, h->rank), clock_monotonic_ns(), place, sizeof place);
    const char *how = "has shown no sign of life";
    if (r->halted) how = "is stopped by a signal";
    if (r->state == CREW_ENDED) how = "has ended";
    snprintf(h->text, sizeof h->text, "%srank %d %s for %.1f s: %s", waiters, h->rank, how,
             1e-3 * (double)h->silent_ms, place);
}

static void learn(const struct watch *w, struct pace *pace) {
    pace_clear(pace);
    for (int r = 0; r < w->options.world; r++)
        if (w->eyes[r].have) pace_add(pace, w->eyes[r].page);
}

static bool is_done(const struct watch *w, const struct crew *crew, int rank) {
    return crew_rank(crew, rank)->state == CREW_ENDED && w->eyes[rank].page->phase == PHASE_DONE;
}

// A rank that keeps the others waiting, silent for longer than it may be.
static bool find_missing(const struct watch *w, const struct crew *crew, const struct pace *pace,
                         struct watch_hang *out) {
    int64_t worst = 0;
    out->rank = -1;
    for (int r = 0; r < w->options.world; r++) {
        const struct eye *eye = &w->eyes[r];
        if (!eye->have || is_done(w, crew, r) || is_patient(w, crew, r)) continue;
        int64_t over = eye->silent_ms - deadline_ms(w, pace, crew, r);
        if (over <= worst) continue;
        worst = over;
        out->rank = r;
        out->silent_ms = eye->silent_ms;
    }
    return out->rank >= 0;
}

// All wait for each other, and have done so for longer than is usual: who is furthest behind, if anybody is.
static bool find_deadlock(const struct watch *w, const struct crew *crew, const struct pace *pace,
                          struct watch_hang *out) {
    int64_t least_ms = INT64_MAX, first = INT64_MAX, last = 0;
    int behind = -1;
    for (int r = 0; r < w->options.world; r++) {
        const struct eye *eye = &w->eyes[r];
        if (!eye->have || !is_patient(w, crew, r)) return false;
        if (eye->silent_ms < least_ms) least_ms = eye->silent_ms;
        if (eye->page->coll_waiting > last) last = eye->page->coll_waiting;
        if (eye->page->coll_waiting >= first) continue;
        first = eye->page->coll_waiting;
        behind = r;
    }
    if (least_ms < learned_ms(w, pace, BLACKBOX_WAITING, w->options.hang_ms, COLD_MS)) return false;
    out->rank = first < last ? behind : -1;
    out->silent_ms = least_ms;
    return true;
}

static void describe_deadlock(const struct watch *w, struct watch_hang *h) {
    const struct blackbox_page *p = w->eyes[h->rank < 0 ? 0 : h->rank].page;
    char waiters[384];
    name_waiters(w, h->rank, waiters, sizeof waiters);
    if (h->rank < 0)
        snprintf(h->text, sizeof h->text,
                 "all ranks have waited in %s (collective %lld) for %.1f s: the network between them?",
                 p->coll_name, (long long)p->coll_waiting, 1e-3 * (double)h->silent_ms);
    else
        snprintf(h->text, sizeof h->text,
                 "%srank %d is behind: it has waited in %s (collective %lld) for %.1f s", waiters, h->rank,
                 p->coll_name, (long long)p->coll_waiting, 1e-3 * (double)h->silent_ms);
}

bool watch_discord(struct watch *w, struct watch_hang *out) {
    struct discord d;
    for (int r = 0; r < w->options.world; r++) w->pages[r] = watch_page(w, r);
    if (!discord_find(w->pages, w->options.world, &d)) return false;
    out->rank = d.rank;
    out->discord = true;
    out->silent_ms = 0;
    snprintf(out->text, sizeof out->text, "%s", d.text);
    return true;
}

// Seen twice in a row, so that nothing half written is believed.
static bool find_discord(struct watch *w, struct watch_hang *out) {
    int64_t now = clock_monotonic_ns();
    if (now - w->compared_ns < (int64_t)(DISCORD_MS + w->options.world) * 1000000) return false;
    w->compared_ns = now;
    bool found = watch_discord(w, out), twice = found && w->discord_seen;
    w->discord_seen = found;
    return twice;
}

bool watch_hang(struct watch *w, const struct crew *crew, struct watch_hang *out) {
    struct pace pace;
    *out = (struct watch_hang){.rank = -1};
    if (!w->options.hang_ms) return false;
    if (find_discord(w, out)) return true;
    *out = (struct watch_hang){.rank = -1};
    learn(w, &pace);
    if (find_missing(w, crew, &pace, out)) {
        describe_hang(w, crew, out);
        return true;
    }
    if (!find_deadlock(w, crew, &pace, out)) return false;
    describe_deadlock(w, out);
    return true;
}
