// SPDX-License-Identifier: Apache-2.0
// What the files of the S3 back end share. Only store_s3*.c includes this.
//   store_s3.c        opening; GET, PUT, HEAD, DELETE of one object
//   store_s3_op.c     one signed operation with its retries, start to end
//   store_s3_error.c  what a reply that is no success means, and what to do
//   store_s3_list.c   ListObjectsV2
//   store_s3_sweep.c  ListMultipartUploads, and ending what is found
//   store_s3_pace.c   how many requests, retries and hedges
//   store_s3_upload.c multipart uploads, the writer
//   store_s3_file.c   a file as one PUT, or as a multipart upload that can be gone on with
//   store_s3_vendor.c what differs between vendors
//   store_s3_probe.c  what the server at hand honours
//   store_s3_xml.c    reading XML replies (expat)
#ifndef ORRERY_STORAGE_STORE_S3_H
#define ORRERY_STORAGE_STORE_S3_H

#include <stdatomic.h>

#include "storage/creds.h"
#include "storage/http.h"
#include "storage/sigv4.h"
#include "storage/store_backend.h"
#include "storage/store_s3_pace.h"

#define S3_ERROR_BODY_MAX ((size_t)64 << 10)
#define S3_LIST_BODY_MAX  ((size_t)16 << 20) // 1000 keys of 1 KiB, each byte escaped, and room
#define S3_REGION_BYTES   40
#define S3_BUCKET_MAX     255

// A vendor's ways: a row of store_s3_vendor.c.
struct s3_vendor {
    const char *name, *title;
    const char *suffix;                  // of its hosts; NULL: not to be told by them
    const struct sigv4_dialect *dialect; // NULL: AWS's
    const char *service;                 // that is signed for; NULL: "s3"
    const char *region;                  // when none is configured
    struct sigv4_field create_only;      // header of a PUT that must not replace
    bool complete_create_only;           // the same on the completion of an upload
    const char *crc_header, *crc_prefix; // of a PUT's CRC32C, in base64; NULL: none
    bool virtual_only;                   // the bucket stands in the host name, whatever is configured
};
// By name, or by the host's (of n bytes) where name is NULL or "". NULL: no such name.
const struct s3_vendor *store_s3_vendor(const char *name, const char *host, size_t n);

struct s3_store {
    struct store store;
    struct http *http;
    const struct s3_vendor *vendor;
    struct store_caps caps; // guarded by the store's lock; vendor NULL: not yet probed
    struct creds *creds;
    char *base;   // "https://host:port", of every request
    char *host;   // "host:port", as it is signed
    char *bucket; // name
    char *prefix; // "" or "a/b/", before every key
    char region[S3_REGION_BYTES];
    bool path_style, loopback;
    bool sign_payload;              // bodies are hashed into their signatures
    _Atomic int64_t clock_offset_s; // what to add to this machine's clock, learnt from a refusal
    _Atomic uint64_t operations;
    struct s3_pace pace; // the HTTP client's thread's
};

// ---- one operation. The caller fills the first part; everything it points to stays until `finished`.
struct s3_op;
struct s3_op {
    const char *verb;   // for messages: "GET", "LIST"
    const char *method; // HTTP's
    const char *key;    // relative to the store; NULL: the bucket itself
    struct sigv4_field query[6], headers[4];
    size_t n_query, n_headers;
    const void *body;
    size_t body_bytes;
    // Instead of `body`: fills n bytes of it from `at` on, once more for a hash of it; any error is final.
    int (*give)(void *give_arg, size_t at, void *into, size_t n, struct err *e);
    void *give_arg;
    bool once;   // conditional: that an attempt may have been carried out must not go unnoticed
    bool hashed; // the body's hash is signed, whatever the store's payload is
    void *into;  // for the body of a success; NULL: `text`
    size_t capacity;
    int (*take)(void *take_arg, size_t at, const void *data, size_t n, struct err *e); // as a store_call's
    void *take_arg;
    void (*begun)(struct s3_op *op, const struct http_exchange *x); // before its first byte; NULL: not asked
    size_t step;                                                    // of `take`, as a store_call's
    int64_t first, last; // bytes of the object that are asked for, where step is not 0
    size_t text_max;     // bound of `text`; 0: S3_ERROR_BODY_MAX
    // Looks at a 2xx reply: 0, or an error. UNAVAILABLE: a failure in disguise, tried again until the
    // deadline. PEER: the reply makes no sense, tried again twice, DATA in the end. Also called for
    // `also_ok`.
    int (*accept)(struct s3_op *op, struct err *e);
    int64_t deadline_ms; // 0: the store's
    int also_ok;         // another status that is a success: 404 of DELETE, 416 of GET; 0: none
    void (*finished)(struct s3_op *op); // on any thread; rc, err are set. NULL: store_s3_op_begin's
    void *owner;
    char range[64]; // room for a header's value; named in messages when not empty
    char crc[24];   // the same, of a checksum

    // Progress and outcome.
    struct s3_store *s;
    struct http_exchange x; // the last reply
    struct buf text;
    int rc;
    struct err err, unmade; // unmade: why an attempt could not be signed, or a body not be given or taken
    bool done;              // for store_s3_op_wait; guarded by the store's lock
    pthread_cond_t woken;
    bool doubtful; // an attempt may have been carried out without our knowing
    bool clock_corrected;
    size_t kept;            // taken by earlier attempts, whole steps; what is asked for begins behind it
    char kept_etag[72];     // of what they were parts of
    bool astray;            // the reply of this attempt is another part than was asked for
    uint64_t generation;    // of the credentials of the last attempt
    int expired;            // attempts that met expired ones
    struct s3_hedge *hedge; // of a GET; NULL: none
    int attempts, nonsense;
    uint64_t id;
    int64_t start_ns;
    int64_t moved_ns;   // from which its deadline counts: the start, or when a step was kept last
    int64_t due_ns;     // when the last attempt might have begun
    int moved_attempts; // that were made before
    char payload_sha256[65];
};
// Begins; `finished` follows exactly once, perhaps before this returns. No store_s3_op_fini before that.
void store_s3_op_start(struct s3_op *op, struct s3_store *s);
void store_s3_op_begin(struct s3_op *op, struct s3_store *s); // the same, for store_s3_op_wait
int store_s3_op_wait(struct s3_op *op, struct err *e) ERR_CHECK;
int store_s3_op_run(struct s3_op *op, struct s3_store *s, struct err *e) ERR_CHECK; // begin and wait
// "bytes FIRST-LAST/TOTAL"
bool store_s3_content_range(const char *text, int64_t *first, int64_t *last, int64_t *total);
const char *store_s3_sum_header(const struct s3_store *s);
void store_s3_op_checksum(struct s3_op *op, const struct s3_vendor *v, uint32_t crc); // adds its header
void store_s3_op_fini(struct s3_op *op);                                              // frees the reply

// ---- replies that are no success (store_s3_error.c): what it means and what to do about it, in op->err.
// Returns its code: UNAVAILABLE, TIMEOUT and PEER as `accept` does, any other is final.
int store_s3_judge(struct s3_op *op);
// Is the body of this 2xx an <Error>? Then as above, into e; else 0.
int store_s3_error_in_body(struct s3_op *op, struct err *e) ERR_CHECK;

bool store_s3_url_decode(char *text); // as a listing encodes keys, in place; false: it is no such encoding

// ---- XML. Calls `each` when an element ends, with its path ("Result/Contents/Key") and text; stops at its
// first error. A DOCTYPE, more than 16 levels or more than 8 KiB of text in one element are refused.
typedef int store_s3_xml_fn(void *arg, const char *path, const char *text, struct err *e);
int store_s3_xml(const struct buf *text, store_s3_xml_fn *each, void *arg, struct err *e) ERR_CHECK;

// ---- the other files' operations.
int store_s3_list(struct store *s, const char *prefix, const char *delimiter, store_page_fn *page, void *arg,
                  struct err *e);
int store_s3_sweep(struct store *s, bool (*mine)(void *arg, const char *key), void *arg, size_t *removed,
                   struct err *e);
int store_s3_writer_open(struct store *s, struct store_writer **out, const char *key, struct err *e);
int store_s3_put_large(struct store *s, const char *key, const void *data, size_t bytes, struct err *e);
int store_s3_probe(struct store *s, struct store_caps *out, struct err *e);
int store_s3_put_file(struct store *s, const char *key, int fd, int64_t bytes, struct store_transfer *t,
                      struct err *e);

#endif
