// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "storage/store_s3.h"

// What an error reply says (docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html).
struct s3_error {
    int status;
    char code[64], message[200], region[S3_REGION_BYTES];
};

// A row fits when its status (0: any) and its code (NULL: any) do; the first that fits counts. UNAVAILABLE is
// tried again. %s in the cure is where the credentials come from.
struct known {
    int status;
    const char *code;
    enum err_code err;
    const char *cure;
};

#define REFUSED "; the credentials from %s do not allow this: check them, the bucket's name and its policy"

static const struct known known_errors[] = {
    {0, "SlowDown", ERR_UNAVAILABLE, ""},
    {0, "RequestTimeout", ERR_UNAVAILABLE, ""},
    {0, "InternalError", ERR_UNAVAILABLE, ""},
    {0, "ServiceUnavailable", ERR_UNAVAILABLE, ""},
    {0, "OperationAborted", ERR_UNAVAILABLE, ""},
    {0, "ConditionalRequestConflict", ERR_UNAVAILABLE, ""},
    {0, "BadDigest", ERR_UNAVAILABLE, "; the body changed on its way"},
    {0, "XAmzContentSHA256Mismatch", ERR_UNAVAILABLE, "; the body changed on its way"},
    {0, "IncompleteBody", ERR_UNAVAILABLE, ""},
    {0, "InvalidAccessKeyId", ERR_DENIED,
     "; the endpoint does not know the access key from %s: check it, and that "
     "the endpoint is the right one"},
    {0, "SignatureDoesNotMatch", ERR_DENIED,
     "; the secret key from %s does not belong to the access key: check it"},
    {0, "RequestTimeTooSkewed", ERR_DENIED, "; this machine's clock is wrong: set it (NTP)"},
    {0, "ExpiredToken", ERR_DENIED, "; the session token from %s has expired: get a new one"},
    {0, "InvalidToken", ERR_DENIED, "; the session token from %s is not valid: get a new one"},
    {0, "QuotaExceeded", ERR_IO, "; the quota is used up: delete objects or have it raised"},
    {0, "AccessDenied", ERR_DENIED, REFUSED},
    {0, "PreconditionFailed", ERR_CONFLICT, ""},
    {404, "NoSuchBucket", ERR_MISSING, "; there is no such bucket: create it, or correct the URL"},
    {404, NULL, ERR_MISSING, ""},
    {401, NULL, ERR_DENIED, "; the credentials from %s are refused"},
    {403, NULL, ERR_DENIED, REFUSED},
    {409, NULL, ERR_CONFLICT, ""},
    {412, NULL, ERR_CONFLICT, ""},
    {408, NULL, ERR_UNAVAILABLE, ""},
    {429, NULL, ERR_UNAVAILABLE, ""},
    {500, NULL, ERR_UNAVAILABLE, ""},
    {502, NULL, ERR_UNAVAILABLE, ""},
    {503, NULL, ERR_UNAVAILABLE, ""},
    {504, NULL, ERR_UNAVAILABLE, ""},
    {507, NULL, ERR_IO, "; the store is full"},
};

static const struct known *known_error(const struct s3_error *r) {
    for (size_t i = 0; i < sizeof known_errors / sizeof *known_errors; i++) {
        const struct known *k = &known_errors[i];
        if ((!k->status || k->status == r->status) && (!k->code || !strcmp(k->code, r->code))) return k;
    }
    return NULL;
}

// ---- reading the reply.

// A server's words go into our messages as plain text.
static void copy_words(char *out, size_t n, const char *text) {
    size_t used = 0;
    for (; *text && used + 1 < n; text++)
        out[used++] = (unsigned char)*text < ' ' || *text == 0x7f ? ' ' : *text;
    out[used] = 0;
}

static int on_error_element(void *arg, const char *path, const char *text, struct err *e) {
    struct s3_error *r = arg;
    const char *name = strncmp(path, "ErrorResponse/", 14) ? path : path + 14;
    if (!strcmp(name, "Error/Code")) copy_words(r->code, sizeof r->code, text);
    if (!strcmp(name, "Error/Message")) copy_words(r->message, sizeof r->message, text);
    if (!strcmp(name, "Error/Region")) copy_words(r->region, sizeof r->region, text);
    return 0;
}

static void read_error(const struct s3_op *op, struct s3_error *r) {
    struct err ignored = {0};
    memset(r, 0, sizeof *r);
    r->status = op->x.status;
    if (op->text.len && store_s3_xml(&op->text, on_error_element, r, &ignored))
        r->code[0] = r->message[0] = 0;
    if (op->x.region[0]) copy_words(r->region, sizeof r->region, op->x.region);
}

// ---- a clock that is off. The Date of the refusal tells by how much; once per operation.

static bool correct_clock(struct s3_op *op) {
    struct tm parts = {0};
    const char *end = op->clock_corrected ? NULL : strptime(op->x.date, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    if (!end || *end) return false;
    int64_t offset = (int64_t)timegm(&parts) - clock_utc_ns() / 1000000000;
    atomic_store(&op->s->clock_offset_s, offset);
    op->clock_corrected = true;
    return true;
}

// ---- verdicts.

static int wrong_region(const struct s3_op *op, const struct s3_error *r, struct err *e) {
    return err_set(e, ERR_DENIED,
                   "HTTP %d%s%s: the bucket is in region '%s', not '%s': set the store's region to '%s'",
                   r->status, r->code[0] ? " " : "", r->code, r->region, op->s->region, r->region);
}

// The format is one of this file's own; the compiler cannot see that it takes one string at most.
static void append_cure(struct err *e, const char *cure, const char *source) {
    size_t used = strlen(e->text);
    const char *hole = strstr(cure, "%s");
    if (hole)
        snprintf(e->text + used, sizeof e->text - used, "%.*s%s%s", (int)(hole - cure), cure, source,
                 hole + 2);
    else
        snprintf(e->text + used, sizeof e->text - used, "%s", cure);
}

static int judge_error(struct s3_op *op, const struct s3_error *r, struct err *e) {
    bool other_region = r->region[0] && strcmp(r->region, op->s->region);
    if (other_region && (r->status == 301 || r->status == 307 || r->status == 400))
        return wrong_region(op, r, e);
    if (!strcmp(r->code, "RequestTimeTooSkewed") && correct_clock(op))
        return err_set(e, ERR_UNAVAILABLE, "HTTP %d %s", r->status, r->code);
    if (r->status >= 300 && r->status < 400)
        return err_set(e, ERR_MISSING,
                       "HTTP %d: the endpoint redirects elsewhere, which is never followed: check the "
                       "endpoint, the region and the bucket's name",
                       r->status);
    const struct known *k = known_error(r);
    int rc = err_set(e, k ? k->err : ERR_DATA, "HTTP %d%s%s%s%s", r->status, r->code[0] ? " " : "", r->code,
                     r->message[0] ? ": " : "", r->message);
    char source[CREDS_SOURCE_BYTES];
    creds_describe(op->s->creds, source);
    if (k) append_cure(e, k->cure, source);
    return rc;
}

// A GET to the object's end is as long as the object; any other body has the length that we asked for.
static bool too_large_for_caller(const struct s3_op *op) {
    size_t n = strlen(op->range);
    return op->into && op->x.status / 100 == 2 && (!n || op->range[n - 1] == '-');
}

int store_s3_judge(struct s3_op *op) {
    struct s3_error r;
    const struct http_exchange *x = &op->x;
    switch (x->end) {
    case HTTP_DONE: read_error(op, &r); return judge_error(op, &r, &op->err);
    case HTTP_SLOW: return err_set(&op->err, ERR_TIMEOUT, "%s", x->why);
    case HTTP_TOO_LARGE:
        if (too_large_for_caller(op))
            return err_set(&op->err, ERR_DATA, "the object does not fit in the %zu bytes given",
                           op->capacity);
        if (!x->status) return err_set(&op->err, ERR_PEER, "%s", x->why);
        return err_set(&op->err, ERR_PEER, "HTTP %d: %s", x->status, x->why);
    case HTTP_FAILED: return err_set(&op->err, ERR_PEER, "%s", x->why);
    case HTTP_UNTRUSTED:
        return err_set(&op->err, ERR_CONFIG,
                       "%s; if the endpoint has a certificate of its own, set AWS_CA_BUNDLE", x->why);
    default: return err_set(&op->err, ERR_UNAVAILABLE, "%s", x->why);
    }
}

int store_s3_error_in_body(struct s3_op *op, struct err *e) {
    struct s3_error r;
    read_error(op, &r);
    if (!r.code[0]) return 0;
    return judge_error(op, &r, e);
}
