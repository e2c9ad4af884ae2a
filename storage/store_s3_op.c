// SPDX-License-Identifier: Apache-2.0
// One operation: sign, send, look at the reply, try again after a backoff until it works, cannot work, or the
// deadline is near. Runs on the HTTP client's thread but for the first attempt.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "storage/hash.h"
#include "storage/store_s3.h"

#define WIRE_MAX     ((size_t)64 << 10)
#define EXPIRED_MAX  8
#define HASH_BLOCK   ((size_t)256 << 10)
#define NONSENSE_MAX 3 // replies that break the protocol; a broken proxy does not get better

static int64_t deadline_of(const struct s3_op *op) {
    int64_t ms = op->deadline_ms ? op->deadline_ms : op->s->store.deadline_ms;
    return op->moved_ns + ms * 1000000;
}

// One attempt may take half of the time, so that another is left when it stands still.
static int64_t attempt_deadline_of(const struct s3_op *op) {
    int64_t now = clock_monotonic_ns(), end = deadline_of(op), half = (end - op->moved_ns) / 2;
    return now + half > end ? end : now + half;
}

// The second exchange of a slow GET.
struct s3_hedge {
    struct http_exchange x;
    struct buf text;
};

// ---- building an attempt.

static int add_header(struct http_exchange *x, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static int add_header(struct http_exchange *x, struct err *e, const char *fmt, ...) {
    char *line = NULL;
    va_list ap;
    if (x->n_headers == HTTP_HEADERS_MAX) return err_set(e, ERR_BUG, "too many headers");
    va_start(ap, fmt);
    int n = vasprintf(&line, fmt, ap);
    va_end(ap);
    if (n < 0) return err_set(e, ERR_MEMORY, "no memory for a header");
    x->headers[x->n_headers++] = line;
    return 0;
}

static void drop_attempt(struct http_exchange *x) {
    for (size_t i = 0; i < x->n_headers; i++) {
        char *line = (char *)x->headers[i]; // may hold a session token
        explicit_bzero(line, strlen(line));
        free(line);
    }
    free((char *)x->url);
    x->n_headers = 0;
    x->url = NULL;
}

static int path_of(const struct s3_op *op, char **out, struct err *e) {
    const struct s3_store *s = op->s;
    const char *bucket = s->path_style ? s->bucket : "", *slash = s->path_style ? "/" : "";
    if (asprintf(out, "/%s%s%s%s", bucket, slash, op->key ? s->prefix : "", op->key ? op->key : "") >= 0)
        return 0;
    *out = NULL;
    return err_set(e, ERR_MEMORY, "no memory for a request");
}

static int add_headers(struct s3_op *op, struct http_exchange *x, const struct sigv4_request *r,
                       struct err *e) {
    struct creds *creds = op->s->creds;
    const struct sigv4_dialect *d = r->dialect ? r->dialect : &sigv4_aws;
    char date[SIGV4_DATE_BYTES];
    struct buf authorization;
    buf_init(&authorization, WIRE_MAX);
    sigv4_date(r->utc_seconds, date);
    op->generation = creds_generation(creds);
    const struct creds_set *a = creds_borrow(creds);
    const struct sigv4_credentials c = {a->access_key, a->secret_key, a->session_token};
    int rc = sigv4_authorize(r, &c, &authorization, e);
    if (!rc && *a->session_token) rc = add_header(x, e, "%s: %s", d->security_token, a->session_token);
    creds_return(creds);
    if (!rc) rc = add_header(x, e, "authorization: %s", authorization.data);
    if (!rc) rc = add_header(x, e, "host: %s", r->host);
    if (!rc) rc = add_header(x, e, "%s: %s", d->date, date);
    if (!rc) rc = add_header(x, e, "%s: %s", d->content_sha256, r->payload_sha256);
    for (size_t i = 0; i < r->n_headers && !rc; i++)
        rc = add_header(x, e, "%s: %s", r->headers[i].name, r->headers[i].value);
    buf_fini(&authorization);
    return rc;
}

static int set_url(const struct s3_op *op, struct http_exchange *x, const struct sigv4_request *r,
                   struct err *e) {
    struct buf url;
    buf_init(&url, WIRE_MAX);
    int rc = buf_appends(&url, op->s->base, e);
    if (!rc) rc = sigv4_target(r, &url, e);
    if (!rc) x->url = buf_take(&url);
    buf_fini(&url);
    return rc;
}

static int build_attempt(struct s3_op *op, struct http_exchange *x, struct err *e) {
    struct s3_store *s = op->s;
    char *path;
    drop_attempt(x);
    int rc = path_of(op, &path, e);
    if (rc) return rc;
    struct sigv4_request r = {.method = op->method,
                              .host = s->host,
                              .path = path,
                              .query = op->query,
                              .n_query = op->n_query,
                              .headers = op->headers,
                              .n_headers = op->n_headers,
                              .payload_sha256 = op->payload_sha256,
                              .region = s->region,
                              .service = s->vendor->service ? s->vendor->service : "s3",
                              .dialect = s->vendor->dialect};
    r.utc_seconds = clock_utc_ns() / 1000000000 + atomic_load(&s->clock_offset_s);
    rc = set_url(op, x, &r, e);
    if (!rc) rc = add_headers(op, x, &r, e);
    free(path);
    return rc;
}

// ---- hedges.

static bool prepare_hedge(struct http_exchange *x) {
    struct s3_op *op = x->owner;
    struct err ignored = {0};
    x->deadline_ns = op->x.deadline_ns;
    x->capacity = op->x.capacity;
    return !build_attempt(op, x, &ignored);
}

static bool hedge_wanted(struct http_exchange *x) {
    return store_s3_pace_hedge(&((struct s3_op *)x->owner)->s->pace);
}

// Without memory for one there is none.
static void make_hedge(struct s3_op *op) {
    struct s3_hedge *g = calloc(1, sizeof *g);
    if (!g) return;
    buf_init(&g->text, op->text.max);
    g->x = op->x;
    g->x.text = &g->text;
    g->x.prepare = prepare_hedge;
    g->x.wanted = hedge_wanted;
    op->hedge = g;
    op->x.hedge = &g->x;
}

static void drop_hedge(struct s3_op *op) {
    if (!op->hedge) return;
    drop_attempt(&op->hedge->x);
    buf_fini(&op->hedge->text);
    free(op->hedge);
    op->hedge = NULL;
    op->x.hedge = NULL;
}

// The hedge ended first: its reply is the operation's.
static void adopt(struct s3_op *op, const struct http_exchange *from) {
    struct http_exchange *to = &op->x;
    struct buf text = op->text;
    op->text = op->hedge->text;
    op->hedge->text = text;
    to->end = from->end;
    to->status = from->status;
    to->got = from->got;
    to->content_length = from->content_length;
    to->retry_after_s = from->retry_after_s;
    to->started_ns = from->started_ns;
    to->first_ns = from->first_ns;
    memcpy(to->why, from->why, sizeof to->why);
    memcpy(to->etag, from->etag, sizeof to->etag);
    memcpy(to->content_range, from->content_range, sizeof to->content_range);
    memcpy(to->date, from->date, sizeof to->date);
    memcpy(to->region, from->region, sizeof to->region);
    memcpy(to->encryption, from->encryption, sizeof to->encryption);
    memcpy(to->sum, from->sum, sizeof to->sum);
}

// ---- the end.

// "s3://bucket/prefix: GET 'key' bytes 0-99: HTTP 503 SlowDown: ...; 5 attempts in 12.3 s"
static void explain(struct s3_op *op) {
    char quoted[160] = "", tail[64];
    double seconds = 1e-9 * (double)(clock_monotonic_ns() - op->start_ns);
    snprintf(tail, sizeof tail, "; %d attempt%s in %.1f s", op->attempts, op->attempts == 1 ? "" : "s",
             seconds);
    size_t used = strlen(op->err.text), room = sizeof op->err.text - 320;
    if (used > room) used = room;
    snprintf(op->err.text + used, sizeof op->err.text - used, "%s", tail);
    if (!op->key) return; // LIST: store_each names it
    snprintf(quoted, sizeof quoted, " '%.150s'", op->key);
    err_prefix(&op->err, "%s: %s%s%s%s", op->s->store.url, op->verb, quoted, op->range[0] ? " " : "",
               op->range);
}

static void end_op(struct s3_op *op, int rc) {
    drop_attempt(&op->x);
    drop_hedge(op);
    op->rc = rc;
    if (rc) explain(op);
    op->finished(op);
}

// ---- attempts.

// Others that come in steps may go before it for long: the wait for a turn does not count.
static bool prepare(struct http_exchange *x) {
    struct s3_op *op = x->owner;
    if (op->step) op->moved_ns += clock_monotonic_ns() - op->due_ns;
    op->x.hedge_ns = op->hedge ? store_s3_pace_hedge_ns(&op->s->pace) : 0;
    op->x.deadline_ns = attempt_deadline_of(op);
    return !build_attempt(op, x, &op->unmade);
}

static bool give(struct http_exchange *x, size_t at, void *into, size_t n) {
    struct s3_op *op = x->owner;
    return !op->give(op->give_arg, at, into, n, &op->unmade);
}

bool store_s3_content_range(const char *text, int64_t *first, int64_t *last, int64_t *total) {
    int end = 0;
    return sscanf(text, "bytes %18" SCNd64 "-%18" SCNd64 "/%18" SCNd64 "%n", first, last, total, &end) == 3 &&
           end > 0 && !text[end] && *first >= 0 && *last >= *first && *total > *last;
}

// Of a reply that is taken in steps, before its first byte: is it what was asked for, of the same object as
// the steps that are kept? What is not, is let pass by, and judged when it has ended.
static int look_at_reply(struct s3_op *op, const struct http_exchange *x) {
    int64_t first, last, total;
    op->astray = x->status != 206 || !store_s3_content_range(x->content_range, &first, &last, &total) ||
                 first != op->first + (int64_t)op->kept || last > op->last;
    if (op->astray) return 0;
    if (op->kept && strcmp(op->kept_etag, x->etag) != 0)
        return err_set(&op->unmade, ERR_DATA, "the object changed while it was read");
    memcpy(op->kept_etag, x->etag, sizeof op->kept_etag);
    return 0;
}

static bool take(struct http_exchange *x, const void *data, size_t n) {
    struct s3_op *op = x->owner;
    if (!x->got && op->begun) op->begun(op, x);
    if (!x->got && op->step && look_at_reply(op, x)) return false;
    return op->astray || !op->take(op->take_arg, op->kept + x->got, data, n, &op->unmade);
}

// The last byte is always asked for again: a range must not be empty. Each step has the deadline anew.
static void keep_steps(struct s3_op *op) {
    size_t most = (size_t)(op->last - op->first), taken = op->kept + op->x.got;
    if (!op->step || op->astray || op->x.status != 206) return;
    if (taken > most) taken = most;
    taken -= taken % op->step;
    if (taken == op->kept) return;
    op->moved_ns = clock_monotonic_ns();
    op->moved_attempts = op->attempts - 1;
    op->kept = taken;
    op->x.capacity = op->capacity - op->kept;
    snprintf(op->range, sizeof op->range, "bytes=%" PRId64 "-%" PRId64, op->first + (int64_t)op->kept,
             op->last);
}

static void attempt(struct s3_op *op, int64_t not_before_ns) {
    op->attempts++;
    op->astray = false;
    int64_t now = clock_monotonic_ns();
    op->due_ns = now > not_before_ns ? now : not_before_ns;
    op->x.not_before_ns = not_before_ns;
    op->x.deadline_ns = op->step ? INT64_MAX : deadline_of(op); // while it waits for its turn
    http_submit(op->s->http, &op->x);
}

// When to try again, or 0: in time for its backoff and for the budget of all. A corrected clock costs no
// wait.
static int64_t next_attempt_ns(const struct s3_op *op, bool corrected) {
    int64_t now = clock_monotonic_ns();
    if (corrected) return now;
    int64_t at = store_retry_ns(op->s->store.jitter, op->id, op->attempts - op->moved_attempts - 1,
                                op->x.retry_after_s * 1000, deadline_of(op));
    int64_t turn = at ? now + store_s3_pace_retry_ns(&op->s->pace, now) : 0;
    if (turn > at) at = turn < deadline_of(op) ? turn : 0;
    return at;
}

static bool succeeded(const struct s3_op *op) {
    const struct http_exchange *x = &op->x;
    return x->end == HTTP_DONE &&
           ((x->status >= 200 && x->status < 300) || (op->also_ok && x->status == op->also_ok));
}

static bool worth_another(struct s3_op *op, int rc) {
    if (rc == -ERR_PEER) return ++op->nonsense < NONSENSE_MAX;
    return rc == -ERR_UNAVAILABLE || rc == -ERR_TIMEOUT;
}

// A token that expired: the credentials are renewed meanwhile.
static bool renewable(struct s3_op *op) {
    bool expired = strstr(op->err.text, "ExpiredToken") || strstr(op->err.text, "InvalidToken");
    return expired && op->expired++ < EXPIRED_MAX && creds_expired(op->s->creds, op->generation);
}

// The refusal of a HEAD has no body, so no code and no words: asks again as a GET of one byte.
static bool ask_for_words(struct s3_op *op) {
    static const int statuses[] = {301, 307, 400, 401, 403, 404};
    if (strcmp(op->x.method, "HEAD") != 0 || op->x.end != HTTP_DONE) return false;
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        if (op->x.status != statuses[i]) continue;
        op->x.method = op->method = "GET";
        op->headers[op->n_headers++] = (struct sigv4_field){"range", "bytes=0-0"};
        op->also_ok = 416; // of an empty object
        return true;
    }
    return false;
}

// What the reply tells of the server's state.
static void learn(struct s3_op *op, const struct http_exchange *x, bool good) {
    struct s3_pace *p = &op->s->pace;
    bool busy = x->end == HTTP_DONE && (x->status == 503 || x->status == 429);
    if (good || busy) http_limit(op->s->http, store_s3_pace_reply(p, busy, clock_monotonic_ns()));
    if (good) store_s3_pace_success(p);
    if (good && op->hedge && x->first_ns) store_s3_pace_first(p, x->first_ns - x->started_ns);
}

static void on_reply(struct http_exchange *x) {
    struct s3_op *op = x->owner;
    if (x != &op->x) adopt(op, x);
    x = &op->x;
    if (op->unmade.code) {
        op->err = op->unmade;
        end_op(op, -(int)op->err.code);
        return;
    }
    if (ask_for_words(op)) {
        attempt(op, 0);
        return;
    }
    bool clock_before = op->clock_corrected;
    struct err before = op->err;
    int rc;
    err_clear(&op->err);
    learn(op, x, succeeded(op));
    if (succeeded(op)) {
        rc = op->accept ? op->accept(op, &op->err) : 0;
    } else {
        rc = store_s3_judge(op);
        if (!x->started_ns && before.code) { // it was never sent: what the attempt before met says more
            op->err = before;
            rc = -(int)before.code;
        }
    }
    if (rc == -ERR_DENIED && renewable(op)) rc = -ERR_UNAVAILABLE;
    bool again = worth_another(op, rc);
    if (again) keep_steps(op);
    int64_t at = again ? next_attempt_ns(op, op->clock_corrected != clock_before) : 0;
    if (at) {
        bool refused = x->end == HTTP_CONNECT || x->status == 429 || x->status == 503;
        if (!refused) op->doubtful = true;
        attempt(op, at);
        return;
    }
    if (rc == -ERR_PEER) op->err.code = ERR_DATA;
    end_op(op, -(int)op->err.code);
}

static int hash_given(struct s3_op *op, struct hash_sha256 *h, struct err *e) {
    unsigned char *block = malloc(HASH_BLOCK);
    int rc = block && h ? 0 : err_set(e, ERR_MEMORY, "no memory for a checksum");
    for (size_t at = 0; at < op->body_bytes && !rc; at += HASH_BLOCK) {
        size_t n = op->body_bytes - at < HASH_BLOCK ? op->body_bytes - at : HASH_BLOCK;
        rc = op->give(op->give_arg, at, block, n, e);
        if (!rc) hash_sha256_update(h, block, n);
    }
    free(block);
    return rc;
}

static int hash_body(struct s3_op *op, struct err *e) {
    unsigned char digest[32];
    if (op->body_bytes && !op->hashed && !op->s->sign_payload) {
        snprintf(op->payload_sha256, sizeof op->payload_sha256, "UNSIGNED-PAYLOAD");
        return 0;
    }
    struct hash_sha256 *h = op->give ? hash_sha256_create() : NULL;
    int rc = op->give ? hash_given(op, h, e) : 0;
    if (!op->give) hash_sha256_of(op->body, op->body_bytes, digest);
    if (op->give && !rc) hash_sha256_peek(h, digest);
    hash_sha256_destroy(h);
    if (!rc) bytes_hex(digest, sizeof digest, op->payload_sha256);
    return rc;
}

void store_s3_op_start(struct s3_op *op, struct s3_store *s) {
    op->s = s;
    op->id = atomic_fetch_add(&s->operations, 1);
    op->start_ns = op->moved_ns = clock_monotonic_ns();
    buf_init(&op->text, op->text_max ? op->text_max : S3_ERROR_BODY_MAX);
    int rc = hash_body(op, &op->err);
    if (rc) {
        end_op(op, rc);
        return;
    }
    op->x = (struct http_exchange){.method = op->method,
                                   .body = op->body,
                                   .body_bytes = op->body_bytes,
                                   .give = op->give ? give : NULL,
                                   .deadline_ns = deadline_of(op),
                                   .no_proxy = s->loopback,
                                   .fresh = op->once,
                                   .done = on_reply,
                                   .prepare = prepare,
                                   .owner = op,
                                   .take = op->take ? take : NULL,
                                   .into = op->into,
                                   .capacity = op->capacity,
                                   .text = &op->text};
    if (op->into && op->capacity) make_hedge(op);
    attempt(op, 0);
}

static void wake(struct s3_op *op) {
    struct store *s = &op->s->store;
    pthread_mutex_lock(&s->lock);
    op->done = true;
    pthread_cond_signal(&op->woken);
    pthread_mutex_unlock(&s->lock);
}

void store_s3_op_begin(struct s3_op *op, struct s3_store *s) {
    op->finished = wake;
    op->done = false;
    pthread_cond_init(&op->woken, NULL);
    store_s3_op_start(op, s);
}

int store_s3_op_wait(struct s3_op *op, struct err *e) {
    struct store *s = &op->s->store;
    pthread_mutex_lock(&s->lock);
    while (!op->done) pthread_cond_wait(&op->woken, &s->lock);
    pthread_mutex_unlock(&s->lock);
    pthread_cond_destroy(&op->woken);
    if (op->rc && e && !e->code) *e = op->err;
    return op->rc;
}

int store_s3_op_run(struct s3_op *op, struct s3_store *s, struct err *e) {
    store_s3_op_begin(op, s);
    return store_s3_op_wait(op, e);
}

void store_s3_op_fini(struct s3_op *op) {
    buf_fini(&op->text);
}
