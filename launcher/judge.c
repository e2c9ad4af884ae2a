// SPDX-License-Identifier: Apache-2.0
#include "launcher/judge.h"

#include <sys/wait.h>

#include "base/clock.h"

#define SETTLE_MS   120  // patience for a truer cause when the first failure may be a victim
#define WORDLESS_MS 1000 // ... for a rank that ended without a word, or a guard: mpirun's end tells more
#define STOP_MS     5000 // for the others, when a rank died of the wish to stop

static struct verdict_start start_of(const struct supervisor *s) {
    return (struct verdict_start){.starter = s->o->job->mpi ? "mpirun" : "the rank's guard",
                                  .world = s->world,
                                  .attempt = s->number,
                                  .again = s->assembled,
                                  .log_path = s->launch_log};
}

static bool crew_is_late(const struct supervisor *s) {
    return crew_count(s->crew, CREW_ABSENT) > 0 &&
           clock_monotonic_ns() - s->began_ns > s->o->job->config->launch_start_s * 1000000000;
}

// The ranks of one machine, if rank `r` is on it and all its guards are lost, or silent. How many, from
// *first.
static int lost_together(const struct supervisor *s, int r, int *first) {
    const struct job *j = s->o->job;
    const struct hosts *seated = &s->roster.seated;
    int host = job_is_far(j) ? hosts_of_rank(seated, r) : -1, n = 0;
    if (host < 0) return 0;
    *first = hosts_first_rank(seated, host);
    for (int k = *first; k < s->world && hosts_of_rank(seated, k) == host; k++, n++) {
        const struct crew_rank *rank = crew_rank(s->crew, k);
        bool silent = s->silent_ms[k] >= 1000 * j->config->launch_lost_s;
        if (rank->state != CREW_LOST && !silent) return 0;
    }
    return n;
}

static enum outcome judge_host(struct supervisor *s, struct verdict *v) {
    for (int r = 0; r < s->world; r++) {
        int first, n = lost_together(s, r, &first);
        if (!n) continue;
        int64_t silent_ms = crew_rank(s->crew, first)->state == CREW_LOST ? 0 : s->silent_ms[first];
        verdict_of_host(v, first, n, silent_ms, s->crew, s->watch, s->number, s->log_path);
        return OUTCOME_FAILED;
    }
    return OUTCOME_NONE;
}

// A rank that left the order of collectives makes others fail: MPI sees sizes that do not fit.
static bool judge_discord(struct supervisor *s, struct verdict *v) {
    struct watch_hang hang;
    if (verdict_is_external(s->crew) || !watch_discord(s->watch, &hang)) return false;
    verdict_of_hang(v, &hang, s->crew, s->watch, s->number, s->log_path);
    return true;
}

static enum outcome judge_crash(struct supervisor *s, struct verdict *v) {
    int64_t now = clock_monotonic_ns();
    if (!s->doubt_since_ns) s->doubt_since_ns = now;
    int64_t patience_ms = verdict_is_doubtful(s->crew) ? SETTLE_MS : JUDGE_GLANCE_MS;
    watch_poll(s->watch);
    bool premature = verdict_is_premature(s->crew);
    if (premature || verdict_is_wordless(s->crew, s->watch)) patience_ms = WORDLESS_MS;
    if (now - s->doubt_since_ns < patience_ms * 1000000 && !s->launcher_ended) return OUTCOME_NONE;
    watch_poll(s->watch);
    // Without mpirun the rank's guard stands in its place, and that it vanished says it all.
    bool killed = s->o->job->mpi && WIFSIGNALED(s->launcher_status);
    const struct verdict_start start = start_of(s);
    if (s->launcher_ended && (premature || killed))
        verdict_of_launch(v, &start, s->launcher_status);
    else if (judge_host(s, v) == OUTCOME_NONE && !judge_discord(s, v))
        verdict_of_crash(v, s->crew, s->watch, s->number, s->log_path);
    return OUTCOME_FAILED;
}

// Ranks that had not learned to listen die of the wish to stop; the others get time to end.
static enum outcome judge_stop(struct supervisor *s, struct verdict *v) {
    int64_t now = clock_monotonic_ns();
    if (!verdict_is_doubtful(s->crew)) return judge_crash(s, v);
    if (!s->doubt_since_ns) s->doubt_since_ns = now;
    return now - s->doubt_since_ns < (int64_t)STOP_MS * 1000000 ? OUTCOME_NONE : OUTCOME_STOPPED;
}

static enum outcome judge_end(const struct supervisor *s) {
    for (int r = 0; r < crew_world(s->crew); r++)
        if (crew_rank(s->crew, r)->code == err_exit_code(ERR_SAVED)) return OUTCOME_SAVED;
    return OUTCOME_DONE;
}

enum outcome judge_attempt(struct supervisor *s, struct verdict *v) {
    struct watch_hang hang;
    int world = crew_world(s->crew);
    if (s->wish == STOP_NOW) return OUTCOME_STOPPED;
    if (crew_count(s->crew, CREW_ENDED) == world && !verdict_needed(s->crew)) return judge_end(s);
    // Asked to stop before they could listen: there was nothing to save.
    if (s->wish == STOP_SAVE && crew_count(s->crew, CREW_ENDED) == world) return OUTCOME_STOPPED;
    if (verdict_needed(s->crew)) return s->wish == STOP_SAVE ? judge_stop(s, v) : judge_crash(s, v);
    const struct verdict_start start = start_of(s);
    if (s->launcher_ended) {
        verdict_of_launch(v, &start, s->launcher_status);
        return OUTCOME_FAILED;
    }
    if (crew_is_late(s)) {
        verdict_of_late(v, &start, s->crew, s->o->job->config->launch_start_s);
        return OUTCOME_FAILED;
    }
    if (judge_host(s, v) != OUTCOME_NONE) return OUTCOME_FAILED;
    if (!watch_hang(s->watch, s->crew, &hang)) return OUTCOME_NONE;
    verdict_of_hang(v, &hang, s->crew, s->watch, s->number, s->log_path);
    return OUTCOME_FAILED;
}
