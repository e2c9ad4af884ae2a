// SPDX-License-Identifier: Apache-2.0
#include "launcher/skew.h"

#include <stdlib.h>
#include <string.h>

#include "comm/grid.h"

#define WINDOW_NS     INT64_C(5000000000)
#define WINDOW_STEPS  5
#define LEAST_LATE_MS 1.0
#define FAR_TIMES     5
#define FAR_MS        10.0

int skew_init(struct skew *s, int world, int64_t shards, double share, struct err *e) {
    memset(s, 0, sizeof *s);
    s->share = share;
    s->shards = shards;
    s->world = world;
    s->last = s->told = s->told_host = -1;
    s->step = -1;
    s->waited_ns = calloc((size_t)world, sizeof *s->waited_ns);
    s->waits_ms = calloc((size_t)world + 1, sizeof *s->waits_ms);
    return s->waited_ns && s->waits_ms ? 0
                                       : err_set(e, ERR_MEMORY, "no memory for the waits of %d ranks", world);
}

void skew_fini(struct skew *s) {
    free(s->waited_ns);
    free(s->waits_ms);
    s->waited_ns = NULL;
    s->waits_ms = NULL;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Of all but one; 0 when there are no others.
static double median_of_others(const double *values, int n, int except) {
    double *sorted = calloc((size_t)n + 1, sizeof *sorted), median = 0;
    int k = 0;
    for (int i = 0; sorted && i < n; i++)
        if (i != except) sorted[k++] = values[i];
    if (k) qsort(sorted, (size_t)k, sizeof *sorted, ascending);
    if (k) median = k % 2 ? sorted[k / 2] : (sorted[k / 2 - 1] + sorted[k / 2]) / 2;
    free(sorted);
    return median;
}

static void begin_window(struct skew *s, const struct watch *w, int64_t now_ns, int64_t step) {
    s->since_ns = now_ns;
    s->step = step;
    for (int r = 0; r < s->world; r++) {
        const struct blackbox_page *p = watch_page(w, r);
        s->waited_ns[r] = p ? p->coll_wait_ns : 0;
    }
}

static bool all_train(const struct skew *s, const struct watch *w) {
    for (int r = 0; r < s->world; r++) {
        const struct blackbox_page *p = watch_page(w, r);
        if (!p || p->phase == PHASE_INIT || p->phase >= PHASE_CHECKPOINT) return false;
    }
    return true;
}

// A rank with fewer shards of the batch than another waits for it, however fast both are.
static double dealt_wait_ms(const struct skew *s, int rank, double step_ms) {
    int64_t lo, hi, most = (s->shards + s->world - 1) / s->world;
    if (most == 0) return 0;
    grid_split(s->shards, s->world, rank, &lo, &hi);
    return step_ms * (double)(most - (hi - lo)) / (double)most;
}

// The rank that waited least, and for how long per step the others waited more than it.
static int latest(struct skew *s, const struct watch *w, int64_t steps, double step_ms, double *late_ms) {
    int least = 0;
    for (int r = 0; r < s->world; r++) {
        int64_t waited_ns = watch_page(w, r)->coll_wait_ns - s->waited_ns[r];
        s->waits_ms[r] = 1e-6 * (double)waited_ns / (double)steps - dealt_wait_ms(s, r, step_ms);
        if (s->waits_ms[r] < s->waits_ms[least]) least = r;
    }
    *late_ms = median_of_others(s->waits_ms, s->world, least) - s->waits_ms[least];
    return least;
}

bool skew_rank(struct skew *s, const struct watch *w, int64_t now_ns, struct skew_verdict *out) {
    if (s->world < 2 || !(s->share > 0)) return false;
    if (!all_train(s, w)) {
        s->step = -1; // saving and evaluating are no steps
        return false;
    }
    int64_t step = watch_page(w, 0)->step, steps = step - s->step;
    if (s->step < 0) begin_window(s, w, now_ns, step);
    if (now_ns - s->since_ns < WINDOW_NS || steps < WINDOW_STEPS) return false;
    double late_ms, step_ms = 1e-6 * (double)(now_ns - s->since_ns) / (double)steps;
    int rank = latest(s, w, steps, step_ms, &late_ms);
    bool late = late_ms > LEAST_LATE_MS && late_ms > s->share * step_ms;
    bool twice = late && rank == s->last, named = s->told == rank;
    s->last = late ? rank : -1;
    if (!late) s->told = -1;
    begin_window(s, w, now_ns, step);
    if (!twice || named) return false;
    s->told = rank;
    *out = (struct skew_verdict){.rank = rank, .host = -1, .late_ms = late_ms, .step_ms = step_ms};
    return true;
}

bool skew_host(struct skew *s, const struct crew *crew, const struct hosts *hosts, struct skew_verdict *out) {
    double *ways_ms = calloc((size_t)hosts->n + 1, sizeof *ways_ms);
    int n = 0, farthest = 0, first_rank = 0;
    for (int r = 0, before = -1; ways_ms && r < crew_world(crew); r++) {
        int host = hosts_of_rank(hosts, r);
        double ms = 1e-6 * (double)crew_rank(crew, r)->rtt_ns;
        if (host < 0 || !(ms > 0)) break;
        if (host != before) ways_ms[n++] = ms;
        if (ms < ways_ms[n - 1]) ways_ms[n - 1] = ms;
        if (ways_ms[n - 1] > ways_ms[farthest] || (host != before && n == 1)) {
            farthest = n - 1;
            first_rank = hosts_first_rank(hosts, host);
        }
        before = host;
    }
    double others = n > 1 ? median_of_others(ways_ms, n, farthest) : 0, ms = n > 1 ? ways_ms[farthest] : 0;
    int host = n > 1 ? hosts_of_rank(hosts, first_rank) : -1;
    bool far = n > 1 && ms > FAR_MS && ms > FAR_TIMES * others;
    bool news = far && s->told_host != host;
    if (n > 1) s->told_host = far ? host : -1;
    *out = (struct skew_verdict){.rank = first_rank, .host = host, .late_ms = ms, .others_ms = others};
    free(ways_ms);
    return news;
}
