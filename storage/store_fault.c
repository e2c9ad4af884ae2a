// SPDX-License-Identifier: Apache-2.0
// "fault:SPEC:URL": any store behind a bad network, for tests. SPEC is a list such as
// "503=5%,delay=20ms@10%,seed=7"; faults are drawn with Philox from (seed, kind, number of the call,
// attempt), so one thread sees the same faults in every run. Transient faults are retried here with the same
// backoff as a real store's, until the deadline; flip and short change what a GET returns, for the caller's
// checksums to find.
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "storage/store_backend.h"

// X(id, name in SPEC, default milliseconds, meaning)
#define FAULTS(X)                                                                                            \
    X(BUSY, "503", 0, "the service is busy; nothing was done")                                               \
    X(DELAY, "delay", 20, "an answer that takes longer")                                                     \
    X(FLIP, "flip", 0, "one bit of what a GET returns is wrong")                                             \
    X(SHORT, "short", 0, "a GET of the right length whose end never came")                                   \
    X(RESET, "reset", 0, "the connection breaks in the middle of the body")                                  \
    X(STALL, "stall", 1000, "nothing comes until the request is cut off")                                    \
    X(LOST, "lost", 0, "the request was carried out, its reply was lost")                                    \
    X(ENOSPC, "enospc", 0, "a PUT finds no space; not transient")                                            \
    X(NODELETE, "nodelete", 0, "a DELETE is not allowed; not transient")

enum fault_kind {
#define FAULT_ENUM(id, name, ms, meaning) FAULT_##id,
    FAULTS(FAULT_ENUM)
#undef FAULT_ENUM
        FAULT_KINDS
};

struct fault_row {
    const char *name;
    int64_t default_ms;
};
static const struct fault_row fault_rows[FAULT_KINDS] = {
#define FAULT_ROW(id, name, ms, meaning) {name, ms},
    FAULTS(FAULT_ROW)
#undef FAULT_ROW
};

struct fault_store {
    struct store store;
    struct store *inner;
    uint64_t seed;
    _Atomic uint64_t calls;
    double rate[FAULT_KINDS]; // 0..1
    int64_t ms[FAULT_KINDS];
};

// ---- the specification.

static int bad_spec(const char *item, struct err *e) {
    return err_set(
        e, ERR_CONFIG,
        "fault: '%s': write KIND=RATE%% or KIND=TIMEms@RATE%% (503, delay, flip, short, reset, stall, lost, "
        "enospc, nodelete), or seed=NUMBER",
        item);
}

static int parse_rate(struct fault_store *f, int kind, const char *item, char *value, struct err *e) {
    double rate, ms = (double)fault_rows[kind].default_ms;
    char *at = strchr(value, '@');
    char *percent = at ? at + 1 : value;
    size_t n = strlen(percent);
    if (!n || percent[n - 1] != '%') return bad_spec(item, e);
    percent[n - 1] = 0;
    if (at) {
        if (at - value < 3 || strncmp(at - 2, "ms", 2)) return bad_spec(item, e);
        at[-2] = 0;
        if (!bytes_parse_f64(value, &ms) || !(ms >= 0 && ms <= 3600e3)) return bad_spec(item, e);
    }
    if (!bytes_parse_f64(percent, &rate) || !(rate >= 0 && rate <= 100)) return bad_spec(item, e);
    f->rate[kind] = rate / 100;
    f->ms[kind] = (int64_t)ms;
    return 0;
}

static int parse_item(struct fault_store *f, const char *item, size_t n, struct err *e) {
    char text[64];
    if (n >= sizeof text) return bad_spec(item, e);
    memcpy(text, item, n);
    text[n] = 0;
    char whole[64];
    memcpy(whole, text, sizeof whole);
    char *value = strchr(text, '=');
    if (!value) return bad_spec(whole, e);
    *value++ = 0;
    if (!strcmp(text, "seed")) {
        int64_t seed;
        if (!bytes_parse_i64(value, &seed)) return bad_spec(whole, e);
        f->seed = (uint64_t)seed;
        return 0;
    }
    for (int kind = 0; kind < FAULT_KINDS; kind++)
        if (!strcmp(text, fault_rows[kind].name)) return parse_rate(f, kind, whole, value, e);
    return bad_spec(whole, e);
}

static int parse_spec(struct fault_store *f, const char *spec, size_t n, struct err *e) {
    int rc = 0;
    for (size_t at = 0; at < n && !rc;) {
        const char *comma = memchr(spec + at, ',', n - at);
        size_t length = comma ? (size_t)(comma - spec) - at : n - at;
        rc = parse_item(f, spec + at, length, e);
        at += length + 1;
    }
    return rc;
}

// ---- drawing. One attempt of one call; the same draw may be asked for twice.

struct attempt {
    struct fault_store *f;
    uint64_t call;
    int number;
};

static bool strikes(const struct attempt *a, enum fault_kind kind, uint32_t words[4]) {
    if (!(a->f->rate[kind] > 0)) return false;
    rng_block(rng_key(a->f->seed, RNG_FAULT, (uint32_t)kind), (uint32_t)a->number, a->call, 0, words);
    return (double)rng_unit(words[0]) < a->f->rate[kind];
}

static int before(const struct attempt *a, bool writes, struct err *e) {
    uint32_t w[4];
    if (strikes(a, FAULT_DELAY, w)) clock_sleep_ms(a->f->ms[FAULT_DELAY]);
    if (strikes(a, FAULT_BUSY, w)) return err_set(e, ERR_UNAVAILABLE, "fault: 503 SlowDown");
    if (strikes(a, FAULT_STALL, w)) {
        clock_sleep_ms(a->f->ms[FAULT_STALL]);
        return err_set(e, ERR_TIMEOUT, "fault: stalled");
    }
    if (writes && strikes(a, FAULT_ENOSPC, w)) return err_set(e, ERR_IO, "fault: No space left on device");
    return 0;
}

static void spoil(const struct attempt *a, const struct store_call *c, const struct store_result *out) {
    uint32_t w[4];
    char *body = c->into;
    if (c->op != STORE_GET || !out->bytes) return;
    if (strikes(a, FAULT_FLIP, w)) {
        size_t bit = (size_t)((((uint64_t)w[1] << 32) | w[2]) % (8 * (uint64_t)out->bytes));
        body[bit / 8] = (char)(body[bit / 8] ^ (1 << (bit % 8)));
    }
    if (strikes(a, FAULT_SHORT, w)) {
        size_t kept = (size_t)(w[1] % (uint64_t)out->bytes);
        memset(body + kept, 0, out->bytes - kept);
    }
}

static int perform_once(const struct attempt *a, const struct store_call *c, struct store_result *out,
                        bool *maybe_done, struct err *e) {
    uint32_t w[4];
    bool writes = c->op == STORE_PUT;
    int rc = before(a, writes, e);
    if (rc) return rc;
    if (c->op == STORE_DELETE && strikes(a, FAULT_NODELETE, w))
        return err_set(e, ERR_DENIED, "fault: deleting is not allowed");
    bool reset = strikes(a, FAULT_RESET, w);
    if (reset && c->op != STORE_GET) return err_set(e, ERR_PEER, "fault: connection reset");
    rc = store_call_blocking(a->f->inner, c, out, e);
    if (rc) return rc;
    if (reset) memset((char *)c->into + out->bytes / 2, 0xa5, out->bytes - out->bytes / 2);
    if (reset) return err_set(e, ERR_PEER, "fault: connection reset in the body");
    if (strikes(a, FAULT_LOST, w)) {
        *maybe_done = true;
        return err_set(e, ERR_PEER, "fault: the reply was lost");
    }
    spoil(a, c, out);
    return 0;
}

// ---- operations, each retried while its failure is transient.

struct retry {
    struct fault_store *f;
    struct attempt attempt;
    int64_t deadline_ns;
};

static struct retry retry_begin(struct fault_store *f) {
    struct retry r = {.f = f, .deadline_ns = clock_monotonic_ns() + f->store.deadline_ms * 1000000};
    r.attempt = (struct attempt){.f = f, .call = atomic_fetch_add(&f->calls, 1)};
    return r;
}

// After a failure: true when it is to be tried again (e is cleared), after the backoff.
static bool retry_again(struct retry *r, int rc, struct err *e) {
    if (!store_transient(rc)) return false;
    int64_t at = store_retry_ns(r->f->store.jitter, r->attempt.call, r->attempt.number++, 0, r->deadline_ns);
    if (!at) {
        err_prefix(e, "given up after %d attempts in %lld ms", r->attempt.number,
                   (long long)r->f->store.deadline_ms);
        return false;
    }
    clock_sleep_ms((at - clock_monotonic_ns()) / 1000000);
    err_clear(e);
    return true;
}

static int fault_perform(struct store *s, const struct store_call *c, struct store_result *out,
                         struct err *e) {
    struct fault_store *f = (struct fault_store *)s;
    struct retry r = retry_begin(f);
    struct err local = {0};
    bool maybe_done = false;
    int rc;
    do rc = perform_once(&r.attempt, c, out, &maybe_done, &local);
    while (rc && retry_again(&r, rc, &local));
    if (rc == -ERR_CONFLICT && maybe_done && store_holds(f->inner, c->key, c->data, c->bytes)) return 0;
    if (rc && e && !e->code) *e = local;
    if (rc) err_prefix(e, "'%s'", c->key);
    return rc;
}

static int fault_sweep(struct store *s, bool (*mine)(void *arg, const char *key), void *arg, size_t *removed,
                       struct err *e) {
    struct store *inner = ((struct fault_store *)s)->inner;
    return inner->ops->sweep ? inner->ops->sweep(inner, mine, arg, removed, e) : 0;
}

// Faults strike before the listing: pages that were handed over cannot be taken back.
static int fault_list(struct store *s, const char *prefix, const char *delimiter, store_page_fn *page,
                      void *arg, struct err *e) {
    struct fault_store *f = (struct fault_store *)s;
    struct retry r = retry_begin(f);
    struct err local = {0};
    int rc;
    do rc = before(&r.attempt, false, &local);
    while (rc && retry_again(&r, rc, &local));
    if (rc && e && !e->code) *e = local;
    return rc ? rc : f->inner->ops->list(f->inner, prefix, delimiter, page, arg, e);
}

// ---- the writer: delay and ENOSPC strike at each write; the rest is left to the store inside.

struct fault_writer {
    struct store_writer writer;
    struct fault_store *f;
    struct store_writer *inner;
};

static int fault_write(struct store_writer *w, const void *data, size_t bytes, struct err *e) {
    uint32_t words[4];
    struct fault_writer *fw = (struct fault_writer *)w;
    struct attempt a = {.f = fw->f, .call = atomic_fetch_add(&fw->f->calls, 1)};
    if (strikes(&a, FAULT_DELAY, words)) clock_sleep_ms(fw->f->ms[FAULT_DELAY]);
    if (strikes(&a, FAULT_ENOSPC, words)) return err_set(e, ERR_IO, "fault: No space left on device");
    return store_writer_write(fw->inner, data, bytes, e);
}

static int fault_commit(struct store_writer *w, struct err *e) {
    struct fault_writer *fw = (struct fault_writer *)w;
    struct store_writer *inner = fw->inner;
    fw->inner = NULL;
    return store_writer_commit(inner, e);
}

static void fault_abort(struct store_writer *w) {
    struct fault_writer *fw = (struct fault_writer *)w;
    store_writer_abort(fw->inner);
    fw->inner = NULL;
}

static void fault_destroy(struct store_writer *w) {
    free(w);
}

static const struct store_writer_ops fault_writer_ops = {
    .write = fault_write,
    .commit = fault_commit,
    .abort = fault_abort,
    .destroy = fault_destroy,
};

static int fault_writer_open(struct store *s, struct store_writer **out, const char *key, struct err *e) {
    struct fault_writer *w = calloc(1, sizeof *w);
    if (!w) return err_set(e, ERR_MEMORY, "no memory for a writer of '%s'", key);
    w->writer.ops = &fault_writer_ops;
    w->f = (struct fault_store *)s;
    int rc = store_writer_open(w->f->inner, &w->inner, key, e);
    if (rc)
        free(w);
    else
        *out = &w->writer;
    return rc;
}

// ---- open and close.

static void fault_close(struct store *s) {
    store_fini(s); // its threads use the inner store
    store_close(((struct fault_store *)s)->inner);
    free(s);
}

static const struct store_ops fault_ops = {
    .close = fault_close,
    .perform = fault_perform,
    .list = fault_list,
    .sweep = fault_sweep,
    .writer_open = fault_writer_open,
};

int store_fault_open(struct store **out, const char *rest, const struct store_options *options,
                     struct err *e) {
    const char *colon = strchr(rest, ':');
    if (!colon) return err_set(e, ERR_CONFIG, "'fault:%s': write fault:SPEC:URL", rest);
    struct fault_store *f = calloc(1, sizeof *f);
    if (!f) return err_set(e, ERR_MEMORY, "no memory to open a fault: store");
    f->seed = options->seed;
    int rc = store_init(&f->store, &fault_ops, colon + 1, options, e);
    if (!rc) rc = parse_spec(f, rest, (size_t)(colon - rest), e);
    if (!rc) rc = store_open(&f->inner, colon + 1, options, e);
    if (rc)
        fault_close(&f->store);
    else
        *out = &f->store;
    return rc;
}
