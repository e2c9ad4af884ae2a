// SPDX-License-Identifier: Apache-2.0
// A file as one PUT, or as a multipart upload, straight from the disk. The server knows which parts of an
// upload that broke off are there: they are looked up, their MD5 is compared with the file's, and only the
// rest is sent. No state is kept on this machine.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/file_sums.h"
#include "storage/hash.h"
#include "storage/store_s3_upload.h"

#define FILE_SLOTS   6 // parts under way
#define LISTED_BYTES ((size_t)4 << 20)

// What the server has of an earlier upload.
struct earlier {
    const char *key; // as the server has it, with the store's prefix
    char id[S3_UPLOAD_ID_BYTES], begun[40];
    char (*etags)[72]; // by part; "": not there
    int64_t *bytes;
    int parts;
    // What is being read.
    bool same_key, truncated;
    char read_id[S3_UPLOAD_ID_BYTES], read_begun[40], read_etag[72], marker[16];
    int64_t read_part, read_bytes;
};

static void keep_text(char *out, size_t n, const char *text) {
    snprintf(out, n, "%s", strlen(text) < n ? text : "");
}

// The newest upload of the key.
static int on_upload(void *arg, const char *path, const char *text, struct err *e) {
    struct earlier *g = arg;
    if (strncmp(path, "ListMultipartUploadsResult/Upload", 33)) return 0;
    const char *name = path + 33;
    if (!strcmp(name, "/Key")) g->same_key = !strcmp(text, g->key);
    if (!strcmp(name, "/UploadId")) keep_text(g->read_id, sizeof g->read_id, text);
    if (!strcmp(name, "/Initiated")) keep_text(g->read_begun, sizeof g->read_begun, text);
    if (*name) return 0;
    if (g->same_key && g->read_id[0] && strcmp(g->read_begun, g->begun) >= 0) {
        memcpy(g->id, g->read_id, sizeof g->id);
        memcpy(g->begun, g->read_begun, sizeof g->begun);
    }
    g->same_key = false;
    g->read_id[0] = g->read_begun[0] = 0;
    return 0;
}

static int on_part(void *arg, const char *path, const char *text, struct err *e) {
    struct earlier *g = arg;
    if (!strcmp(path, "ListPartsResult/IsTruncated")) g->truncated = !strcmp(text, "true");
    if (!strcmp(path, "ListPartsResult/NextPartNumberMarker")) keep_text(g->marker, sizeof g->marker, text);
    if (strncmp(path, "ListPartsResult/Part", 20)) return 0;
    const char *name = path + 20;
    if (!strcmp(name, "/ETag")) keep_text(g->read_etag, sizeof g->read_etag, text);
    if (!strcmp(name, "/PartNumber") && !bytes_parse_i64(text, &g->read_part)) g->read_part = 0;
    if (!strcmp(name, "/Size") && !bytes_parse_i64(text, &g->read_bytes)) g->read_bytes = -1;
    if (*name) return 0;
    if (g->read_part >= 1 && g->read_part <= g->parts) {
        memcpy(g->etags[g->read_part - 1], g->read_etag, sizeof g->read_etag);
        g->bytes[g->read_part - 1] = g->read_bytes;
    }
    g->read_part = 0;
    g->read_bytes = -1;
    g->read_etag[0] = 0;
    return 0;
}

static int find_upload(struct earlier *g, struct s3_store *s, struct err *e) {
    struct s3_op op = {.verb = "LIST UPLOADS", .method = "GET", .text_max = LISTED_BYTES};
    op.query[op.n_query++] = (struct sigv4_field){"uploads", ""};
    op.query[op.n_query++] = (struct sigv4_field){"prefix", g->key};
    int rc = store_s3_op_run(&op, s, e);
    if (!rc) rc = store_s3_xml(&op.text, on_upload, g, e);
    store_s3_op_fini(&op);
    return rc;
}

static int list_parts(struct earlier *g, struct s3_store *s, const char *key, struct err *e) {
    char marker[sizeof g->marker] = "";
    int rc = 0;
    do {
        struct s3_op op = {.verb = "LIST PARTS", .method = "GET", .key = key, .text_max = LISTED_BYTES};
        op.query[op.n_query++] = (struct sigv4_field){"uploadId", g->id};
        if (marker[0]) op.query[op.n_query++] = (struct sigv4_field){"part-number-marker", marker};
        g->truncated = false;
        g->marker[0] = 0;
        rc = store_s3_op_run(&op, s, e);
        if (!rc) rc = store_s3_xml(&op.text, on_part, g, e);
        store_s3_op_fini(&op);
        bool further = g->marker[0] && strcmp(marker, g->marker) != 0;
        memcpy(marker, g->marker, sizeof marker);
        if (!further) break;
    } while (!rc && g->truncated);
    return rc;
}

// Best effort: whoever may not list uploads begins anew.
static void look_up(struct earlier *g, struct s3_upload *u, int64_t bytes, size_t part) {
    struct err ignored = {0};
    char *full;
    g->parts = (int)((bytes + (int64_t)part - 1) / (int64_t)part);
    g->etags = calloc((size_t)g->parts, sizeof *g->etags);
    g->bytes = calloc((size_t)g->parts, sizeof *g->bytes);
    if (!g->etags || !g->bytes || asprintf(&full, "%s%s", u->s->prefix, u->key) < 0) return;
    g->key = full;
    bool found = !find_upload(g, u->s, &ignored) && g->id[0] && !list_parts(g, u->s, u->key, &ignored);
    if (found)
        memcpy(u->id, g->id, sizeof u->id);
    else
        memset(g->etags, 0, (size_t)g->parts * sizeof *g->etags);
    g->key = NULL;
    free(full);
}

static bool is_tag(const char *etag, const unsigned char md5[16]) {
    char hex[33], quoted[36];
    bytes_hex(md5, 16, hex);
    snprintf(quoted, sizeof quoted, "\"%s\"", hex);
    return !strcmp(etag, quoted) || !strcmp(etag, hex);
}

struct sending {
    struct s3_upload u;
    struct s3_slot slots[FILE_SLOTS];
    struct file_read {
        struct sending *g;
        int64_t at;
    } reads[FILE_SLOTS];
    struct earlier earlier;
    struct file_sums *sums; // NULL: nothing is compared
    uint32_t crc;           // of the whole, where the transfer is verified
    struct store_transfer *t;
    int fd;
    char *name;       // of the file, for errors
    struct stat file; // at the start
    size_t part;
    bool hashed; // parts are signed with their hash, which the server checks
};

static int give(void *arg, size_t at, void *into, size_t n, struct err *e) {
    const struct file_read *r = arg;
    return bytes_read_at(r->g->fd, into, n, r->at + (int64_t)at, r->g->name, e);
}

static int start_part(struct sending *g, struct s3_slot *p, int number, size_t n, struct err *e) {
    struct file_read *r = &g->reads[p - g->slots];
    *r = (struct file_read){.g = g, .at = (int64_t)number * (int64_t)g->part};
    struct s3_part part = {.number = number, .bytes = n, .give = give, .give_arg = r, .hashed = g->hashed};
    return store_s3_part_start(p, &g->u, &part, e);
}

static int has_tag(const struct sending *g, int number, const char *etag, bool *same, struct err *e) {
    unsigned char md5[16];
    int rc = file_sums_md5(g->sums, number, md5, e);
    if (!rc) *same = is_tag(etag, md5);
    return rc;
}

// Where the server's ETag of a part is not the file's MD5, the part was damaged, or the file changed, or the
// ETags are no MD5. The part is sent once more with its hash, which the server checks, and so are all that
// follow.
static int wait_slot(struct sending *g, struct s3_slot *p, struct err *e) {
    if (!p->busy) return 0;
    size_t bytes = p->op.body_bytes;
    bool compare = g->t->verify && !p->op.hashed && !g->u.s->sign_payload, same = true;
    int rc = store_s3_part_wait(p, e), number = p->part;
    if (!rc && compare) rc = has_tag(g, number, g->u.etags[number], &same, e);
    if (!same) g->hashed = true;
    if (!rc && !same) rc = start_part(g, p, number, bytes, e);
    if (!rc && !same) rc = store_s3_part_wait(p, e);
    if (!rc && g->t->moved) g->t->moved(g->t->arg, (int64_t)bytes);
    return rc;
}

static int is_there(const struct sending *g, int number, size_t n, bool *there, struct err *e) {
    const struct earlier *had = &g->earlier;
    *there = had->etags && had->etags[number][0] && had->bytes[number] == (int64_t)n && g->sums &&
             file_sums_md5s(g->sums);
    return *there ? has_tag(g, number, had->etags[number], there, e) : 0;
}

static int send_part(struct sending *g, struct s3_slot *p, int number, size_t n, struct err *e) {
    bool there = false;
    int rc = wait_slot(g, p, e);
    if (!rc) rc = is_there(g, number, n, &there, e);
    if (rc || !there) return rc ? rc : start_part(g, p, number, n, e);
    memcpy(g->u.etags[number], g->earlier.etags[number], sizeof g->u.etags[0]);
    g->u.parts++;
    g->u.bytes += (int64_t)n;
    g->t->resumed_bytes += (int64_t)n;
    if (g->t->moved) g->t->moved(g->t->arg, (int64_t)n);
    return 0;
}

static int wait_slots(struct sending *g, struct err *e) {
    int first = 0;
    for (int i = 0; i < FILE_SLOTS; i++) {
        int rc = wait_slot(g, &g->slots[i], e);
        if (!first) first = rc;
    }
    return first;
}

// The file's sum was made before it was sent, the parts' meanwhile, and neither is what went over the line.
static int check_unchanged(struct sending *g, struct err *e) {
    struct stat now;
    uint32_t crc;
    if (!g->t->verify) return 0;
    int rc = file_sums_crc32c(g->sums, &crc, e);
    if (rc) return rc;
    if (fstat(g->fd, &now)) return err_errno(e, errno, "cannot look at %s", g->name);
    bool same = crc == g->crc && now.st_size == g->file.st_size &&
                now.st_mtim.tv_sec == g->file.st_mtim.tv_sec &&
                now.st_mtim.tv_nsec == g->file.st_mtim.tv_nsec;
    return same ? 0 : err_set(e, ERR_DATA, "%s changed while it was sent", g->name);
}

static int send_parts(struct sending *g, int64_t bytes, struct err *e) {
    int rc = store_s3_upload_create(&g->u, e);
    int number = 0;
    for (int64_t at = 0; at < bytes && !rc; at += (int64_t)g->part, number++) {
        size_t n = bytes - at < (int64_t)g->part ? (size_t)(bytes - at) : g->part;
        rc = send_part(g, &g->slots[number % FILE_SLOTS], number, n, e);
    }
    int waited = wait_slots(g, e);
    if (!rc) rc = waited;
    if (!rc) rc = check_unchanged(g, e);
    return rc ? rc : store_s3_upload_complete(&g->u, 0, e);
}

static int start_sums(struct sending *g, int64_t bytes, struct err *e) {
    bool wanted = g->t->verify || g->earlier.id[0];
    int rc = g->t->verify ? file_crc32c(g->fd, g->name, bytes, &g->crc, e) : 0;
    if (!rc && wanted) rc = file_sums_start(&g->sums, g->fd, g->name, bytes, g->part, e);
    if (rc || !g->t->verify) return rc;
    snprintf(g->t->sum, sizeof g->t->sum, "%08" PRIx32, g->crc);
    g->u.sum = g->t->sum;
    g->hashed = !file_sums_md5s(g->sums);
    return 0;
}

static void sending_free(struct sending *g) {
    file_sums_stop(g->sums);
    free(g->name);
    free(g->earlier.etags);
    free(g->earlier.bytes);
    free(g->u.etags);
    free(g);
}

static int sending_create(struct sending **out, struct s3_store *s, const char *key, int fd,
                          struct store_transfer *t, struct err *e) {
    struct sending *g = calloc(1, sizeof *g);
    if (!g || asprintf(&g->name, "the file for '%s'", key) < 0) {
        free(g);
        return err_set(e, ERR_MEMORY, "no memory for an upload of '%s'", key);
    }
    g->u = (struct s3_upload){.s = s, .key = key};
    g->t = t;
    g->fd = fd;
    *out = g;
    if (!fstat(fd, &g->file)) return 0;
    int rc = err_errno(e, errno, "cannot look at %s", g->name);
    sending_free(g);
    return rc;
}

// With `adopted`, goes on with an upload that is there, and tells whether one was.
static int send_in_parts(struct s3_store *s, const char *key, int fd, int64_t bytes, bool *adopted,
                         struct store_transfer *t, struct err *e) {
    struct sending *g;
    int rc = sending_create(&g, s, key, fd, t, e);
    if (rc) return rc;
    g->part = store_s3_part_bytes((size_t)bytes);
    if (adopted) look_up(&g->earlier, &g->u, bytes, g->part);
    if (adopted) *adopted = g->u.id[0] != 0;
    rc = start_sums(g, bytes, e);
    if (!rc) rc = send_parts(g, bytes, e);
    if (rc && !t->resume) store_s3_upload_abort(&g->u);
    sending_free(g);
    return rc;
}

// Of an object whose upload was begun by another transfer, which may have been of another content.
static int has_right_sum(struct s3_store *s, const char *key, int fd, int64_t bytes,
                         const struct store_transfer *t, bool *right, struct err *e) {
    struct store_result head;
    uint32_t crc;
    char sum[12];
    int rc = store_head(&s->store, key, &head, e);
    if (rc) return rc;
    *right = !strcmp(head.sum, t->sum);
    if (*right || t->sum[0]) return 0;
    rc = file_crc32c(fd, key, bytes, &crc, e); // it was not wanted; reading is cheaper than sending again
    if (rc) return rc;
    snprintf(sum, sizeof sum, "%08" PRIx32, crc);
    *right = !strcmp(head.sum, sum);
    return 0;
}

// An upload leaves the sum that it was begun with, also where none of its parts was of use. If that is
// another content's, all is sent anew.
static int send_large(struct s3_store *s, const char *key, int fd, int64_t bytes, struct store_transfer *t,
                      struct err *e) {
    bool adopted = false, right;
    int rc = send_in_parts(s, key, fd, bytes, t->resume ? &adopted : NULL, t, e);
    if (rc || !adopted) return rc;
    rc = has_right_sum(s, key, fd, bytes, t, &right, e);
    if (rc || right) return rc;
    t->resumed_bytes = 0;
    return send_in_parts(s, key, fd, bytes, NULL, t, e);
}

// ---- a small file: one PUT.

static int put_once(struct sending *g, size_t bytes, char etag[72], struct err *e) {
    struct s3_store *s = g->u.s;
    struct file_read r = {.g = g};
    struct s3_op op = {.verb = "PUT",
                       .method = "PUT",
                       .key = g->u.key,
                       .give = give,
                       .give_arg = &r,
                       .body_bytes = bytes,
                       .hashed = g->hashed};
    if (g->u.sum) op.headers[op.n_headers++] = (struct sigv4_field){store_s3_sum_header(s), g->u.sum};
    // A body that is hashed into its signature needs no second sum.
    if (g->t->verify && bytes && !g->hashed && !s->sign_payload && s->vendor->crc_header)
        store_s3_op_checksum(&op, s->vendor, g->crc);
    int rc = store_s3_op_run(&op, s, e);
    memcpy(etag, op.x.etag, sizeof op.x.etag);
    store_s3_op_fini(&op);
    return rc;
}

static int send_small(struct s3_store *s, const char *key, int fd, int64_t bytes, struct store_transfer *t,
                      struct err *e) {
    char etag[72];
    struct sending *g;
    int rc = sending_create(&g, s, key, fd, t, e);
    if (rc) return rc;
    g->part = (size_t)bytes + !bytes;
    rc = start_sums(g, bytes, e);
    if (!rc) rc = put_once(g, (size_t)bytes, etag, e);
    bool same = true, compare = t->verify && !g->hashed && !s->sign_payload;
    if (!rc && compare) rc = has_tag(g, 0, etag, &same, e);
    if (!same) g->hashed = true;
    if (!rc && !same) rc = put_once(g, (size_t)bytes, etag, e);
    if (!rc) rc = check_unchanged(g, e);
    if (!rc && t->moved) t->moved(t->arg, bytes);
    sending_free(g);
    return rc;
}

int store_s3_put_file(struct store *s, const char *key, int fd, int64_t bytes, struct store_transfer *t,
                      struct err *e) {
    bool small = bytes <= 2 * (int64_t)STORE_PART_BYTES;
    return (small ? send_small : send_large)((struct s3_store *)s, key, fd, bytes, t, e);
}
