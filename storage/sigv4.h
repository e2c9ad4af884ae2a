// SPDX-License-Identifier: Apache-2.0
// AWS Signature Version 4 (docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html): the
// canonical target and the Authorization header of one request. Knows nothing of HTTP transport. What is
// signed is byte for byte what must be sent: the caller sends sigv4_target's text and each header as given
// here. Pure functions, any thread.
#ifndef ORRERY_STORAGE_SIGV4_H
#define ORRERY_STORAGE_SIGV4_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define SIGV4_FIELDS_MAX 16
#define SIGV4_DATE_BYTES 17 // "20130524T000000Z"

struct sigv4_field {
    const char *name, *value;
};

struct sigv4_credentials {
    const char *access_key, *secret_key;
    const char *session_token; // NULL or "": none
};

// What another vendor spells otherwise.
struct sigv4_dialect {
    const char *algorithm, *key_prefix, *terminator;    // "AWS4-HMAC-SHA256", "AWS4", "aws4_request"
    const char *date, *content_sha256, *security_token; // names of headers
};
extern const struct sigv4_dialect sigv4_aws;
extern const struct sigv4_dialect sigv4_google; // cloud.google.com/storage/docs/authentication/signatures

struct sigv4_request {
    const char *method;              // "GET"
    const char *host;                // as in the Host header, with the port where it is not the scheme's own
    const char *path;                // raw bytes, not yet encoded: "/bucket/a key"
    const struct sigv4_field *query; // raw, in any order; at most SIGV4_FIELDS_MAX; a NULL value is ""
    size_t n_query;
    const struct sigv4_field
        *headers;                 // further headers to sign: lower-case names, values without needless blanks
    size_t n_headers;             // with the signer's own at most SIGV4_FIELDS_MAX
    const char *payload_sha256;   // lower-case hex, or "UNSIGNED-PAYLOAD"
    const char *region, *service; // "us-east-1", "s3"
    int64_t utc_seconds;
    const struct sigv4_dialect *dialect; // NULL: sigv4_aws
};

// Every byte but A-Z a-z 0-9 - . _ ~ (and '/' where it is kept) as %XX.
int sigv4_encode(struct buf *out, const char *text, bool keep_slash, struct err *e) ERR_CHECK;
// "/bucket/a%20key?list-type=2&prefix=x", the query sorted: appended to out.
int sigv4_target(const struct sigv4_request *r, struct buf *out, struct err *e) ERR_CHECK;
void sigv4_date(int64_t utc_seconds, char out[SIGV4_DATE_BYTES]);
// The value of Authorization, appended to out. It covers host, x-amz-content-sha256 (payload_sha256),
// x-amz-date (sigv4_date), x-amz-security-token (as the dialect spells them) where there is one, and
// r->headers: all of them must be sent.
int sigv4_authorize(const struct sigv4_request *r, const struct sigv4_credentials *c, struct buf *out,
                    struct err *e) ERR_CHECK;
// The text that is hashed into the signature, for messages and tests.
int sigv4_canonical(const struct sigv4_request *r, const struct sigv4_credentials *c, struct buf *out,
                    struct err *e) ERR_CHECK;

#endif
