// SPDX-License-Identifier: Apache-2.0
// "s3://bucket/prefix" over the S3 REST API: opening, and the operations on one object.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "storage/hash.h"
#include "storage/store_s3.h"

#define STALL_MS_MAX 15000

// ---- operations on one object. A request's operation is its backend state; freed when it finishes.

static struct store_request *request_of(const struct s3_op *op) {
    return op->owner;
}

static int bad_reply(const struct s3_op *op, struct err *e, const char *what) {
    return err_set(e, ERR_PEER, "HTTP %d: %s (Content-Range '%s', %zu bytes)", op->x.status, what,
                   op->x.content_range, op->x.got);
}

// 416: the range starts at or behind the end; "bytes */TOTAL".
static int accept_unsatisfiable(struct s3_op *op, struct err *e) {
    struct store_request *r = request_of(op);
    int64_t total = 0;
    if (sscanf(op->x.content_range, "bytes */%18" SCNd64, &total) != 1 && r->call.offset)
        total = -1; // without the size, all that is known is that the offset lies at the end or behind it
    if (r->call.offset + (int64_t)op->kept > total)
        return err_set(e, ERR_DATA, "a range at %" PRId64 " lies at the end or behind it",
                       r->call.offset + (int64_t)op->kept);
    r->result.object_bytes = total;
    r->result.bytes = 0;
    return 0;
}

static int accept_part(struct s3_op *op, struct err *e) {
    struct store_request *r = request_of(op);
    int64_t first, last, total, from = r->call.offset + (int64_t)op->kept, want;
    if (!store_s3_content_range(op->x.content_range, &first, &last, &total))
        return bad_reply(op, e, "a part without a proper Content-Range");
    want = total - from;
    if (r->call.length >= 0 && want > r->call.length - (int64_t)op->kept)
        want = r->call.length - (int64_t)op->kept;
    if (op->astray || first != from || last - first + 1 != want || op->x.got != (uint64_t)want)
        return bad_reply(op, e, "another range than was asked for");
    r->result.object_bytes = total;
    return 0;
}

static int accept_get(struct s3_op *op, struct err *e) {
    struct store_request *r = request_of(op);
    r->result.bytes = op->kept + op->x.got;
    memcpy(r->result.etag, op->x.etag, sizeof r->result.etag);
    memcpy(r->result.sum, op->x.sum, sizeof r->result.sum);
    r->result.opaque = !strncmp(op->x.encryption, "aws:kms", 7);
    if (op->x.status == 416) return accept_unsatisfiable(op, e);
    if (op->x.status == 206) return accept_part(op, e);
    if (op->range[0]) return bad_reply(op, e, "the whole object where a range was asked for");
    if (op->x.content_length >= 0 && (uint64_t)op->x.content_length != op->x.got)
        return bad_reply(op, e, "a body shorter than announced");
    r->result.object_bytes = (int64_t)op->x.got;
    return 0;
}

static int accept_head(struct s3_op *op, struct err *e) {
    struct store_request *r = request_of(op);
    int64_t first, last, total = op->x.status == 416 ? 0 : op->x.content_length;
    bool part = op->x.status == 206; // asked again as a GET
    if (part && !store_s3_content_range(op->x.content_range, &first, &last, &total))
        return bad_reply(op, e, "a part without a proper Content-Range");
    if (total < 0) return bad_reply(op, e, "no Content-Length");
    r->result.object_bytes = total;
    memcpy(r->result.etag, op->x.etag, sizeof r->result.etag);
    memcpy(r->result.sum, op->x.sum, sizeof r->result.sum);
    r->result.opaque = !strncmp(op->x.encryption, "aws:kms", 7);
    return 0;
}

// DELETE: a key that is not there is as good as deleted, a bucket that is not there is not.
static int accept_delete(struct s3_op *op, struct err *e) {
    return op->x.status == 404 && op->text.data && strstr(op->text.data, "NoSuchBucket")
               ? err_set(e, ERR_MISSING,
                         "HTTP 404 NoSuchBucket; there is no such bucket: create it, or correct the URL")
               : 0;
}

// What cannot be read of it is judged when the reply has ended.
static void on_begun(struct s3_op *op, const struct http_exchange *x) {
    const struct store_call *c = &request_of(op)->call;
    struct store_result object = {.opaque = !strncmp(x->encryption, "aws:kms", 7)};
    int64_t first, last;
    if (!store_s3_content_range(x->content_range, &first, &last, &object.object_bytes)) return;
    memcpy(object.etag, x->etag, sizeof object.etag);
    memcpy(object.sum, x->sum, sizeof object.sum);
    c->known(c->take_arg, &object);
}

static void set_get(struct s3_op *op, const struct store_call *c) {
    op->verb = op->method = "GET";
    op->into = c->capacity && !c->take ? c->into : op; // an address, never written to
    op->capacity = c->capacity;
    op->take = c->take;
    op->take_arg = c->take_arg;
    op->step = c->length > 0 ? c->step : 0;
    op->first = c->offset;
    op->last = c->offset + c->length - 1;
    op->begun = c->known ? on_begun : NULL;
    op->also_ok = 416;
    op->accept = accept_get;
    if (c->length >= 0)
        snprintf(op->range, sizeof op->range, "bytes=%" PRId64 "-%" PRId64, c->offset,
                 c->offset + c->length - 1);
    else if (c->offset)
        snprintf(op->range, sizeof op->range, "bytes=%" PRId64 "-", c->offset);
    if (op->range[0]) op->headers[op->n_headers++] = (struct sigv4_field){"range", op->range};
}

const char *store_s3_sum_header(const struct s3_store *s) {
    return s->vendor->dialect == &sigv4_google ? "x-goog-meta-orrery-crc32c" : "x-amz-meta-orrery-crc32c";
}

void store_s3_op_checksum(struct s3_op *op, const struct s3_vendor *v, uint32_t crc) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char text[9] = "";
    uint64_t bits = (uint64_t)crc << 4; // 32 bits and 4 of padding are six digits
    for (int i = 0; i < 6; i++) text[i] = digits[bits >> (30 - 6 * i) & 63];
    text[6] = text[7] = '=';
    snprintf(op->crc, sizeof op->crc, "%s%s", v->crc_prefix, text);
    op->headers[op->n_headers++] = (struct sigv4_field){v->crc_header, op->crc};
}

static int accept_put(struct s3_op *op, struct err *e) {
    struct store_request *r = request_of(op);
    memcpy(r->result.etag, op->x.etag, sizeof r->result.etag);
    return 0;
}

static void set_put(struct s3_op *op, const struct s3_store *s, const struct store_call *c) {
    op->verb = op->method = "PUT";
    op->body = c->data;
    op->body_bytes = c->bytes;
    op->once = c->create_only;
    op->accept = accept_put;
    if (c->create_only) op->headers[op->n_headers++] = s->vendor->create_only;
    // A body that is hashed into its signature needs no second sum.
    if (s->vendor->crc_header && c->bytes && !s->sign_payload)
        store_s3_op_checksum(op, s->vendor, hash_crc32c(0, c->data, c->bytes));
}

static void set_op(struct s3_op *op, const struct s3_store *s, const struct store_call *c) {
    op->key = c->key;
    op->deadline_ms = c->deadline_ms;
    switch (c->op) {
    case STORE_GET: set_get(op, c); break;
    case STORE_PUT: set_put(op, s, c); break;
    case STORE_HEAD:
        op->verb = op->method = "HEAD";
        op->accept = accept_head;
        break;
    case STORE_DELETE:
        op->verb = op->method = "DELETE";
        op->also_ok = 404;
        op->accept = accept_delete;
    }
}

static void on_finished(struct s3_op *op) {
    struct store_request *r = request_of(op);
    int rc = op->rc;
    r->err = op->err;
    r->doubtful = op->doubtful;
    store_s3_op_fini(op);
    free(op);
    store_finish(r, rc);
}

static int s3_start(struct store *s, struct store_request *r, struct err *e) {
    if (r->call.op == STORE_GET && !r->call.length)
        return err_set(e, ERR_USAGE, "%s: GET '%s' of no bytes", s->url, r->call.key);
    if (r->call.op == STORE_GET && r->call.length > INT64_MAX - r->call.offset)
        return err_set(e, ERR_USAGE, "%s: GET '%s': the range is too long", s->url, r->call.key);
    if (r->call.op == STORE_GET && r->call.length > 0 && (uint64_t)r->call.length > r->call.capacity)
        return err_set(e, ERR_USAGE, "%s: GET '%s': the range is longer than the memory for it", s->url,
                       r->call.key);
    struct s3_op *op = calloc(1, sizeof *op);
    if (!op) return err_set(e, ERR_MEMORY, "%s: no memory for a request", s->url);
    set_op(op, (struct s3_store *)s, &r->call);
    op->owner = r;
    op->finished = on_finished;
    store_s3_op_start(op, (struct s3_store *)s);
    return 0;
}

// ---- opening.

static int parse_url(struct s3_store *s, const char *rest, struct err *e) {
    const char *name = strncmp(rest, "//", 2) ? rest : rest + 2;
    size_t n = strcspn(name, "/");
    const char *prefix = name + n + (name[n] == '/');
    size_t allowed = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_");
    if (n < 3 || n > S3_BUCKET_MAX || allowed < n)
        return err_set(e, ERR_CONFIG,
                       "'s3:%s': '%.*s' is no bucket's name (at least 3 letters, digits, '-' or '.')", rest,
                       (int)(n < 64 ? n : 64), name);
    size_t length = strlen(prefix);
    while (length && prefix[length - 1] == '/') length--;
    s->bucket = strndup(name, n);
    if (asprintf(&s->prefix, "%.*s%s", (int)length, prefix, length ? "/" : "") < 0) s->prefix = NULL;
    return s->bucket && s->prefix ? 0 : err_set(e, ERR_MEMORY, "no memory to open store 's3:%s'", rest);
}

static const char *first_set(const char *a, const char *b, const char *c, const char *d) {
    const char *all[] = {a, b, c, d};
    for (int i = 0; i < 4; i++)
        if (all[i] && *all[i]) return all[i];
    return "";
}

static bool is_loopback(const char *host, size_t n) {
    return (n == 9 && !strncasecmp(host, "localhost", 9)) || (n >= 4 && !strncmp(host, "127.", 4)) ||
           (n == 5 && !strncmp(host, "[::1]", 5));
}

static size_t host_length(const char *authority) {
    const char *end = *authority == '[' ? strchr(authority, ']') : NULL;
    return end ? (size_t)(end - authority) + 1 : strcspn(authority, ":");
}

static int bad_endpoint(const char *text, struct err *e) {
    return err_set(e, ERR_CONFIG, "'%s' is no S3 endpoint: write https://HOST or http://HOST:PORT", text);
}

// "http://127.0.0.1:7480", "https://host/", "host:port". Plain HTTP is taken when it is written out, and for
// loopback; anything else means HTTPS.
static int set_endpoint(struct s3_store *s, const char *endpoint, struct err *e) {
    const char *scheme = !strncasecmp(endpoint, "http://", 7)    ? "http"
                         : !strncasecmp(endpoint, "https://", 8) ? "https"
                                                                 : NULL;
    const char *text = scheme ? strstr(endpoint, "//") + 2 : endpoint;
    size_t n = strcspn(text, "/"), host = host_length(text);
    size_t plain = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_[]:");
    if (!n || !host || plain < n || strspn(text + n, "/") != strlen(text + n))
        return bad_endpoint(endpoint, e);
    s->loopback = is_loopback(text, host);
    if (!scheme) scheme = s->loopback ? "http" : "https";
    const char *before = s->path_style ? "" : s->bucket, *dot = s->path_style ? "" : ".";
    if (asprintf(&s->host, "%s%s%.*s", before, dot, (int)n, text) < 0) s->host = NULL;
    if (asprintf(&s->base, "%s://%s", scheme, s->host ? s->host : "") < 0) s->base = NULL;
    return s->host && s->base ? 0 : err_set(e, ERR_MEMORY, "no memory to open a store");
}

static int set_vendor(struct s3_store *s, const struct store_options *options, const char *endpoint,
                      struct err *e) {
    const char *name = first_set(options->vendor, getenv("ORRERY_STORE_VENDOR"), NULL, "");
    const char *host = strstr(endpoint, "//") ? strstr(endpoint, "//") + 2 : endpoint;
    s->vendor = store_s3_vendor(name, host, *host ? strcspn(host + 1, ":/") + 1 : 0);
    if (!s->vendor)
        return err_set(e, ERR_CONFIG, "'%.40s': a store's vendor is aws, oss, r2, gcs, rgw, minio or other",
                       name);
    s->path_style = options->path_style && !s->vendor->virtual_only;
    return 0;
}

static int set_place(struct s3_store *s, const struct store_options *options, struct err *e) {
    char aws[128];
    const char *endpoint =
        first_set(options->endpoint, getenv("AWS_ENDPOINT_URL_S3"), getenv("AWS_ENDPOINT_URL"), "");
    int rc = set_vendor(s, options, *endpoint ? endpoint : "s3.amazonaws.com", e);
    if (rc) return rc;
    const char *region =
        first_set(options->region, getenv("AWS_REGION"), getenv("AWS_DEFAULT_REGION"), s->vendor->region);
    if (strlen(region) >= sizeof s->region ||
        strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(region))
        return err_set(e, ERR_CONFIG, "'%.60s' is no S3 region", region);
    snprintf(s->region, sizeof s->region, "%s", region);
    snprintf(aws, sizeof aws, "https://s3.%s.amazonaws.com", region);
    return set_endpoint(s, *endpoint ? endpoint : aws, e);
}

static int set_payload(struct s3_store *s, const struct store_options *options, struct err *e) {
    const char *text = first_set(options->payload, getenv("ORRERY_STORE_PAYLOAD"), NULL, "auto");
    bool safe = s->loopback || !strncmp(s->base, "https:", 6);
    s->sign_payload = !strcmp(text, "signed") || (!strcmp(text, "auto") && !safe);
    if (s->sign_payload || !strcmp(text, "unsigned") || !strcmp(text, "auto")) return 0;
    return err_set(e, ERR_CONFIG, "'%.40s': a store's payload is auto, signed or unsigned", text);
}

static int start_http(struct s3_store *s, struct err *e) {
    int64_t stall = s->store.deadline_ms / 4;
    const char *ca = getenv("AWS_CA_BUNDLE");
    struct http_options o = {.connections = s->store.connections, .ca_bundle = ca && *ca ? ca : NULL};
    o.stall_ms = stall < 1000 ? 1000 : stall > STALL_MS_MAX ? STALL_MS_MAX : stall;
    store_s3_pace_init(&s->pace, s->store.connections, clock_monotonic_ns());
    return http_create(&s->http, &o, e);
}

static void s3_close(struct store *store) {
    struct s3_store *s = (struct s3_store *)store;
    http_destroy(s->http);
    creds_close(s->creds);
    free(s->base);
    free(s->host);
    free(s->bucket);
    free(s->prefix);
    store_fini(store);
    free(s);
}

static const struct store_ops s3_ops = {
    .close = s3_close,
    .start = s3_start,
    .list = store_s3_list,
    .sweep = store_s3_sweep,
    .writer_open = store_s3_writer_open,
    .put_large = store_s3_put_large,
    .put_file = store_s3_put_file,
    .probe = store_s3_probe,
};

int store_s3_open(struct store **out, const char *rest, const struct store_options *options, struct err *e) {
    char url[STORE_KEY_MAX + 64];
    struct s3_store *s = calloc(1, sizeof *s);
    if (!s) return err_set(e, ERR_MEMORY, "no memory to open store 's3:%s'", rest);
    snprintf(url, sizeof url, "s3:%s", rest);
    int rc = store_init(&s->store, &s3_ops, url, options, e);
    if (!rc) rc = parse_url(s, rest, e);
    if (!rc) rc = set_place(s, options, e);
    if (!rc) rc = set_payload(s, options, e);
    if (!rc) rc = creds_open(&s->creds, e);
    if (!rc) rc = start_http(s, e);
    if (rc)
        s3_close(&s->store);
    else
        *out = &s->store;
    return rc;
}
