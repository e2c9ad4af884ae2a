// SPDX-License-Identifier: Apache-2.0
// Object stores behind one vtable: file:, s3:, mem:, and fault: around any of them. Every operation is
// asynchronous with a completion handle; the blocking wrappers below are built on it. Keys are relative to
// the URL that was opened. Thread rule: a store may be used from any thread; one request is waited for by one
// thread. No curl, OpenSSL or expat type appears here.
#ifndef ORRERY_STORAGE_STORE_H
#define ORRERY_STORAGE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

struct store;

struct store_options {
    const char *endpoint; // s3; NULL or "": AWS_ENDPOINT_URL, else AWS
    const char *region;   // NULL or "": AWS_REGION, else us-east-1
    bool path_style;
    int64_t deadline_ms; // for one operation with its retries; 0: 60000
    int connections;     // 0: 16
    uint64_t seed;       // of the backoff's jitter and of fault:
    // s3: "signed" hashes every body into its signature (SHA-256), "unsigned" leaves that to the transport;
    // NULL, "" or "auto": ORRERY_STORE_PAYLOAD, else unsigned over TLS and to this very machine, else signed.
    const char *payload;
    const char *
        vendor; // s3: aws, oss, r2, gcs, rgw, minio, other; NULL or "": ORRERY_STORE_VENDOR, else by the host
};

// "file:///dir", "s3://bucket/prefix", "mem:name", "fault:spec:URL", or a plain path (a file: store).
int store_open(struct store **out, const char *url, const struct store_options *options,
               struct err *e) ERR_CHECK;
void store_close(struct store *s); // NULL-safe; waits for what is under way
const char *store_url(const struct store *s);

// What a URL says before anything is opened; none of these asks the file system or a network.
bool store_has_scheme(const char *text);       // "s3:...", or any "word://...": no mere path
bool store_is_remote(const char *url);         // over a network, or, as fault: is, made as bad as one
const char *store_local_path(const char *url); // of the folder it names; borrows from url. NULL: none

// ---- asynchronous. The caller keeps key and memory until store_wait, which frees the request.
struct store_request;
enum store_op { STORE_GET, STORE_PUT, STORE_HEAD, STORE_DELETE };
struct store_result {
    size_t bytes;         // GET: received
    int64_t object_bytes; // GET, HEAD: the whole object
    char etag[72];
    bool opaque;  // the ETag is no checksum of the content (KMS encryption)
    char sum[12]; // CRC32C of the content that its sender left, eight hex digits; "": none
};
struct store_call {
    enum store_op op;
    const char *key;
    int64_t offset, length; // GET: range; length -1: to the end
    void *into;             // GET: caller memory of `capacity` bytes
    size_t capacity;
    // GET: instead of `into`, `capacity` still being the most: given the bytes as they come, the first of the
    // range being at 0, on any thread. An attempt that broke off is followed by one that begins at the last
    // multiple of `step` that was taken, or, with a step of 0, at 0 again; what was taken counts once the
    // request has succeeded. An error ends the request.
    int (*take)(void *take_arg, size_t at, const void *data, size_t n, struct err *e);
    void *take_arg;
    size_t step; // of a range whose length is given
    // Beside `take`, NULL: not asked. Told what the object is as soon as that is known, of every attempt, on
    // any thread; at the latest when the request ends, then with NULL if it failed.
    void (*known)(void *take_arg, const struct store_result *object);
    const void *data; // PUT
    size_t bytes;
    bool create_only;    // PUT: CONFLICT when the key exists
    int64_t deadline_ms; // 0: the store's; with a step, of each that is taken
};
int store_start(struct store *s, struct store_request **out, const struct store_call *call,
                struct err *e) ERR_CHECK;
int store_wait(struct store *s, struct store_request *r, struct store_result *result,
               struct err *e) ERR_CHECK;

// Bytes whose checksum is wrong may have been spoilt on their way: so many reads before they count as
// damaged.
#define STORE_READS_MAX 5

// ---- blocking.
// Exactly `length` bytes into `into`, or DATA.
int store_get_range(struct store *s, const char *key, int64_t offset, size_t length, void *into,
                    struct err *e) ERR_CHECK;
// The same of an object that is read piece by piece: DATA where it is no longer the one that store_head told
// of.
int store_get_range_of(struct store *s, const char *key, const struct store_result *object, int64_t offset,
                       size_t length, void *into, struct err *e) ERR_CHECK;
// The whole object, at most max_bytes, appended to out.
int store_get(struct store *s, const char *key, size_t max_bytes, struct buf *out, struct err *e) ERR_CHECK;
int store_put(struct store *s, const char *key, const void *data, size_t bytes, bool create_only,
              struct err *e) ERR_CHECK;
int store_head(struct store *s, const char *key, struct store_result *out,
               struct err *e) ERR_CHECK;                                     // MISSING
int store_delete(struct store *s, const char *key, struct err *e) ERR_CHECK; // a missing key is no error
// Calls `each` for key after key below a prefix, sorted bytewise with the common prefixes (where there is a
// delimiter) among them, as pages come. Memory is a page's, however many keys there are. `each` may use the
// store, and delete what it was given. It returns 0 to go on, more when that was enough, or an error that is
// passed on. A key that comes into being meanwhile may be there or not.
struct store_entry { // borrowed for the call
    const char *key, *etag;
    int64_t bytes; // -1: a common prefix
};
typedef int store_each_fn(void *arg, const struct store_entry *entry, struct err *e);
int store_each(struct store *s, const char *prefix, const char *delimiter, store_each_fn *each, void *arg,
               struct err *e) ERR_CHECK;
// Removes uploads that killed writers have left unfinished: of those keys that `mine` says yes to. *removed
// (NULL: not asked) counts them. A file system knows no more of a key than its folder and asks for "FOLDER/",
// or "" for the root; it leaves alone what a living process is still writing. S3 asks for the key, and cannot
// tell whether its writer lives: `mine` must know. A store that has no list of uploads, or does not show it
// to us, is left as it is; store_sweep_flaw tells.
int store_sweep(struct store *s, bool (*mine)(void *arg, const char *key), void *arg, size_t *removed,
                struct err *e) ERR_CHECK;
// Once, after a sweep met it: why uploads cannot be swept here. False: nothing new.
bool store_sweep_flaw(struct store *s, struct err *why);

// A large object written front to back: parts on S3 (multipart above 8 MiB), a temporary file renamed at the
// end on a file system. Nothing is visible before commit; abort removes what was sent.
struct store_writer;
int store_writer_open(struct store *s, struct store_writer **out, const char *key, struct err *e) ERR_CHECK;
int store_writer_write(struct store_writer *w, const void *data, size_t bytes, struct err *e) ERR_CHECK;
int store_writer_commit(struct store_writer *w, struct err *e) ERR_CHECK; // frees w, also on failure
void store_writer_abort(struct store_writer *w);                          // frees w; NULL-safe

// ---- what the server honours, found out by trying with a small object beside the store's own, which is
// removed. Asked once per open store.
struct store_caps {
    const char *vendor;        // words: "Ceph RGW"; "file system"
    bool create_only;          // a PUT with that condition does not replace
    bool create_only_complete; // nor does the completion of a multipart upload
    bool checksum;             // a PUT with a wrong CRC32C is refused
};
int store_probe(struct store *s, struct store_caps *out, struct err *e) ERR_CHECK;

// ---- whole files of this machine, in parts, several under way at once. Both block.
struct store_transfer {
    bool resume; // go on where an earlier transfer that broke off stopped; what lies there is checked first
    bool verify; // put: leaves the CRC32C of the file beside the object; get: compares it, or the MD5 that
                 // the ETag is, with what came
    void (*sized)(void *arg, int64_t bytes); // get: of the object, once it is known; NULL: not
    void (*moved)(void *arg, int64_t bytes); // as bytes are done, on any thread; NULL: not
    void *arg;
    // Results.
    int64_t bytes, resumed_bytes;
    char sum[12];  // of the file
    bool verified; // put: the server checked a hash of every part
};
int store_put_file(struct store *s, const char *key, const char *path, struct store_transfer *t,
                   struct err *e) ERR_CHECK;
// Nothing stands at `path` before all of it is there: it grows as `path`.orrery-part, which a broken-off
// transfer leaves behind.
int store_get_file(struct store *s, const char *key, const char *path, struct store_transfer *t,
                   struct err *e) ERR_CHECK;

#endif
