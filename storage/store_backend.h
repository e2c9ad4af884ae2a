// SPDX-License-Identifier: Apache-2.0
// What a back end of store.h implements, and what store.c gives it. Only store*.c includes this.
// A back end either starts requests itself (start: s3) or performs one blocking call at a time (perform: the
// others), which store.c runs on a small pool of threads when the caller wants it asynchronous.
#ifndef ORRERY_STORAGE_STORE_BACKEND_H
#define ORRERY_STORAGE_STORE_BACKEND_H

#include <pthread.h>

#include "storage/store.h"

#define STORE_PART_BYTES ((size_t)8 << 20) // of a multipart upload and of parallel ranged GETs
#define STORE_KEY_MAX    1024              // as S3 has it
#define STORE_LIST_MAX   4000000           // keys of one listing: a bound on memory, not a feature
#define STORE_PAGE       1000              // keys of a page, as S3 has it

struct store_object {
    char *key; // relative to the store; owned by whoever owns the listing
    int64_t bytes;
    char etag[72]; // empty where the store has none
};

struct store_listing {
    struct store_object *objects; // sorted by key, bytewise
    size_t n;
    char **prefixes; // common prefixes when a delimiter was asked for
    size_t n_prefixes;
};

void store_listing_fini(struct store_listing *l);

// Takes what the listing holds, and leaves it empty. Positive: enough.
typedef int store_page_fn(void *arg, struct store_listing *page, struct err *e);

struct store_ops {
    void (*close)(struct store *s);
    // Exactly one of start and perform. A started request ends with store_finish, from any thread.
    int (*start)(struct store *s, struct store_request *r, struct err *e);
    int (*perform)(struct store *s, const struct store_call *c, struct store_result *out, struct err *e);
    // Hands over every key with this prefix, page by page: those of a page in any order, all of them behind
    // those of the page before. A back end that groups by delimiter itself adds prefixes too; store_list.c
    // groups what is left.
    int (*list)(struct store *s, const char *prefix, const char *delimiter, store_page_fn *page, void *arg,
                struct err *e);
    int (*writer_open)(struct store *s, struct store_writer **out, const char *key, struct err *e);
    // Optional: see store_sweep. ABSENT: this store does not do it.
    int (*sweep)(struct store *s, bool (*mine)(void *arg, const char *key), void *arg, size_t *removed,
                 struct err *e);
    // Optional: a faster way to put a large object (parts in parallel).
    int (*put_large)(struct store *s, const char *key, const void *data, size_t bytes, struct err *e);
    int (*probe)(struct store *s, struct store_caps *out, struct err *e); // optional: all is honoured
    // Optional: a file of `bytes`, more than two parts of it, that an earlier process may have sent a part
    // of.
    int (*put_file)(struct store *s, const char *key, int fd, int64_t bytes, struct store_transfer *t,
                    struct err *e);
};

// First member of every back end's own struct.
struct store {
    const struct store_ops *ops;
    char *url;
    int64_t deadline_ms;
    int connections;
    uint64_t
        jitter; // seed of the backoff: differs from process to process, or all ranks would come back together
    pthread_mutex_t lock;    // guards `done` of this store's requests
    struct store_pool *pool; // of a blocking back end, made by the first store_start
    struct err sweep_flaw;   // why there are no sweeps here, guarded by the lock
    bool sweep_flaw_told;
};

struct store_request {
    struct store *store;
    struct store_call call;
    struct store_result result;
    struct err err;
    int status;
    bool done;
    pthread_cond_t finished;    // its waiter's own: one reply wakes one thread
    bool doubtful;              // it may have been carried out before the attempt that status is of
    struct store_request *next; // in the pool's queue
};

struct store_writer_ops {
    int (*write)(struct store_writer *w, const void *data, size_t bytes, struct err *e);
    int (*commit)(struct store_writer *w, struct err *e); // does not free
    void (*abort)(struct store_writer *w);                // does not free; also called after a failed commit
    void (*destroy)(struct store_writer *w);
};

// First member of every back end's own writer.
struct store_writer {
    const struct store_writer_ops *ops;
    bool failed;
};

// ---- for back ends.
int store_init(struct store *s, const struct store_ops *ops, const char *url,
               const struct store_options *options, struct err *e) ERR_CHECK;
void store_fini(struct store *s); // ends the pool first
void store_finish(struct store_request *r, int status);
// Runs one call in this thread.
int store_perform(struct store *s, const struct store_call *c, struct store_result *out,
                  struct err *e) ERR_CHECK;
// One call, start to end.
int store_call_blocking(struct store *s, const struct store_call *c, struct store_result *out,
                        struct err *e) ERR_CHECK;
int store_listing_add(struct store_listing *l, const char *key, int64_t bytes, const char *etag,
                      struct err *e) ERR_CHECK;
int store_listing_add_prefix(struct store_listing *l, const char *prefix, struct err *e) ERR_CHECK;
// Checks a GET's range against the object's size: how many bytes to hand over, or DATA.
int store_clip_range(const struct store_call *c, int64_t object_bytes, size_t *out, struct err *e) ERR_CHECK;
// A create-only PUT whose earlier attempt may have been carried out met CONFLICT: is what lies there ours?
bool store_holds(struct store *s, const char *key, const void *data, size_t bytes);

// When (clock_monotonic_ns) to make attempt + 1, at least least_ms from now; 0: the deadline is too near.
int64_t store_retry_ns(uint64_t jitter, uint64_t request, int attempt, int64_t least_ms, int64_t deadline_ns);
bool store_transient(int rc); // worth another attempt: UNAVAILABLE, TIMEOUT, PEER

// ---- the pool (store_pool.c).
int store_pool_create(struct store_pool **out, int threads, struct err *e) ERR_CHECK;
void store_pool_destroy(struct store_pool *p); // finishes what is queued; NULL-safe
void store_pool_submit(struct store_pool *p, struct store_request *r);

// ---- the registry: one row per scheme in store.c.
// "///dir" or "//localhost/dir" (RFC 8089), or a path: the path, maybe empty. NULL: another host's.
const char *store_posix_path(const char *rest);
int store_posix_open(struct store **out, const char *rest, const struct store_options *options,
                     struct err *e) ERR_CHECK;
int store_mem_open(struct store **out, const char *rest, const struct store_options *options,
                   struct err *e) ERR_CHECK;
int store_fault_open(struct store **out, const char *rest, const struct store_options *options,
                     struct err *e) ERR_CHECK;
int store_s3_open(struct store **out, const char *rest, const struct store_options *options,
                  struct err *e) ERR_CHECK;

#endif
