// SPDX-License-Identifier: Apache-2.0
#include "storage/sigv4.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "storage/hash.h"

#define TEXT_MAX ((size_t)64 << 10) // of any one text made here; keys have at most 1 KiB, tokens a few

const struct sigv4_dialect sigv4_aws = {
    "AWS4-HMAC-SHA256", "AWS4", "aws4_request", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"};
const struct sigv4_dialect sigv4_google = {"GOOG4-HMAC-SHA256",     "GOOG4",
                                           "goog4_request",         "x-goog-date",
                                           "x-goog-content-sha256", "x-goog-security-token"};

static const struct sigv4_dialect *dialect_of(const struct sigv4_request *r) {
    return r->dialect ? r->dialect : &sigv4_aws;
}

int sigv4_encode(struct buf *out, const char *text, bool keep_slash, struct err *e) {
    static const char digits[] = "0123456789ABCDEF";
    int rc = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p && !rc; p++) {
        bool plain = (*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') ||
                     strchr("-._~", *p) || (*p == '/' && keep_slash);
        char escaped[3] = {'%', digits[*p >> 4], digits[*p & 15]};
        rc = plain ? buf_append(out, p, 1, e) : buf_append(out, escaped, 3, e);
    }
    return rc;
}

// ---- the query: names and values encoded first, then sorted by encoded name, then by encoded value.

struct encoded {
    char *name, *value;
};

static char *encode_alone(const char *text, struct err *e) {
    struct buf b;
    buf_init(&b, TEXT_MAX);
    int rc = buf_reserve(&b, 1, e);
    if (!rc) rc = sigv4_encode(&b, text ? text : "", false, e);
    char *taken = rc ? NULL : buf_take(&b);
    buf_fini(&b);
    return taken;
}

static int by_encoded(const void *a, const void *b) {
    const struct encoded *x = a, *y = b;
    int names = strcmp(x->name, y->name);
    return names ? names : strcmp(x->value, y->value);
}

static int append_query(const struct encoded *q, size_t n, struct buf *out, struct err *e) {
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++)
        rc = buf_appendf(out, e, "%s%s=%s", i ? "&" : "", q[i].name, q[i].value);
    return rc;
}

static int canonical_query(const struct sigv4_request *r, struct buf *out, struct err *e) {
    struct encoded q[SIGV4_FIELDS_MAX];
    size_t n = 0;
    int rc = 0;
    if (r->n_query > SIGV4_FIELDS_MAX) return err_set(e, ERR_BUG, "%zu query parameters to sign", r->n_query);
    for (; n < r->n_query && !rc; n++) {
        q[n].name = encode_alone(r->query[n].name, e);
        q[n].value = encode_alone(r->query[n].value, e);
        if (!q[n].name || !q[n].value) rc = err_set(e, ERR_MEMORY, "no memory for a query");
    }
    if (!rc && n) {
        qsort(q, n, sizeof *q, by_encoded);
        rc = append_query(q, n, out, e);
    }
    for (size_t i = 0; i < n; i++) {
        free(q[i].name);
        free(q[i].value);
    }
    return rc;
}

int sigv4_target(const struct sigv4_request *r, struct buf *out, struct err *e) {
    int rc = sigv4_encode(out, r->path, true, e);
    if (!rc && r->n_query) rc = buf_appends(out, "?", e);
    return rc ? rc : canonical_query(r, out, e);
}

// ---- the headers.

void sigv4_date(int64_t utc_seconds, char out[SIGV4_DATE_BYTES]) {
    time_t seconds = (time_t)utc_seconds;
    struct tm parts;
    gmtime_r(&seconds, &parts);
    if (!strftime(out, SIGV4_DATE_BYTES, "%Y%m%dT%H%M%SZ", &parts)) out[0] = 0;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct sigv4_field *)a)->name, ((const struct sigv4_field *)b)->name);
}

// All headers to sign, sorted by name; `date` outlives them.
static int signed_headers(const struct sigv4_request *r, const struct sigv4_credentials *c, const char *date,
                          struct sigv4_field out[SIGV4_FIELDS_MAX], size_t *n, struct err *e) {
    *n = 0;
    if (r->n_headers > SIGV4_FIELDS_MAX - 4) return err_set(e, ERR_BUG, "%zu headers to sign", r->n_headers);
    out[(*n)++] = (struct sigv4_field){"host", r->host};
    out[(*n)++] = (struct sigv4_field){dialect_of(r)->content_sha256, r->payload_sha256};
    out[(*n)++] = (struct sigv4_field){dialect_of(r)->date, date};
    if (c->session_token && *c->session_token)
        out[(*n)++] = (struct sigv4_field){dialect_of(r)->security_token, c->session_token};
    for (size_t i = 0; i < r->n_headers; i++) out[(*n)++] = r->headers[i];
    qsort(out, *n, sizeof *out, by_name);
    return 0;
}

// "host;range;x-amz-date"
static int append_names(const struct sigv4_field *h, size_t n, struct buf *out, struct err *e) {
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) rc = buf_appendf(out, e, "%s%s", i ? ";" : "", h[i].name);
    return rc;
}

int sigv4_canonical(const struct sigv4_request *r, const struct sigv4_credentials *c, struct buf *out,
                    struct err *e) {
    struct sigv4_field h[SIGV4_FIELDS_MAX];
    char date[SIGV4_DATE_BYTES];
    size_t n;
    sigv4_date(r->utc_seconds, date);
    int rc = signed_headers(r, c, date, h, &n, e);
    if (!rc) rc = buf_appendf(out, e, "%s\n", r->method);
    if (!rc) rc = sigv4_encode(out, r->path, true, e);
    if (!rc) rc = buf_appends(out, "\n", e);
    if (!rc) rc = canonical_query(r, out, e);
    if (!rc) rc = buf_appends(out, "\n", e);
    for (size_t i = 0; i < n && !rc; i++) rc = buf_appendf(out, e, "%s:%s\n", h[i].name, h[i].value);
    if (!rc) rc = buf_appends(out, "\n", e);
    if (!rc) rc = append_names(h, n, out, e);
    return rc ? rc : buf_appendf(out, e, "\n%s", r->payload_sha256);
}

// ---- the signature.

static void hmac_text(const unsigned char key[32], const char *text, unsigned char out[32]) {
    hash_hmac_sha256(key, 32, text, strlen(text), out);
}

// HMAC(HMAC(HMAC(HMAC("AWS4" + secret, date), region), service), "aws4_request")
static int signing_key(const struct sigv4_request *r, const char *secret, const char *day,
                       unsigned char key[32], struct err *e) {
    struct buf first;
    unsigned char a[32], b[32];
    buf_init(&first, TEXT_MAX);
    int rc = buf_appendf(&first, e, "%s%s", dialect_of(r)->key_prefix, secret);
    if (!rc) {
        hash_hmac_sha256(first.data, first.len, day, strlen(day), a);
        hmac_text(a, r->region, b);
        hmac_text(b, r->service, a);
        hmac_text(a, dialect_of(r)->terminator, key);
        explicit_bzero(first.data, first.len);
    }
    buf_fini(&first);
    return rc;
}

static int string_to_sign(const struct sigv4_request *r, const struct sigv4_credentials *c, const char *date,
                          const char *scope, struct buf *out, struct err *e) {
    struct buf canonical;
    unsigned char digest[32];
    char hex[65];
    buf_init(&canonical, TEXT_MAX);
    int rc = sigv4_canonical(r, c, &canonical, e);
    if (!rc) {
        hash_sha256_of(canonical.data, canonical.len, digest);
        bytes_hex(digest, sizeof digest, hex);
        rc = buf_appendf(out, e, "%s\n%s\n%s\n%s", dialect_of(r)->algorithm, date, scope, hex);
    }
    buf_fini(&canonical);
    return rc;
}

static int append_authorization(const struct sigv4_request *r, const struct sigv4_credentials *c,
                                const char *date, const char *scope, const unsigned char signature[32],
                                struct buf *out, struct err *e) {
    struct sigv4_field h[SIGV4_FIELDS_MAX];
    char hex[65];
    size_t n;
    bytes_hex(signature, 32, hex);
    int rc = signed_headers(r, c, date, h, &n, e);
    if (!rc)
        rc = buf_appendf(out, e, "%s Credential=%s/%s,SignedHeaders=", dialect_of(r)->algorithm,
                         c->access_key, scope);
    if (!rc) rc = append_names(h, n, out, e);
    return rc ? rc : buf_appendf(out, e, ",Signature=%s", hex);
}

int sigv4_authorize(const struct sigv4_request *r, const struct sigv4_credentials *c, struct buf *out,
                    struct err *e) {
    struct buf scope, text;
    char date[SIGV4_DATE_BYTES], day[9];
    unsigned char key[32], signature[32];
    buf_init(&scope, TEXT_MAX);
    buf_init(&text, TEXT_MAX);
    sigv4_date(r->utc_seconds, date);
    memcpy(day, date, 8);
    day[8] = 0;
    int rc = buf_appendf(&scope, e, "%s/%s/%s/%s", day, r->region, r->service, dialect_of(r)->terminator);
    if (!rc) rc = string_to_sign(r, c, date, scope.data, &text, e);
    if (!rc) rc = signing_key(r, c->secret_key, day, key, e);
    if (!rc) {
        hash_hmac_sha256(key, sizeof key, text.data, text.len, signature);
        explicit_bzero(key, sizeof key);
        rc = append_authorization(r, c, date, scope.data, signature, out, e);
    }
    buf_fini(&text);
    buf_fini(&scope);
    return rc;
}
