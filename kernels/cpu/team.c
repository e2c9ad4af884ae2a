// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/team.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/machine.h"

enum { TEAM_SPINS = 2000, TEAM_MAX = 1024 };

#define TEAM_PIECE ((int64_t)1 << 30) // tasks of one job

// `state` is the job's number in the high half and its unclaimed tasks in the low half: whoever takes one of
// them has the right to read the job until he has counted it in `done`.
struct team {
    _Atomic uint64_t state;
    _Atomic uint32_t done;
    team_task_fn *fn;
    void *arg;
    int64_t first;
    uint32_t tasks;
    _Atomic bool stop;
    pthread_mutex_t lock; // guards sleepers
    pthread_cond_t wake;
    int sleepers;
    int members; // beside the caller
    pthread_t thread[];
};

static void spin_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// Does tasks of the job at hand until none is left.
static void work(struct team *t) {
    uint64_t s = atomic_load_explicit(&t->state, memory_order_acquire);
    while ((uint32_t)s > 0) {
        if (!atomic_compare_exchange_weak_explicit(&t->state, &s, s - 1, memory_order_acq_rel,
                                                   memory_order_acquire)) {
            continue;
        }
        t->fn(t->arg, t->first + t->tasks - (uint32_t)s);
        atomic_fetch_add_explicit(&t->done, 1, memory_order_release);
        s = atomic_load_explicit(&t->state, memory_order_acquire);
    }
}

static bool has_news(struct team *t) {
    return (uint32_t)atomic_load_explicit(&t->state, memory_order_acquire) > 0 || atomic_load(&t->stop);
}

static void wait_for_news(struct team *t) {
    for (int i = 0; i < TEAM_SPINS; i++) {
        if (has_news(t)) return;
        spin_pause();
    }
    pthread_mutex_lock(&t->lock);
    t->sleepers++;
    while (!has_news(t)) pthread_cond_wait(&t->wake, &t->lock);
    t->sleepers--;
    pthread_mutex_unlock(&t->lock);
}

static void *member_main(void *arg) {
    struct team *t = arg;
    while (!atomic_load(&t->stop)) {
        work(t);
        wait_for_news(t);
    }
    return NULL;
}

static void wake_sleepers(struct team *t) {
    pthread_mutex_lock(&t->lock);
    if (t->sleepers > 0) pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
}

int team_create(struct team **out, int threads, struct err *e) {
    *out = NULL;
    if (threads <= 1) return 0;
    if (threads > TEAM_MAX) return err_set(e, ERR_USAGE, "cpu: %d threads, at most %d", threads, TEAM_MAX);
    struct team *t = calloc(1, sizeof *t + (size_t)(threads - 1) * sizeof *t->thread);
    if (t == NULL) return err_set(e, ERR_MEMORY, "cpu: no memory for a team of %d", threads);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->wake, NULL);
    while (t->members < threads - 1) {
        int rc = pthread_create(&t->thread[t->members], NULL, member_main, t);
        if (rc != 0) {
            rc = err_errno(e, rc, "cpu: thread %d of %d", t->members + 1, threads);
            team_destroy(t);
            return rc;
        }
        t->members++;
    }
    *out = t;
    return 0;
}

void team_destroy(struct team *t) {
    if (t == NULL) return;
    atomic_store(&t->stop, true);
    wake_sleepers(t);
    for (int i = 0; i < t->members; i++) pthread_join(t->thread[i], NULL);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static void run_piece(struct team *t, int64_t first, int64_t tasks, team_task_fn *fn, void *arg) {
    t->fn = fn;
    t->arg = arg;
    t->first = first;
    t->tasks = (uint32_t)tasks;
    atomic_store_explicit(&t->done, 0, memory_order_relaxed);
    uint64_t job = (atomic_load_explicit(&t->state, memory_order_relaxed) >> 32) + 1;
    atomic_store_explicit(&t->state, job << 32 | (uint64_t)tasks, memory_order_release);
    wake_sleepers(t);
    work(t);
    for (int i = 0; atomic_load_explicit(&t->done, memory_order_acquire) < t->tasks; i++) {
        if (i < TEAM_SPINS) {
            spin_pause();
        } else {
            sched_yield();
        }
    }
}

void team_run(struct team *t, int64_t tasks, team_task_fn *fn, void *arg) {
    if (t == NULL || tasks == 1) {
        for (int64_t i = 0; i < tasks; i++) fn(arg, i);
        return;
    }
    for (int64_t first = 0; first < tasks; first += TEAM_PIECE) {
        run_piece(t, first, tasks - first < TEAM_PIECE ? tasks - first : TEAM_PIECE, fn, arg);
    }
}

int team_default_threads(void) {
    const char *text = getenv("OMP_NUM_THREADS");
    char *end = NULL;
    long asked = text != NULL ? strtol(text, &end, 10) : 0;
    if (asked > 0 && asked <= TEAM_MAX) return (int)asked;
    int cores = machine_cores();
    return cores < TEAM_MAX ? cores : TEAM_MAX;
}
