// SPDX-License-Identifier: Apache-2.0
// Whole files from and to a store. A file that is fetched grows under another name, with a table of the parts
// that are there, and their CRC32C, behind its end; so a transfer that broke off, or was killed, is gone on
// with, and what lies there is checked before it counts.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/hash.h"
#include "storage/store_backend.h"

#define FIRST_PART  ((int64_t)8 << 20) // asked for before the object's size is known
#define SMALL_PART  ((int64_t)2 << 20)
#define LARGE_PART  ((int64_t)8 << 20)
#define PARTS_LEAST 32 // of an object whose parts are larger than the first
#define FETCH_SLOTS 16
#define BLOCK       ((size_t)256 << 10) // read at once: stays in the cache
#define TABLE_HEAD  192
#define TABLE_ROW   9 // eight digits and a line feed
#define PART_SUFFIX ".orrery-part"

static int io_error(struct err *e, const char *what, const char *path) {
    return err_errno(e, errno, "%s %s", what, path);
}

static int read_at(int fd, void *into, size_t n, int64_t at, const char *path, struct err *e) {
    char *to = into;
    while (n) {
        ssize_t got = pread(fd, to, n, at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return io_error(e, "cannot read", path);
        if (!got) return err_set(e, ERR_DATA, "%s became shorter while it was read", path);
        to += got;
        at += got;
        n -= (size_t)got;
    }
    return 0;
}

static int write_at(int fd, const void *data, size_t n, int64_t at, const char *path, struct err *e) {
    const char *from = data;
    while (n) {
        ssize_t put = pwrite(fd, from, n, at);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return io_error(e, "cannot write", path);
        from += put;
        at += put;
        n -= (size_t)put;
    }
    return 0;
}

static void tell(const struct store_transfer *t, size_t bytes) {
    if (t->moved) t->moved(t->arg, (int64_t)bytes);
}

// ---- the MD5 of what came, as S3 makes ETags: of the whole, or of the MD5s of its parts, "-" and their
// number.

struct tag {
    struct hash_md5 *inner, *outer; // NULL: the ETag is no such thing
    int64_t part, left;             // bytes of a part; what the one under way lacks
    int parts;                      // 0: uploaded in one piece
    char want[33];
};

static bool tag_parse(struct tag *g, const char *etag) {
    int end = 0;
    if (sscanf(etag, "\"%32[0-9a-f]\"%n", g->want, &end) == 1 && end == 34 && !etag[end]) return true;
    end = 0;
    return sscanf(etag, "\"%32[0-9a-f]-%5d\"%n", g->want, &g->parts, &end) == 2 && end > 34 && !etag[end] &&
           strlen(g->want) == 32 && g->parts > 0;
}

// The part size is not told. Ours, and those of common programs, that fit the number of parts.
static int64_t guess_part(int64_t bytes, int parts) {
    static const int mebibytes[] = {8, 16, 32, 64, 128, 256, 512, 5, 10, 15, 20, 25, 50, 100};
    for (size_t i = 0; i < sizeof mebibytes / sizeof *mebibytes; i++) {
        int64_t part = (int64_t)mebibytes[i] << 20;
        if ((bytes + part - 1) / part == parts) return part;
    }
    return 0;
}

static void tag_init(struct tag *g, const struct store_result *object) {
    memset(g, 0, sizeof *g);
    if (object->opaque || !tag_parse(g, object->etag)) return;
    g->part = g->parts ? guess_part(object->object_bytes, g->parts) : INT64_MAX;
    g->left = g->part;
    if (!g->part) return;
    g->inner = hash_md5_create();
    g->outer = hash_md5_create();
}

static void end_part(struct tag *g) {
    unsigned char digest[16];
    hash_md5_end(g->inner, digest);
    hash_md5_update(g->outer, digest, sizeof digest);
    g->left = g->part;
}

static void tag_update(struct tag *g, const char *data, size_t n) {
    if (!g->inner || !g->outer) return;
    while (n) {
        size_t take = (int64_t)n < g->left ? n : (size_t)g->left;
        hash_md5_update(g->inner, data, take);
        data += take;
        n -= take;
        g->left -= (int64_t)take;
        if (!g->left) end_part(g);
    }
}

// A guessed part size that does not give the ETag proves nothing.
static int tag_check(struct tag *g, bool *verified, struct err *e) {
    unsigned char digest[16];
    char hex[33];
    if (!g->inner || !g->outer) return 0;
    if (g->parts && g->left != g->part) end_part(g);
    hash_md5_end(g->parts ? g->outer : g->inner, digest);
    bytes_hex(digest, sizeof digest, hex);
    *verified = !strcmp(hex, g->want);
    if (*verified || g->parts) return 0;
    return err_set(
        e, ERR_DATA,
        "what came has MD5 %s, but its ETag is %s: it was damaged on its way, or the server's ETags "
        "are no MD5 (then: --no-verify)",
        hex, g->want);
}

static void tag_fini(struct tag *g) {
    hash_md5_destroy(g->inner);
    hash_md5_destroy(g->outer);
}

// ---- what is known of an object's content: the CRC32C that its sender left beside it, else its ETag.

struct proof {
    struct tag tag;
    uint32_t want, crc;
    bool summed;
};

static void proof_init(struct proof *p, const struct store_result *object) {
    int end = 0;
    memset(p, 0, sizeof *p);
    p->summed = sscanf(object->sum, "%8" SCNx32 "%n", &p->want, &end) == 1 && end == 8 && !object->sum[8];
    if (!p->summed) tag_init(&p->tag, object);
}

static int proof_check(struct proof *p, bool *verified, struct err *e) {
    if (!p->summed) return tag_check(&p->tag, verified, e);
    *verified = p->crc == p->want;
    if (*verified) return 0;
    return err_set(e, ERR_DATA, "what came has CRC32C %08" PRIx32 ", what was sent had %08" PRIx32, p->crc,
                   p->want);
}

// ---- fetching. Each part goes straight into the file as it comes, summed while it is in the cache.

struct fetch;

struct fetch_slot {
    struct fetch *f;
    int64_t part;
    uint32_t crc; // of what came of it
    struct store_request *request;
};

struct fetch {
    struct store *s;
    const char *key;
    struct store_transfer *t;
    struct store_result object;
    struct proof proof;
    char *path; // of the growing file
    int fd;
    bool fresh;                   // nothing lies there from an earlier transfer
    int64_t part, parts, started; // bytes of each part but the first; their number
    int width;
    char *block; // BLOCK bytes, for what is read back
    uint32_t *crcs;
    bool *have; // by part: lay there at the start
    // What the first part's reply says, for whoever waits to ask for the others.
    pthread_mutex_t lock;
    pthread_cond_t told;
    bool known;
    struct fetch_slot slots[FETCH_SLOTS];
};

// Each part costs the server a look-up; many small ones are soon under way side by side.
static int64_t part_bytes(int64_t object_bytes) {
    int64_t part = SMALL_PART;
    while (part < LARGE_PART && object_bytes / part >= PARTS_LEAST) part *= 2;
    return part;
}

static int64_t offset_of(const struct fetch *f, int64_t i) {
    return i ? FIRST_PART + (i - 1) * f->part : 0;
}

static size_t size_of(const struct fetch *f, int64_t i) {
    int64_t left = f->object.object_bytes - offset_of(f, i), most = i ? f->part : FIRST_PART;
    return (size_t)(left < most ? left : most);
}

static int64_t parts_of(const struct fetch *f) {
    int64_t rest = f->object.object_bytes - FIRST_PART;
    return rest > 0 ? 1 + (rest + f->part - 1) / f->part : f->object.object_bytes > 0;
}

static struct fetch_slot *slot_of(struct fetch *f, int64_t i) {
    return &f->slots[i % f->width];
}

static int64_t row_at(const struct fetch *f, int64_t i) {
    return f->object.object_bytes + TABLE_HEAD + i * TABLE_ROW;
}

static void table_head(const struct fetch *f, char out[TABLE_HEAD]) {
    memset(out, 0, TABLE_HEAD);
    snprintf(out, TABLE_HEAD, "orrery part file 2: %" PRId64 " bytes in parts of %" PRId64 ", ETag %s\n",
             f->object.object_bytes, f->part, f->object.etag);
}

// Takes over what an earlier transfer of this very object left; anything else is cut off.
static int read_table(struct fetch *f, struct err *e) {
    char want[TABLE_HEAD], got[TABLE_HEAD], row[TABLE_ROW + 1] = {0};
    struct stat st;
    table_head(f, want);
    if (fstat(f->fd, &st)) return io_error(e, "cannot look at", f->path);
    bool same = !f->fresh && f->object.etag[0] && st.st_size == row_at(f, f->parts) &&
                !read_at(f->fd, got, sizeof got, f->object.object_bytes, f->path, NULL) &&
                !memcmp(want, got, sizeof got);
    if (!same && ((!f->fresh && ftruncate(f->fd, 0)) || ftruncate(f->fd, row_at(f, f->parts))))
        return io_error(e, "cannot make room for", f->path);
    if (!same) return write_at(f->fd, want, sizeof want, f->object.object_bytes, f->path, e);
    for (int64_t i = 0; i < f->parts; i++) {
        int end = 0;
        if (read_at(f->fd, row, TABLE_ROW, row_at(f, i), f->path, NULL)) continue;
        f->have[i] = sscanf(row, "%8" SCNx32 "%n", &f->crcs[i], &end) == 1 && end == 8;
    }
    return 0;
}

static int take(void *arg, size_t at, const void *data, size_t n, struct err *e) {
    struct fetch_slot *p = arg;
    const struct fetch *f = p->f;
    p->crc = hash_crc32c(at ? p->crc : 0, data, n);
    return write_at(f->fd, data, n, offset_of(f, p->part) + (int64_t)at, f->path, e);
}

static int start(struct fetch *f, struct store_call *c, int64_t i, struct err *e) {
    struct fetch_slot *p = slot_of(f, i);
    p->f = f;
    p->part = i;
    p->crc = 0;
    c->op = STORE_GET;
    c->key = f->key;
    c->capacity = (size_t)c->length;
    c->deadline_ms = f->s->deadline_ms * ((c->length + SMALL_PART - 1) / SMALL_PART);
    c->take = take;
    c->take_arg = p;
    return store_start(f->s, &p->request, c, e);
}

static int start_part(struct fetch *f, int64_t i, struct err *e) {
    struct store_call c = {.offset = offset_of(f, i), .length = (int64_t)size_of(f, i)};
    return start(f, &c, i, e);
}

static int start_parts(struct fetch *f, int64_t before, struct err *e) {
    int rc = 0;
    for (; !rc && f->started < f->parts && f->started < before; f->started += !rc)
        if (!f->have[f->started]) rc = start_part(f, f->started, e);
    return rc;
}

static struct store_request *take_request(struct fetch *f, int64_t i) {
    struct store_request *r = slot_of(f, i)->request;
    slot_of(f, i)->request = NULL;
    return r;
}

static int wait_part(struct fetch *f, int64_t i, struct err *e) {
    struct store_result got;
    int rc = store_wait(f->s, take_request(f, i), &got, e);
    if (rc) return rc;
    if (got.bytes != size_of(f, i) || strcmp(got.etag, f->object.etag))
        return err_set(e, ERR_DATA, "%s: GET '%s': the object changed while it was read", f->s->url, f->key);
    return 0;
}

static int keep_part(struct fetch *f, int64_t i, struct err *e) {
    char row[TABLE_ROW + 1];
    f->crcs[i] = slot_of(f, i)->crc;
    snprintf(row, sizeof row, "%08" PRIx32 "\n", f->crcs[i]);
    return write_at(f->fd, row, TABLE_ROW, row_at(f, i), f->path, e);
}

// Reads a part back, to `each` block by block.
static int read_back(struct fetch *f, int64_t i, void (*each)(void *arg, const char *data, size_t n),
                     void *arg, struct err *e) {
    size_t size = size_of(f, i);
    int rc = 0;
    for (size_t at = 0; at < size && !rc; at += BLOCK) {
        size_t n = size - at < BLOCK ? size - at : BLOCK;
        rc = read_at(f->fd, f->block, n, offset_of(f, i) + (int64_t)at, f->path, e);
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
    if (!f->have[i] || read_back(f, i, add_sum, &crc, NULL) || crc != f->crcs[i]) return false;
    f->t->resumed_bytes += (int64_t)size_of(f, i);
    return true;
}

static void add_tag(void *arg, const char *data, size_t n) {
    tag_update(arg, data, n);
}

// The parts' sums join to the object's; an MD5 needs the bytes in their order.
static int prove_part(struct fetch *f, int64_t i, struct err *e) {
    if (!f->proof.summed) return f->proof.tag.inner ? read_back(f, i, add_tag, &f->proof.tag, e) : 0;
    f->proof.crc = hash_crc32c_join(f->proof.crc, f->crcs[i], size_of(f, i));
    return 0;
}

static int fetch_part(struct fetch *f, int64_t i, struct err *e) {
    int rc = 0;
    if (!lies_there(f, i)) {
        rc = f->have[i] ? start_part(f, i, e) : 0;
        if (!rc) rc = wait_part(f, i, e);
        if (!rc) rc = keep_part(f, i, e);
    }
    if (!rc && f->t->verify) rc = prove_part(f, i, e);
    if (!rc) tell(f->t, size_of(f, i));
    return rc;
}

static int fetch_parts(struct fetch *f, struct err *e) {
    int rc = 0;
    for (int64_t i = 0; i < f->parts && !rc; i++) {
        rc = start_parts(f, i + f->width, e);
        if (!rc) rc = fetch_part(f, i, e);
    }
    return rc;
}

// They refer to what is on our stack.
static void end_requests(struct fetch *f) {
    for (int i = 0; i < FETCH_SLOTS; i++)
        if (f->slots[i].request && store_wait(f->s, f->slots[i].request, NULL, NULL)) continue;
}

static int fetch_open(struct fetch *f, const char *path, struct err *e) {
    struct stat st;
    if (asprintf(&f->path, "%s" PART_SUFFIX, path) < 0) f->path = NULL;
    if (!f->path) return err_set(e, ERR_MEMORY, "no memory for a path");
    f->fd = open(f->path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (f->fd < 0) return io_error(e, "cannot write", f->path);
    if (flock(f->fd, LOCK_EX | LOCK_NB))
        return err_set(e, ERR_CONFLICT, "%s is being written by another process", f->path);
    if (fstat(f->fd, &st)) return io_error(e, "cannot look at", f->path);
    f->fresh = !st.st_size || !f->t->resume;
    if (f->fresh && ftruncate(f->fd, 0)) return io_error(e, "cannot make room for", f->path);
    f->block = malloc(BLOCK);
    return f->block ? 0 : err_set(e, ERR_MEMORY, "no memory to fetch '%s'", f->key);
}

static void on_known(void *arg, const struct store_result *object) {
    struct fetch *f = ((struct fetch_slot *)arg)->f;
    pthread_mutex_lock(&f->lock);
    if (object && !f->known) f->object = *object;
    f->known = true;
    pthread_cond_signal(&f->told);
    pthread_mutex_unlock(&f->lock);
}

static int64_t wait_known(struct fetch *f) {
    pthread_mutex_lock(&f->lock);
    while (!f->known) pthread_cond_wait(&f->told, &f->lock);
    int64_t bytes = f->object.object_bytes;
    pthread_mutex_unlock(&f->lock);
    return bytes;
}

// What the object is: from the first part's reply where there is nothing to go on with, so that a small one
// costs one request, and the other parts of a large one are asked for while the first is on its way.
static int fetch_first(struct fetch *f, struct err *e) {
    struct store_call c = {.length = FIRST_PART, .known = on_known};
    if (!f->fresh) return store_head(f->s, f->key, &f->object, e);
    f->width = 1;
    f->object.object_bytes = -1;
    int rc = start(f, &c, 0, e);
    if (!rc && wait_known(f) < 0) rc = store_wait(f->s, take_request(f, 0), NULL, e);
    if (rc) (void)unlink(f->path);
    return rc;
}

static int fetch_plan(struct fetch *f, struct err *e) {
    f->part = part_bytes(f->object.object_bytes);
    f->parts = parts_of(f);
    f->width = f->s->connections < FETCH_SLOTS ? f->s->connections : FETCH_SLOTS;
    if (f->parts < f->width) f->width = f->parts ? (int)f->parts : 1;
    f->crcs = calloc((size_t)f->parts + 1, sizeof *f->crcs);
    f->have = calloc((size_t)f->parts + 1, sizeof *f->have);
    if (!f->crcs || !f->have) return err_set(e, ERR_MEMORY, "no memory to fetch '%s'", f->key);
    proof_init(&f->proof, &f->object);
    if (f->t->sized) f->t->sized(f->t->arg, f->object.object_bytes);
    f->started = f->fresh && f->parts;
    return read_table(f, e);
}

static int fetch_end(struct fetch *f, const char *path, struct err *e) {
    int rc = f->t->verify ? proof_check(&f->proof, &f->t->verified, e) : 0;
    if (rc) {
        (void)unlink(f->path); // nothing of it can be trusted
        return err_prefix(e, "%s: GET '%s'", f->s->url, f->key);
    }
    if (ftruncate(f->fd, f->object.object_bytes)) return io_error(e, "cannot cut", f->path);
    return rename(f->path, path) ? io_error(e, "cannot make", path) : 0;
}

int store_get_file(struct store *s, const char *key, const char *path, struct store_transfer *t,
                   struct err *e) {
    struct fetch f = {.s = s, .key = key, .t = t, .fd = -1};
    t->bytes = t->resumed_bytes = 0;
    t->verified = false;
    pthread_mutex_init(&f.lock, NULL);
    pthread_cond_init(&f.told, NULL);
    int rc = fetch_open(&f, path, e);
    if (!rc) rc = fetch_first(&f, e);
    if (!rc) rc = fetch_plan(&f, e);
    if (!rc) rc = fetch_parts(&f, e);
    end_requests(&f);
    if (!rc) rc = fetch_end(&f, path, e);
    if (!rc) t->bytes = f.object.object_bytes;
    pthread_cond_destroy(&f.told);
    pthread_mutex_destroy(&f.lock);
    tag_fini(&f.proof.tag);
    if (f.fd >= 0) close(f.fd);
    free(f.path);
    free(f.block);
    free(f.crcs);
    free(f.have);
    return rc;
}

// ---- sending.

static int put_at_once(struct store *s, const char *key, int fd, size_t bytes, struct store_transfer *t,
                       const char *path, struct err *e) {
    char *data = malloc(bytes + !bytes);
    if (!data) return err_set(e, ERR_MEMORY, "no memory to send %s", path);
    int rc = read_at(fd, data, bytes, 0, path, e);
    if (!rc) rc = store_put(s, key, data, bytes, false, e);
    if (!rc && t->verify) snprintf(t->sum, sizeof t->sum, "%08" PRIx32, hash_crc32c(0, data, bytes));
    if (!rc) tell(t, bytes);
    free(data);
    return rc;
}

static int put_through_writer(struct store *s, const char *key, int fd, int64_t bytes,
                              struct store_transfer *t, const char *path, struct err *e) {
    struct store_writer *w = NULL;
    size_t block = (size_t)1 << 20;
    char *data = malloc(block);
    if (!data) return err_set(e, ERR_MEMORY, "no memory to send %s", path);
    int rc = store_writer_open(s, &w, key, e);
    for (int64_t at = 0; at < bytes && !rc;) {
        size_t n = bytes - at < (int64_t)block ? (size_t)(bytes - at) : block;
        rc = read_at(fd, data, n, at, path, e);
        if (!rc) rc = store_writer_write(w, data, n, e);
        if (!rc) tell(t, n);
        at += (int64_t)n;
    }
    if (rc)
        store_writer_abort(w);
    else
        rc = store_writer_commit(w, e);
    free(data);
    return rc;
}

int store_put_file(struct store *s, const char *key, const char *path, struct store_transfer *t,
                   struct err *e) {
    struct stat st;
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
    t->bytes = t->resumed_bytes = 0;
    t->verified = false;
    t->sum[0] = 0;
    if (fd < 0) return io_error(e, "cannot read", path);
    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        rc = err_set(e, ERR_USAGE, "%s is no plain file", path);
    else if (s->ops->put_file)
        rc = s->ops->put_file(s, key, fd, st.st_size, t, e);
    else if (st.st_size > 2 * (int64_t)STORE_PART_BYTES)
        rc = put_through_writer(s, key, fd, st.st_size, t, path, e);
    else
        rc = put_at_once(s, key, fd, (size_t)st.st_size, t, path, e);
    if (!rc) {
        t->bytes = st.st_size;
        t->verified = t->verify && s->ops->put_file;
    }
    close(fd);
    return rc;
}
