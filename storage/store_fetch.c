// SPDX-License-Identifier: Apache-2.0
// Whole files from a store. A file that is fetched grows under another name, with a table of the pieces that
// are there, and their CRC32C, behind its end; so a transfer that broke off, or was killed, is gone on with,
// and what lies there is checked before it counts. What is asked for at once is a run of pieces: a request
// costs the server a look-up, so there are few; a piece is what is lost when one breaks off.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "storage/hash.h"
#include "storage/object_proof.h"
#include "storage/store_backend.h"

#define FIRST_PIECE  ((int64_t)8 << 20) // asked for before the object's size is known
#define SMALL_PIECE  ((int64_t)2 << 20)
#define LARGE_PIECE  ((int64_t)8 << 20)
#define PIECES_LEAST 32 // of an object whose pieces are larger than the smallest
#define RUN_MOST     ((int64_t)64 << 20)
#define FETCH_SLOTS  16
#define NEAR_SLOTS   4 // of a server that answers within NEAR_NS: there is no latency to hide
#define NEAR_NS      20000000
#define BLOCK        ((size_t)256 << 10) // read at once: stays in the cache
#define TABLE_HEAD   192
#define TABLE_ROW    9 // eight digits and a line feed
#define PART_SUFFIX  ".orrery-part"
#define OPEN_TRIES   16

static int io_error(struct err *e, const char *what, const char *path) {
    return err_errno(e, errno, "%s %s", what, path);
}

static int write_at(int fd, const void *data, size_t n, int64_t at, const char *path, struct err *e) {
    return bytes_pwrite_whole(fd, data, n, at) < n ? io_error(e, "cannot write", path) : 0;
}

// ---- what is under way. Each piece goes straight into the file as it comes, summed while it is in the
// cache.

struct fetch;

// A run of pieces that is asked for.
struct fetch_run {
    struct fetch *f;
    int64_t first, end; // pieces
    uint32_t crc;       // of what came of the piece under way
    struct store_request *request;
};

struct fetch {
    struct store *s;
    const char *key;
    struct store_transfer *t;
    struct store_result object;
    struct object_proof proof;
    char *path; // of the growing file
    int fd;
    bool fresh;            // nothing lies there from an earlier transfer
    int64_t piece, pieces; // bytes of each but the first; their number
    int64_t run;           // pieces of a run at most
    int width;             // runs under way at most
    char *block;           // BLOCK bytes, for what is read back
    uint32_t *crcs;        // by piece
    bool *have, *told;     // lay there at the start; counted as moved
    int64_t asked_ns, known_ns;
    // What the first run's reply says, for whoever waits to ask for the others.
    pthread_mutex_t lock;
    pthread_cond_t news;
    bool known;
    _Atomic bool stop; // what comes is not wanted any more
    int64_t next;      // piece that no run has yet
    uint64_t started, ended;
    struct fetch_run runs[FETCH_SLOTS], again; // a ring; one piece that has to be fetched after all
};

// Of a small object small ones, so that many are soon under way side by side.
static int64_t piece_bytes(int64_t object_bytes) {
    int64_t piece = SMALL_PIECE;
    while (piece < LARGE_PIECE && object_bytes / piece >= PIECES_LEAST) piece *= 2;
    return piece;
}

static int64_t offset_of(const struct fetch *f, int64_t i) {
    return i ? FIRST_PIECE + (i - 1) * f->piece : 0;
}

static size_t size_of(const struct fetch *f, int64_t i) {
    int64_t left = f->object.object_bytes - offset_of(f, i), most = i ? f->piece : FIRST_PIECE;
    return (size_t)(left < most ? left : most);
}

static int64_t pieces_of(const struct fetch *f) {
    int64_t rest = f->object.object_bytes - FIRST_PIECE;
    return rest > 0 ? 1 + (rest + f->piece - 1) / f->piece : f->object.object_bytes > 0;
}

static size_t run_bytes(const struct fetch *f, const struct fetch_run *r) {
    return (size_t)(offset_of(f, r->end - 1) - offset_of(f, r->first)) + size_of(f, r->end - 1);
}

// ---- the table.

static int64_t row_at(const struct fetch *f, int64_t i) {
    return f->object.object_bytes + TABLE_HEAD + i * TABLE_ROW;
}

static void table_head(const struct fetch *f, char out[TABLE_HEAD]) {
    memset(out, 0, TABLE_HEAD);
    snprintf(out, TABLE_HEAD, "orrery part file 2: %" PRId64 " bytes in parts of %" PRId64 ", ETag %s\n",
             f->object.object_bytes, f->piece, f->object.etag);
}

// Takes over what an earlier transfer of this very object left; anything else is cut off.
static int read_table(struct fetch *f, struct err *e) {
    char want[TABLE_HEAD], got[TABLE_HEAD], row[TABLE_ROW + 1] = {0};
    struct stat st;
    table_head(f, want);
    if (fstat(f->fd, &st)) return io_error(e, "cannot look at", f->path);
    bool same = !f->fresh && f->object.etag[0] && st.st_size == row_at(f, f->pieces) &&
                !bytes_read_at(f->fd, got, sizeof got, f->object.object_bytes, f->path, NULL) &&
                !memcmp(want, got, sizeof got);
    if (!same && ((!f->fresh && ftruncate(f->fd, 0)) || ftruncate(f->fd, row_at(f, f->pieces))))
        return io_error(e, "cannot make room for", f->path);
    if (!same) return write_at(f->fd, want, sizeof want, f->object.object_bytes, f->path, e);
    for (int64_t i = 0; i < f->pieces; i++) {
        int end = 0;
        if (bytes_read_at(f->fd, row, TABLE_ROW, row_at(f, i), f->path, NULL)) continue;
        f->have[i] = sscanf(row, "%8" SCNx32 "%n", &f->crcs[i], &end) == 1 && end == 8;
    }
    return 0;
}

// A later attempt may bring a piece a second time.
static void tell(struct fetch *f, int64_t i) {
    if (f->t->moved && !f->told[i]) f->t->moved(f->t->arg, (int64_t)size_of(f, i));
    f->told[i] = true;
}

static int keep_piece(struct fetch *f, int64_t i, uint32_t crc, struct err *e) {
    char row[TABLE_ROW + 1];
    f->crcs[i] = crc;
    snprintf(row, sizeof row, "%08" PRIx32 "\n", crc);
    int rc = write_at(f->fd, row, TABLE_ROW, row_at(f, i), f->path, e);
    if (!rc) tell(f, i);
    return rc;
}

// ---- runs.

// As far as the piece goes that byte `at` of the run belongs to. How large the first is, and where its row of
// the table is, is not yet known as it comes.
static int take_some(struct fetch_run *r, size_t at, const char *data, size_t n, size_t *taken,
                     struct err *e) {
    struct fetch *f = r->f;
    size_t within = r->first ? at % (size_t)f->piece : at, left = n;
    int64_t i = r->first ? r->first + (int64_t)(at / (size_t)f->piece) : 0;
    if (i) left = size_of(f, i) - within;
    *taken = n < left ? n : left;
    r->crc = hash_crc32c(within ? r->crc : 0, data, *taken);
    int rc = write_at(f->fd, data, *taken, offset_of(f, r->first) + (int64_t)at, f->path, e);
    return rc || !i || *taken < left ? rc : keep_piece(f, i, r->crc, e);
}

static int take(void *arg, size_t at, const void *data, size_t n, struct err *e) {
    struct fetch_run *r = arg;
    const char *from = data;
    int rc = atomic_load(&r->f->stop) ? err_set(e, ERR_IO, "given up") : 0;
    for (size_t taken; n && !rc; at += taken, from += taken, n -= taken)
        rc = take_some(r, at, from, n, &taken, e);
    return rc;
}

static int start(struct fetch *f, struct fetch_run *r, struct store_call *c, struct err *e) {
    r->f = f;
    r->crc = 0;
    c->op = STORE_GET;
    c->key = f->key;
    c->capacity = (size_t)c->length;
    int64_t least = c->step ? (int64_t)c->step : c->length; // that must come within the deadline
    c->deadline_ms = f->s->deadline_ms * ((least + SMALL_PIECE - 1) / SMALL_PIECE);
    c->take = take;
    c->take_arg = r;
    return store_start(f->s, &r->request, c, e);
}

static int start_run(struct fetch *f, struct fetch_run *r, int64_t first, int64_t end, struct err *e) {
    r->first = first;
    r->end = end;
    struct store_call c = {.offset = offset_of(f, first), .length = (int64_t)run_bytes(f, r)};
    if (first) c.step = (size_t)f->piece;
    return start(f, r, &c, e);
}

static struct fetch_run *run_of(struct fetch *f, uint64_t number) {
    return &f->runs[number % FETCH_SLOTS];
}

static int start_runs(struct fetch *f, struct err *e) {
    int rc = 0;
    while (!rc && f->started - f->ended < (uint64_t)f->width) {
        while (f->next < f->pieces && f->have[f->next]) f->next++;
        int64_t first = f->next, end = first;
        while (end < f->pieces && end - first < (first ? f->run : 1) && !f->have[end]) end++;
        if (end == first) break;
        rc = start_run(f, run_of(f, f->started), first, end, e);
        if (rc) break;
        f->started++;
        f->next = end;
    }
    return rc;
}

static int wait_run(struct fetch *f, struct fetch_run *r, struct err *e) {
    struct store_result got;
    struct store_request *request = r->request;
    r->request = NULL;
    int rc = store_wait(f->s, request, &got, e);
    if (!rc && (got.bytes != run_bytes(f, r) || strcmp(got.etag, f->object.etag)))
        rc = err_set(e, ERR_DATA, "%s: GET '%s': the object changed while it was read", f->s->url, f->key);
    return rc || r->first ? rc : keep_piece(f, 0, r->crc, e);
}

// ---- pieces.

// Reads a piece back, to `each` block by block.
static int read_back(struct fetch *f, int64_t i, void (*each)(void *arg, const char *data, size_t n),
                     void *arg, struct err *e) {
    size_t size = size_of(f, i);
    int rc = 0;
    for (size_t at = 0; at < size && !rc; at += BLOCK) {
        size_t n = size - at < BLOCK ? size - at : BLOCK;
        rc = bytes_read_at(f->fd, f->block, n, offset_of(f, i) + (int64_t)at, f->path, e);
        if (!rc) each(arg, f->block, n);
    }
    return rc;
}

static void add_sum(void *arg, const char *data, size_t n) {
    uint32_t *crc = arg;
    *crc = hash_crc32c(*crc, data, n);
}

static bool lies_there(struct fetch *f, int64_t i) {
    uint32_t crc = 0;
    if (read_back(f, i, add_sum, &crc, NULL) || crc != f->crcs[i]) return false;
    f->t->resumed_bytes += (int64_t)size_of(f, i);
    tell(f, i);
    return true;
}

static void add_bytes(void *arg, const char *data, size_t n) {
    object_proof_update(arg, data, n);
}

static int prove_piece(struct fetch *f, int64_t i, struct err *e) {
    if (!f->t->verify) return 0;
    if (object_proof_wants(&f->proof)) return read_back(f, i, add_bytes, &f->proof, e);
    object_proof_join(&f->proof, f->crcs[i], size_of(f, i));
    return 0;
}

// What lies there from an earlier transfer, or else is fetched alone; or the oldest run.
static int fetch_some(struct fetch *f, int64_t i, int64_t *end, struct err *e) {
    *end = i + 1;
    if (f->have[i]) {
        if (lies_there(f, i)) return 0;
        int rc = start_run(f, &f->again, i, i + 1, e);
        return rc ? rc : wait_run(f, &f->again, e);
    }
    struct fetch_run *r = run_of(f, f->ended);
    *end = r->end;
    int rc = wait_run(f, r, e);
    f->ended++;
    return rc;
}

static int fetch_pieces(struct fetch *f, struct err *e) {
    int rc = 0;
    for (int64_t i = 0, end; i < f->pieces && !rc;) {
        rc = start_runs(f, e);
        if (!rc) rc = fetch_some(f, i, &end, e);
        for (; !rc && i < end; i++) rc = prove_piece(f, i, e);
    }
    return rc;
}

// They refer to what is on our stack.
static void end_requests(struct fetch *f) {
    atomic_store(&f->stop, true);
    for (int i = 0; i <= FETCH_SLOTS; i++) {
        struct fetch_run *r = i < FETCH_SLOTS ? &f->runs[i] : &f->again;
        if (r->request && store_wait(f->s, r->request, NULL, NULL)) continue;
    }
}

// ---- begin and end.

// The growing file with its lock. Whoever had the lock before may have given the file its own name meanwhile:
// what we opened is then a finished file, and not ours to write.
static int open_part(struct fetch *f, struct stat *st, struct err *e) {
    struct stat named;
    for (int i = 0; i < OPEN_TRIES; i++) {
        f->fd = open(f->path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
        if (f->fd < 0) return io_error(e, "cannot write", f->path);
        if (flock(f->fd, LOCK_EX | LOCK_NB)) break;
        if (fstat(f->fd, st)) return io_error(e, "cannot look at", f->path);
        if (!lstat(f->path, &named) && named.st_dev == st->st_dev && named.st_ino == st->st_ino) return 0;
        close(f->fd);
        f->fd = -1;
    }
    return err_set(e, ERR_CONFLICT, "%s is being written by another process", f->path);
}

static int fetch_open(struct fetch *f, const char *path, struct err *e) {
    struct stat st;
    if (asprintf(&f->path, "%s" PART_SUFFIX, path) < 0) f->path = NULL;
    if (!f->path) return err_set(e, ERR_MEMORY, "no memory for a path");
    int rc = open_part(f, &st, e);
    if (rc) return rc;
    f->fresh = !st.st_size || !f->t->resume;
    if (f->fresh && ftruncate(f->fd, 0)) return io_error(e, "cannot make room for", f->path);
    f->block = malloc(BLOCK);
    return f->block ? 0 : err_set(e, ERR_MEMORY, "no memory to fetch '%s'", f->key);
}

static void on_known(void *arg, const struct store_result *object) {
    struct fetch *f = ((struct fetch_run *)arg)->f;
    pthread_mutex_lock(&f->lock);
    if (object && !f->known) f->object = *object;
    if (!f->known) f->known_ns = clock_monotonic_ns();
    f->known = true;
    pthread_cond_signal(&f->news);
    pthread_mutex_unlock(&f->lock);
}

static int64_t wait_known(struct fetch *f) {
    pthread_mutex_lock(&f->lock);
    while (!f->known) pthread_cond_wait(&f->news, &f->lock);
    int64_t bytes = f->object.object_bytes;
    pthread_mutex_unlock(&f->lock);
    return bytes;
}

static int look_up(struct fetch *f, struct err *e) {
    int rc = store_head(f->s, f->key, &f->object, e);
    f->known_ns = clock_monotonic_ns();
    return rc;
}

// What the object is: from the first piece's reply where there is nothing to go on with, so that a small one
// costs one request, and the other pieces of a large one are asked for while the first is on its way.
static int fetch_first(struct fetch *f, struct err *e) {
    struct store_call c = {.length = FIRST_PIECE, .known = on_known};
    struct fetch_run *r = run_of(f, f->started);
    f->asked_ns = clock_monotonic_ns();
    if (!f->fresh) return look_up(f, e);
    f->object.object_bytes = -1;
    r->end = 1;
    int rc = start(f, r, &c, e);
    if (!rc && wait_known(f) < 0) {
        rc = store_wait(f->s, r->request, NULL, e);
        r->request = NULL;
    }
    f->started += r->request != NULL;
    if (rc) (void)unlink(f->path);
    return rc;
}

// An MD5 needs the bytes in their order: then no run is longer than what can soon be read back.
static void plan_runs(struct fetch *f) {
    int64_t rest = f->pieces - 1, most = RUN_MOST / f->piece;
    bool near = f->known_ns - f->asked_ns < NEAR_NS, in_order = f->t->verify && object_proof_wants(&f->proof);
    f->width = near && !in_order ? NEAR_SLOTS : FETCH_SLOTS;
    if (f->s->connections < f->width) f->width = f->s->connections;
    f->run = (rest + f->width - 1) / f->width;
    if (f->run > most) f->run = most;
    if (f->run < 1 || in_order) f->run = 1;
}

static int fetch_plan(struct fetch *f, struct err *e) {
    f->piece = piece_bytes(f->object.object_bytes);
    f->pieces = pieces_of(f);
    f->crcs = calloc((size_t)f->pieces + 1, sizeof *f->crcs);
    f->have = calloc((size_t)f->pieces + 1, sizeof *f->have);
    f->told = calloc((size_t)f->pieces + 1, sizeof *f->told);
    if (!f->crcs || !f->have || !f->told) return err_set(e, ERR_MEMORY, "no memory to fetch '%s'", f->key);
    object_proof_init(&f->proof, &f->object);
    plan_runs(f);
    if (f->t->sized) f->t->sized(f->t->arg, f->object.object_bytes);
    f->next = f->started && f->pieces;
    return read_table(f, e);
}

static int fetch_end(struct fetch *f, const char *path, struct err *e) {
    int rc = f->t->verify ? object_proof_check(&f->proof, &f->t->verified, e) : 0;
    if (rc) {
        (void)unlink(f->path); // nothing of it can be trusted
        return err_prefix(e, "%s: GET '%s'", f->s->url, f->key);
    }
    if (ftruncate(f->fd, f->object.object_bytes)) return io_error(e, "cannot cut", f->path);
    if (fsync(f->fd)) return io_error(e, "cannot sync", f->path);
    if (rename(f->path, path)) return io_error(e, "cannot make", path);
    return bytes_sync_folder_of(path, e);
}

int store_get_file(struct store *s, const char *key, const char *path, struct store_transfer *t,
                   struct err *e) {
    struct fetch f = {.s = s, .key = key, .t = t, .fd = -1};
    t->bytes = t->resumed_bytes = 0;
    t->verified = false;
    pthread_mutex_init(&f.lock, NULL);
    pthread_cond_init(&f.news, NULL);
    int rc = fetch_open(&f, path, e);
    if (!rc) rc = fetch_first(&f, e);
    if (!rc) rc = fetch_plan(&f, e);
    if (!rc) rc = fetch_pieces(&f, e);
    end_requests(&f);
    if (!rc) rc = fetch_end(&f, path, e);
    if (!rc) t->bytes = f.object.object_bytes;
    pthread_cond_destroy(&f.news);
    pthread_mutex_destroy(&f.lock);
    object_proof_fini(&f.proof);
    if (f.fd >= 0) close(f.fd);
    free(f.path);
    free(f.block);
    free(f.crcs);
    free(f.have);
    free(f.told);
    return rc;
}
