// SPDX-License-Identifier: Apache-2.0
// Multipart uploads: a large object in parts, several under way at once. Nothing is visible before the
// completion.
#include "storage/store_s3_upload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "storage/hash.h"

#define WRITER_SLOTS      4 // parts of a writer in memory
#define LARGE_SLOTS       8
#define LARGE_PART_BYTES  ((size_t)64 << 20)
#define SIDE_BY_SIDE      4
#define GROW_EVERY        2500 // a writer does not know its length: its parts double so often, 280 GiB in all
#define ABORT_DEADLINE_MS 5000
#define COMPLETE_SLICE_MS 10000
#define LAST_SLICE_MS     100
#define LOCKED_MS_MAX     660000
#define COMPLETION_MAX    ((size_t)4 << 20)

// ---- create.

static int on_created_element(void *arg, const char *path, const char *text, struct err *e) {
    struct s3_upload *u = arg;
    if (strcmp(path, "InitiateMultipartUploadResult/UploadId")) return 0;
    if (strlen(text) >= sizeof u->id) return err_set(e, ERR_PEER, "an upload id of %zu bytes", strlen(text));
    memcpy(u->id, text, strlen(text) + 1);
    return 0;
}

static int accept_created(struct s3_op *op, struct err *e) {
    struct s3_upload *u = op->owner;
    int rc = store_s3_xml(&op->text, on_created_element, u, e);
    return !rc && !u->id[0] ? err_set(e, ERR_PEER, "a new upload without an id") : rc;
}

int store_s3_upload_create(struct s3_upload *u, struct err *e) {
    if (!u->etags) u->etags = calloc(S3_PARTS_MAX, sizeof *u->etags);
    if (!u->etags) return err_set(e, ERR_MEMORY, "no memory for an upload of '%s'", u->key);
    if (u->id[0]) return 0;
    struct s3_op op = {
        .verb = "CREATE UPLOAD", .method = "POST", .key = u->key, .accept = accept_created, .owner = u};
    op.query[op.n_query++] = (struct sigv4_field){"uploads", ""};
    if (u->sum) op.headers[op.n_headers++] = (struct sigv4_field){store_s3_sum_header(u->s), u->sum};
    int rc = store_s3_op_run(&op, u->s, e);
    store_s3_op_fini(&op);
    return rc;
}

// ---- parts.

// The tag goes back to the server inside XML.
static int accept_part(struct s3_op *op, struct err *e) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_+/=\"";
    if (op->x.etag[0] && strspn(op->x.etag, plain) == strlen(op->x.etag)) return 0;
    return err_set(e, ERR_PEER, "a part without a proper ETag");
}

// The store's for every STORE_PART_BYTES: a slow line has the same time for a byte, however large the part.
static int64_t part_deadline_ms(const struct s3_upload *u, size_t bytes) {
    int64_t units = (int64_t)((bytes + STORE_PART_BYTES - 1) / STORE_PART_BYTES);
    return u->s->store.deadline_ms * (units ? units : 1);
}

int store_s3_part_start(struct s3_slot *p, struct s3_upload *u, const struct s3_part *part, struct err *e) {
    if (part->number >= S3_PARTS_MAX)
        return err_set(e, ERR_DATA, "%s: '%s' is too large: more than %d parts", u->s->store.url, u->key,
                       S3_PARTS_MAX);
    p->u = u;
    p->part = part->number;
    if (part->number == u->parts) {
        u->parts++;
        u->bytes += (int64_t)part->bytes;
    }
    snprintf(p->number, sizeof p->number, "%d", p->part + 1);
    p->op = (struct s3_op){.verb = "UPLOAD PART",
                           .method = "PUT",
                           .key = u->key,
                           .body = part->data,
                           .give = part->give,
                           .give_arg = part->give_arg,
                           .body_bytes = part->bytes,
                           .hashed = part->hashed,
                           .deadline_ms = part_deadline_ms(u, part->bytes),
                           .accept = accept_part};
    p->op.query[p->op.n_query++] = (struct sigv4_field){"partNumber", p->number};
    p->op.query[p->op.n_query++] = (struct sigv4_field){"uploadId", u->id};
    p->busy = true;
    store_s3_op_begin(&p->op, u->s);
    return 0;
}

int store_s3_part_wait(struct s3_slot *p, struct err *e) {
    if (!p->busy) return 0;
    int rc = store_s3_op_wait(&p->op, e);
    if (!rc) memcpy(p->u->etags[p->part], p->op.x.etag, sizeof p->op.x.etag);
    store_s3_op_fini(&p->op);
    p->busy = false;
    p->fill = 0;
    return rc;
}

// All of them, also after a failure.
static int wait_for_parts(struct s3_slot *slots, int n, struct err *e) {
    int first = 0;
    for (int i = 0; i < n; i++) {
        int rc = store_s3_part_wait(&slots[i], e);
        if (!first) first = rc;
    }
    return first;
}

// ---- complete, abort.

static int on_completed_element(void *arg, const char *path, const char *text, struct err *e) {
    bool *completed = arg;
    if (!strcmp(path, "CompleteMultipartUploadResult")) *completed = true;
    return 0;
}

// The status is sent before the work is done, so a 200 may carry an <Error>.
static int accept_completed(struct s3_op *op, struct err *e) {
    bool completed = false;
    int rc = store_s3_error_in_body(op, e);
    if (!rc) rc = store_s3_xml(&op->text, on_completed_element, &completed, e);
    return !rc && !completed ? err_set(e, ERR_PEER, "the reply is no completion") : rc;
}

static int completion_text(const struct s3_upload *u, struct buf *out, struct err *e) {
    int rc =
        buf_appends(out, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">", e);
    for (int i = 0; i < u->parts && !rc; i++)
        rc = buf_appendf(out, e, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", i + 1,
                         u->etags[i]);
    return rc ? rc : buf_appends(out, "</CompleteMultipartUpload>", e);
}

// The ETag of an object made of these parts, as S3 makes it; false where the parts' tags are no MD5s.
static bool expected_etag(const struct s3_upload *u, char out[72]) {
    struct hash_md5 *md5 = hash_md5_create();
    unsigned char digest[16];
    char hex[33];
    bool ok = md5 != NULL;
    for (int i = 0; i < u->parts && ok; i++) {
        const char *tag = u->etags[i] + (u->etags[i][0] == '"');
        ok = strspn(tag, "0123456789abcdef") == 32;
        for (int k = 0; k < 16 && ok; k++) ok = sscanf(tag + 2 * k, "%2hhx", &digest[k]) == 1;
        if (ok) hash_md5_update(md5, digest, sizeof digest);
    }
    if (ok) hash_md5_end(md5, digest);
    hash_md5_destroy(md5);
    bytes_hex(digest, sizeof digest, hex);
    snprintf(out, 72, "\"%s-%d\"", hex, u->parts);
    return ok;
}

// Completed by an attempt that we heard nothing of? An older object of that size may lie there, too: only the
// sum that we left, or the parts' ETag, tells ours from it.
static bool is_there(const struct s3_upload *u) {
    struct store_result head;
    struct err ignored = {0};
    char want[72];
    if (store_head(&u->s->store, u->key, &head, &ignored) || head.object_bytes != u->bytes) return false;
    return (u->sum && !strcmp(head.sum, u->sum)) || (expected_etag(u, want) && !strcmp(head.etag, want));
}

static int try_complete(struct s3_upload *u, const struct buf *text, int64_t deadline_ms, bool *doubtful,
                        bool *alive, struct err *e) {
    struct s3_op op = {.verb = "COMPLETE UPLOAD",
                       .method = "POST",
                       .key = u->key,
                       .accept = accept_completed,
                       .body = text->data,
                       .body_bytes = text->len,
                       .deadline_ms = deadline_ms};
    op.query[op.n_query++] = (struct sigv4_field){"uploadId", u->id};
    int rc = store_s3_op_run(&op, u->s, e);
    *doubtful |= op.doubtful || op.x.end == HTTP_BROKEN || op.x.end == HTTP_SLOW;
    *alive = op.x.status != 0;
    store_s3_op_fini(&op);
    return rc;
}

// A server that dies at its work leaves the upload done, or not done, or locked for a while (radosgw: ten
// minutes, rgw_mp_lock_max_time), when it answers 500. So: a look at the object after every failure, and
// patience as long as a server answers. deadline_ms 0: the store's, and that patience.
int store_s3_upload_complete(struct s3_upload *u, int64_t deadline_ms, struct err *e) {
    struct buf text;
    struct err last = {0};
    bool doubtful = false, alive = false;
    int64_t begin = clock_monotonic_ns(), most = deadline_ms ? deadline_ms : u->s->store.deadline_ms;
    buf_init(&text, COMPLETION_MAX);
    int rc = completion_text(u, &text, &last);
    for (bool again = !rc; again;) {
        int64_t left = most - (clock_monotonic_ns() - begin) / 1000000;
        err_clear(&last);
        rc = try_complete(u, &text, left > 0 && left < COMPLETE_SLICE_MS ? left : COMPLETE_SLICE_MS,
                          &doubtful, &alive, &last);
        if (rc && doubtful && (store_transient(rc) || rc == -ERR_MISSING) && is_there(u)) rc = 0;
        int64_t took = (clock_monotonic_ns() - begin) / 1000000;
        bool patient = !deadline_ms && doubtful && alive && took < LOCKED_MS_MAX;
        again = rc && store_transient(rc) && (took < most - LAST_SLICE_MS || patient);
    }
    if (rc && e && !e->code) *e = last;
    if (!rc) u->id[0] = 0;
    buf_fini(&text);
    return rc;
}

// Best effort: what cannot be aborted is left to the bucket's lifecycle rule.
void store_s3_upload_abort(struct s3_upload *u) {
    struct err ignored = {0};
    if (!u->id[0]) return;
    struct s3_op op = {.verb = "ABORT UPLOAD",
                       .method = "DELETE",
                       .key = u->key,
                       .also_ok = 404,
                       .deadline_ms = ABORT_DEADLINE_MS};
    op.query[op.n_query++] = (struct sigv4_field){"uploadId", u->id};
    if (!store_s3_op_run(&op, u->s, &ignored)) u->id[0] = 0;
    store_s3_op_fini(&op);
}

// ---- a large object that lies in memory.

// A server pays for every part (radosgw: an eighth more work at 8 MiB than at 32), and a part that broke off
// is sent anew from its start: large ones, as long as there are enough of them to go side by side.
size_t store_s3_part_bytes(size_t bytes) {
    size_t part = STORE_PART_BYTES;
    while (part < LARGE_PART_BYTES && bytes / part >= 2 * SIDE_BY_SIDE) part *= 2;
    while (bytes / part >= S3_PARTS_MAX) part *= 2;
    return part;
}

static int upload_all(struct s3_upload *u, struct s3_slot *slots, const char *data, size_t bytes,
                      struct err *e) {
    size_t part = store_s3_part_bytes(bytes);
    int rc = 0, next = 0;
    for (size_t at = 0; at < bytes && !rc; at += part, next = (next + 1) % LARGE_SLOTS) {
        rc = store_s3_part_wait(&slots[next], e);
        struct s3_part p = {
            .number = u->parts, .data = data + at, .bytes = bytes - at < part ? bytes - at : part};
        if (!rc) rc = store_s3_part_start(&slots[next], u, &p, e);
    }
    int waited = wait_for_parts(slots, LARGE_SLOTS, e);
    return rc ? rc : waited;
}

static int upload_once(struct s3_store *s, const char *key, const char *data, size_t bytes,
                       int64_t complete_ms, bool *completing, struct err *e) {
    struct s3_upload u = {.s = s, .key = key};
    struct s3_slot *slots = calloc(LARGE_SLOTS, sizeof *slots);
    if (!slots) return err_set(e, ERR_MEMORY, "no memory for an upload of '%s'", key);
    int rc = store_s3_upload_create(&u, e);
    if (!rc) rc = upload_all(&u, slots, data, bytes, e);
    *completing = !rc;
    if (!rc) rc = store_s3_upload_complete(&u, complete_ms, e);
    if (rc) store_s3_upload_abort(&u);
    free(u.etags);
    free(slots);
    return rc;
}

// A radosgw that dies while it completes an upload leaves it locked for ten minutes (rgw_mp_lock_max_time),
// and answers 500 until then. A fresh upload is not locked.
int store_s3_put_large(struct store *s, const char *key, const void *data, size_t bytes, struct err *e) {
    struct s3_store *s3 = (struct s3_store *)s;
    struct err first = {0};
    bool completing = false;
    int rc = upload_once(s3, key, data, bytes, s->deadline_ms / 2, &completing, &first);
    bool anew = completing && (store_transient(rc) || rc == -ERR_MISSING);
    if (rc && anew) return upload_once(s3, key, data, bytes, 0, &completing, e);
    if (rc && e && !e->code) *e = first;
    return rc;
}

// ---- the writer.

struct s3_writer {
    struct store_writer writer;
    char *key;
    struct s3_upload u;
    int next; // the slot that is being filled
    struct s3_slot slots[WRITER_SLOTS];
};

static size_t slot_bytes(const struct s3_upload *u) {
    return STORE_PART_BYTES << (u->parts / GROW_EVERY);
}

static int slot_ready(struct s3_slot *p, const struct s3_upload *u, struct err *e) {
    int rc = store_s3_part_wait(p, e);
    if (rc || p->fill || p->capacity >= slot_bytes(u)) return rc;
    free(p->memory);
    p->capacity = 0;
    p->memory = malloc(slot_bytes(u));
    if (!p->memory) return err_set(e, ERR_MEMORY, "no memory for a part of '%s'", u->key);
    p->capacity = slot_bytes(u);
    return 0;
}

static int send_slot(struct s3_writer *w, struct err *e) {
    struct s3_slot *p = &w->slots[w->next];
    int rc = store_s3_upload_create(&w->u, e);
    struct s3_part part = {.number = w->u.parts, .data = p->memory, .bytes = p->fill};
    if (!rc) rc = store_s3_part_start(p, &w->u, &part, e);
    w->next = (w->next + 1) % WRITER_SLOTS;
    return rc;
}

static int s3_writer_write(struct store_writer *writer, const void *data, size_t bytes, struct err *e) {
    struct s3_writer *w = (struct s3_writer *)writer;
    const char *from = data;
    int rc = 0;
    while (bytes && !rc) {
        struct s3_slot *p = &w->slots[w->next];
        rc = slot_ready(p, &w->u, e);
        if (rc) break;
        size_t n = bytes < p->capacity - p->fill ? bytes : p->capacity - p->fill;
        memcpy(p->memory + p->fill, from, n);
        p->fill += n;
        from += n;
        bytes -= n;
        if (p->fill == p->capacity) rc = send_slot(w, e);
    }
    return rc;
}

static int put_single(struct s3_writer *w, struct err *e) {
    const struct s3_slot *p = &w->slots[w->next];
    return store_put(&w->u.s->store, w->key, p->memory, p->busy ? 0 : p->fill, false, e);
}

static int s3_writer_commit(struct store_writer *writer, struct err *e) {
    struct s3_writer *w = (struct s3_writer *)writer;
    struct s3_slot *p = &w->slots[w->next];
    if (!w->u.id[0]) return put_single(w, e);
    int rc = !p->busy && p->fill ? send_slot(w, e) : 0;
    int waited = wait_for_parts(w->slots, WRITER_SLOTS, e);
    if (!rc) rc = waited;
    return rc ? rc : store_s3_upload_complete(&w->u, 0, e);
}

static void s3_writer_abort(struct store_writer *writer) {
    struct s3_writer *w = (struct s3_writer *)writer;
    (void)wait_for_parts(w->slots, WRITER_SLOTS, NULL);
    store_s3_upload_abort(&w->u);
}

static void s3_writer_destroy(struct store_writer *writer) {
    struct s3_writer *w = (struct s3_writer *)writer;
    for (int i = 0; i < WRITER_SLOTS; i++) free(w->slots[i].memory);
    free(w->u.etags);
    free(w->key);
    free(w);
}

static const struct store_writer_ops s3_writer_ops = {
    .write = s3_writer_write,
    .commit = s3_writer_commit,
    .abort = s3_writer_abort,
    .destroy = s3_writer_destroy,
};

int store_s3_writer_open(struct store *s, struct store_writer **out, const char *key, struct err *e) {
    struct s3_writer *w = calloc(1, sizeof *w);
    if (w) w->key = strdup(key);
    if (!w || !w->key) {
        free(w);
        return err_set(e, ERR_MEMORY, "no memory for a writer of '%s'", key);
    }
    w->writer.ops = &s3_writer_ops;
    w->u.s = (struct s3_store *)s;
    w->u.key = w->key;
    *out = &w->writer;
    return 0;
}
