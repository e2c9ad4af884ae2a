// SPDX-License-Identifier: Apache-2.0
#include "storage/creds.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "storage/creds_source.h"

#define EARLY_S     300 // renewed so long before the end; sets that live shorter, after three quarters
#define PAUSE_S_MAX 60  // between failed renewals

struct creds {
    struct creds_env env;
    pthread_mutex_t lock; // guards what follows
    pthread_cond_t changed;
    struct creds_set *set;
    uint64_t generation;
    char trouble[160]; // why the last renewal failed; "": it did not
    bool renewable, running, wanted, ending;
    int64_t due_ns; // clock_monotonic_ns; 0: never
    pthread_t thread;
};

// ---- sets.

struct creds_set *creds_set_create(void) {
    struct creds_set *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED) return NULL;
    (void)madvise(s, sizeof *s, MADV_DONTDUMP);
    return s;
}

void creds_set_destroy(struct creds_set *s) {
    if (!s) return;
    explicit_bzero(s, sizeof *s);
    munmap(s, sizeof *s);
}

// In an HTTP header: no blanks, no control characters.
static bool keep(char *out, size_t n, const char *text) {
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++)
        if (text[i] <= ' ' || text[i] > '~') return false;
    if (length >= n) return false;
    memcpy(out, text, length + 1);
    return true;
}

int creds_set_fill(struct creds_set *s, const char *access, const char *secret, const char *token,
                   const char *source, struct err *e) {
    if (!access || !secret || !*access || !*secret)
        return err_set(e, ERR_DENIED, "%s has no access key and secret key", source);
    if (!keep(s->access_key, sizeof s->access_key, access) ||
        !keep(s->secret_key, sizeof s->secret_key, secret) ||
        !keep(s->session_token, sizeof s->session_token, token ? token : ""))
        return err_set(e, ERR_CONFIG,
                       "the S3 credentials from %s are too long, or hold a blank or a control character",
                       source);
    snprintf(s->source, sizeof s->source, "%s", source);
    return 0;
}

// ---- the chain.

static int from_environment(struct creds_set *out, struct err *e) {
    const char *access = getenv("AWS_ACCESS_KEY_ID"), *secret = getenv("AWS_SECRET_ACCESS_KEY");
    if (!access || !*access || !secret || !*secret) return 1;
    return creds_set_fill(out, access, secret, getenv("AWS_SESSION_TOKEN"), "the environment", e);
}

static int (*const places[])(const struct creds_env *, struct creds_set *, struct err *) = {
    creds_from_profile, creds_from_token_file, creds_from_container, creds_from_instance};

// 1: no place is configured; e then says what the last one lacks.
static int ask_places(const struct creds_env *env, struct creds_set *out, struct err *e) {
    int rc = 1;
    for (size_t i = 0; i < sizeof places / sizeof *places && rc == 1; i++) rc = places[i](env, out, e);
    return rc;
}

// ---- renewal.

static void plan_renewal(struct creds *c) {
    int64_t left = c->set->expires_s - clock_utc_ns() / 1000000000;
    int64_t wait = left > 4 * EARLY_S ? left - EARLY_S : left * 3 / 4;
    c->due_ns = c->set->expires_s ? clock_monotonic_ns() + (wait < 1 ? 1 : wait) * 1000000000 : 0;
}

static void take_set(struct creds *c, struct creds_set *fresh) {
    bool same = !strcmp(fresh->access_key, c->set->access_key) &&
                !strcmp(fresh->secret_key, c->set->secret_key) &&
                !strcmp(fresh->session_token, c->set->session_token);
    struct creds_set *old = c->set;
    c->set = fresh;
    c->generation += !same;
    c->trouble[0] = 0;
    plan_renewal(c);
    creds_set_destroy(old);
}

// Asks the places, without the lock. The old set stays in force until there is another.
static bool renew(struct creds *c) {
    struct err why = {0};
    pthread_mutex_unlock(&c->lock);
    struct creds_set *fresh = creds_set_create();
    int rc = fresh ? ask_places(&c->env, fresh, &why) : 1;
    pthread_mutex_lock(&c->lock);
    if (!rc) {
        take_set(c, fresh);
        return true;
    }
    creds_set_destroy(fresh);
    snprintf(c->trouble, sizeof c->trouble, "%.150s", why.text[0] ? why.text : "no credentials any more");
    return false;
}

static void sleep_until(struct creds *c, int64_t due_ns) {
    struct timespec at = {.tv_sec = due_ns / 1000000000, .tv_nsec = due_ns % 1000000000};
    if (due_ns)
        pthread_cond_timedwait(&c->changed, &c->lock, &at);
    else
        pthread_cond_wait(&c->changed, &c->lock);
}

static void *keep_fresh(void *arg) {
    struct creds *c = arg;
    int64_t pause_s = 1;
    pthread_mutex_lock(&c->lock);
    while (!c->ending) {
        if (!c->wanted && (!c->due_ns || clock_monotonic_ns() < c->due_ns)) {
            sleep_until(c, c->due_ns);
            continue;
        }
        c->wanted = false;
        if (renew(c)) {
            pause_s = 1;
            continue;
        }
        c->due_ns = clock_monotonic_ns() + pause_s * 1000000000;
        pause_s = 2 * pause_s < PAUSE_S_MAX ? 2 * pause_s : PAUSE_S_MAX;
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static bool ensure_thread(struct creds *c) {
    if (!c->running) c->running = !pthread_create(&c->thread, NULL, keep_fresh, c);
    return c->running;
}

bool creds_expired(struct creds *c, uint64_t generation) {
    pthread_mutex_lock(&c->lock);
    bool hope = c->generation != generation;
    if (!hope && c->renewable && ensure_thread(c)) {
        hope = c->wanted = true;
        pthread_cond_signal(&c->changed);
    }
    pthread_mutex_unlock(&c->lock);
    return hope;
}

// ---- use.

const struct creds_set *creds_borrow(struct creds *c) {
    pthread_mutex_lock(&c->lock);
    return c->set;
}

void creds_return(struct creds *c) {
    pthread_mutex_unlock(&c->lock);
}

uint64_t creds_generation(struct creds *c) {
    pthread_mutex_lock(&c->lock);
    uint64_t g = c->generation;
    pthread_mutex_unlock(&c->lock);
    return g;
}

void creds_describe(struct creds *c, char out[CREDS_SOURCE_BYTES]) {
    if (!c) {
        snprintf(out, CREDS_SOURCE_BYTES, "nowhere");
        return;
    }
    pthread_mutex_lock(&c->lock);
    const char *more = c->trouble[0] ? ", whose renewal failed: " : "";
    snprintf(out, CREDS_SOURCE_BYTES, "%.200s%s%s", c->set->source, more, c->trouble);
    pthread_mutex_unlock(&c->lock);
}

// ---- open and close.

static int take_environment(struct creds_env *env, struct err *e) {
    static const char *const names[] = {
#define CREDS_NAME(name, text) text,
        CREDS_VARIABLES(CREDS_NAME)
#undef CREDS_NAME
    };
    for (int i = 0; i < CREDS_N_VARIABLES; i++) {
        const char *v = getenv(names[i]);
        if (!v || !*v) continue;
        env->values[i] = strdup(v);
        if (!env->values[i]) return err_set(e, ERR_MEMORY, "no memory for credentials");
    }
    return 0;
}

static int load_first(struct creds *c, struct err *e) {
    struct err why = {0};
    c->set = creds_set_create();
    if (!c->set) return err_set(e, ERR_MEMORY, "no memory for credentials");
    int rc = from_environment(c->set, e);
    if (rc <= 0) return rc;
    c->renewable = true;
    rc = ask_places(&c->env, c->set, &why);
    if (!rc) return 0;
    return err_set(
        e, ERR_DENIED,
        "no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write a profile (%.600s)",
        why.text);
}

int creds_open(struct creds **out, struct err *e) {
    pthread_condattr_t monotonic;
    struct creds *c = calloc(1, sizeof *c);
    if (!c) return err_set(e, ERR_MEMORY, "no memory for credentials");
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int rc = take_environment(&c->env, e);
    if (!rc) rc = load_first(c, e);
    if (!rc) plan_renewal(c);
    if (!rc && c->due_ns && !ensure_thread(c)) rc = err_set(e, ERR_MEMORY, "no thread can be started");
    if (rc)
        creds_close(c);
    else
        *out = c;
    return rc;
}

void creds_close(struct creds *c) {
    if (!c) return;
    pthread_mutex_lock(&c->lock);
    c->ending = true;
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
    if (c->running) pthread_join(c->thread, NULL);
    creds_set_destroy(c->set);
    for (int i = 0; i < CREDS_N_VARIABLES; i++) {
        if (c->env.values[i]) explicit_bzero(c->env.values[i], strlen(c->env.values[i]));
        free(c->env.values[i]);
    }
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
