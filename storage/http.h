// SPDX-License-Identifier: Apache-2.0
// An HTTP/1.1 client (RFC 9110, 9112): many exchanges at once, run by one thread of its own over kept-alive
// connections. Knows nothing of S3, of signatures or of retries: one exchange is one attempt. Redirects are
// never followed; headers and bodies are bounded; every exchange ends by its deadline. Thread rule:
// http_submit from any thread, http_create and http_destroy from one. `done` is called on the client's thread
// and must not block. No curl type appears here.
#ifndef ORRERY_STORAGE_HTTP_H
#define ORRERY_STORAGE_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

struct http;

struct http_options {
    int connections;  // exchanges under way at once; the rest queue. 0: 16
    int64_t stall_ms; // cut off when less than 1 KiB/s comes or goes for so long (whole seconds). 0: 15000
    const char *ca_bundle; // file of certificates to trust; NULL: the system's
};

#define HTTP_HEADERS_MAX      24
#define HTTP_HEADER_BYTES_MAX ((size_t)64 << 10) // of one reply

// How an exchange ended, apart from its status.
enum http_end {
    HTTP_DONE,      // a whole reply; status says which
    HTTP_CONNECT,   // no connection: nothing was sent
    HTTP_BROKEN,    // the connection broke, or the body was shorter than announced
    HTTP_SLOW,      // stalled, or the deadline passed
    HTTP_TOO_LARGE, // headers or body beyond their bounds; status is set when it was the body
    HTTP_UNTRUSTED, // TLS: the server's certificate does not fit
    HTTP_FAILED,    // no HTTP, a bad URL, no memory, ...
};

// One exchange. The caller owns it and all it points to until `done` is called; then it may be submitted
// again.
struct http_exchange {
    // The request.
    const char *method;                    // "GET", "PUT", "HEAD", "DELETE", "POST"
    const char *url;                       // encoded; sent as it is, no dots removed
    const char *headers[HTTP_HEADERS_MAX]; // "name: value"
    size_t n_headers;
    const void *body; // of a PUT or POST
    size_t body_bytes;
    // Instead of `body`: fills n bytes of it, from `at` on, on the client's thread; false: it cannot, and the
    // exchange ends as FAILED. Asked from 0 on again when libcurl sends a second time.
    bool (*give)(struct http_exchange *x, size_t at, void *into, size_t n);
    int64_t not_before_ns, deadline_ns; // clock_monotonic_ns
    bool no_proxy;                      // not through the environment's proxy
    // On a new connection: of a request that a kept one swallowed as it died, libcurl sends a second without
    // a word, and what must be done once may be done twice.
    bool fresh;
    void (*done)(struct http_exchange *x);
    // Just before it is sent, on the client's thread: the last chance to set url and headers, which may hold
    // a date. False: it is not sent, end is FAILED. NULL: all is set.
    bool (*prepare)(struct http_exchange *x);
    // A second exchange for the same into the same memory: sent on a new connection when nothing has come for
    // hedge_ns (0: never) and its `wanted` agrees. Whichever first has a byte of a good reply's body goes on,
    // the other is cut off; `done` is called once, with the one that ended.
    struct http_exchange *hedge;
    int64_t hedge_ns;
    bool (*wanted)(struct http_exchange *hedge); // NULL: yes
    void *owner;                                 // the caller's own

    // Where the reply's body goes: of a 2xx, up to `capacity`, to `take` where that is set, else into memory
    // where `into` is; any other into `text`, up to its bound (it is cleared first). `take` is given the body
    // piece by piece while it is in the cache, from `got` on: a rival or a later attempt begins at 0 again.
    // It runs on the client's thread; false: not kept, the exchange ends as FAILED.
    bool (*take)(struct http_exchange *x, const void *data, size_t n);
    void *into;
    size_t capacity;
    struct buf *text;

    // The reply.
    enum http_end end;
    char why[192];          // words for end other than DONE
    int status;             // 0: none came
    size_t got;             // bytes in `into`, or taken
    int64_t content_length; // -1: not given
    char etag[72], content_range[80], date[40],
        region[40],        // x-amz-bucket-region; empty where not given
        encryption[24],    // x-amz-server-side-encryption
        sum[12];           // x-amz-meta-orrery-crc32c, or x-goog-
    int64_t retry_after_s; // 0: not given
    int64_t started_ns;    // when it was sent; 0: never
    int64_t first_ns;      // when the first byte of its body came; 0: none did

    // The client's own.
    struct http_exchange *next, *rival;
    struct transfer *transfer; // while it is under way
    size_t seen;
    bool is_hedge, queued;
};

int http_create(struct http **out, const struct http_options *options, struct err *e) ERR_CHECK;
void http_destroy(struct http *h); // waits for what was submitted; NULL-safe
void http_submit(struct http *h, struct http_exchange *x);
// At most n exchanges under way, within what http_create was given. From `done` only.
void http_limit(struct http *h, int n);

#endif
