// SPDX-License-Identifier: Apache-2.0
// A file as a multipart upload. The server knows which parts of an upload that broke off are there: they are
// looked up, their MD5 is compared with the file's, and only the rest is sent. No state is kept on this
// machine.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    struct file_sums sums; // without MD5s where the transfer is not verified
    struct store_transfer *t;
    int fd;
    size_t part;
    bool hashed; // parts are signed with their hash, which the server checks
};

static int read_file(const struct sending *g, void *into, size_t n, int64_t at, struct err *e) {
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(g->fd, (char *)into + done, n - done, at + (int64_t)done);
        if (got <= 0)
            return err_set(e, ERR_IO, "the file for '%s' cannot be read, or became shorter", g->u.key);
        done += (size_t)got;
    }
    return 0;
}

static int give(void *arg, size_t at, void *into, size_t n, struct err *e) {
    const struct file_read *r = arg;
    return read_file(r->g, into, n, r->at + (int64_t)at, e);
}

static int read_part(const struct sending *g, struct s3_slot *p, size_t n, int64_t at, struct err *e) {
    if (!p->memory && !(p->memory = malloc(g->part)))
        return err_set(e, ERR_MEMORY, "no memory for a part of '%s'", g->u.key);
    return read_file(g, p->memory, n, at, e);
}

// Straight out of the file, or out of memory where a hash of the part goes before it.
static int start_part(struct sending *g, struct s3_slot *p, int number, size_t n, struct err *e) {
    struct file_read *r = &g->reads[p - g->slots];
    *r = (struct file_read){.g = g, .at = (int64_t)number * (int64_t)g->part};
    bool in_memory = g->hashed || g->u.s->sign_payload;
    int rc = in_memory ? read_part(g, p, n, r->at, e) : 0;
    struct s3_part part = {.number = number, .bytes = n, .hashed = g->hashed};
    if (in_memory)
        part.data = p->memory;
    else {
        part.give = give;
        part.give_arg = r;
    }
    return rc ? rc : store_s3_part_start(p, &g->u, &part, e);
}

// The server's ETag of a part is not the file's MD5: the file was changed, or the part damaged, or the ETags
// are no MD5. The part is sent once more with its hash, and so are all that follow.
static int send_hashed(struct sending *g, struct s3_slot *p, int number, size_t n, struct err *e) {
    unsigned char digest[16];
    int rc = read_part(g, p, n, (int64_t)number * (int64_t)g->part, e);
    struct hash_md5 *md5 = rc ? NULL : hash_md5_create();
    if (md5) {
        hash_md5_update(md5, p->memory, n);
        hash_md5_end(md5, digest);
        if (memcmp(digest, g->sums.md5s[number], sizeof digest) != 0)
            rc = err_set(e, ERR_DATA, "the file for '%s' changed while it was sent", g->u.key);
    }
    hash_md5_destroy(md5);
    g->hashed = true;
    if (!rc) rc = start_part(g, p, number, n, e);
    return rc ? rc : store_s3_part_wait(p, e);
}

static int wait_slot(struct sending *g, struct s3_slot *p, struct err *e) {
    if (!p->busy) return 0;
    size_t bytes = p->op.body_bytes;
    bool hashed = p->op.hashed || g->u.s->sign_payload;
    int rc = store_s3_part_wait(p, e), number = p->part;
    if (!rc && g->t->verify && !hashed && !is_tag(g->u.etags[number], g->sums.md5s[number]))
        rc = send_hashed(g, p, number, bytes, e);
    if (!rc && g->t->moved) g->t->moved(g->t->arg, (int64_t)bytes);
    return rc;
}

static bool is_there(const struct sending *g, int number, size_t n) {
    const struct earlier *had = &g->earlier;
    return had->etags && had->etags[number][0] && had->bytes[number] == (int64_t)n && g->sums.md5s &&
           is_tag(had->etags[number], g->sums.md5s[number]);
}

static int send_part(struct sending *g, struct s3_slot *p, int number, size_t n, struct err *e) {
    int rc = wait_slot(g, p, e);
    if (rc || !is_there(g, number, n)) return rc ? rc : start_part(g, p, number, n, e);
    memcpy(g->u.etags[number], g->earlier.etags[number], sizeof g->u.etags[0]);
    g->u.parts++;
    g->u.bytes += (int64_t)n;
    g->t->resumed_bytes += (int64_t)n;
    if (g->t->moved) g->t->moved(g->t->arg, (int64_t)n);
    return 0;
}

static int send_all(struct sending *g, int64_t bytes, struct err *e) {
    int rc = store_s3_upload_create(&g->u, e);
    int number = 0;
    for (int64_t at = 0; at < bytes && !rc; at += (int64_t)g->part, number++) {
        size_t n = bytes - at < (int64_t)g->part ? (size_t)(bytes - at) : g->part;
        rc = send_part(g, &g->slots[number % FILE_SLOTS], number, n, e);
    }
    for (int i = 0; i < FILE_SLOTS; i++) {
        int waited = wait_slot(g, &g->slots[i], e);
        if (!rc) rc = waited;
    }
    return rc ? rc : store_s3_upload_complete(&g->u, 0, e);
}

// The sum of the file goes with the upload's creation, so it has to be known before the first part is sent.
static int sum_file(struct sending *g, int64_t bytes, struct err *e) {
    bool wanted = g->t->verify || g->earlier.id[0];
    int rc = wanted ? file_sums_make(&g->sums, g->fd, bytes, g->part, e) : 0;
    if (rc) return err_prefix(e, "'%s'", g->u.key);
    if (!g->t->verify) return 0;
    snprintf(g->t->sum, sizeof g->t->sum, "%08" PRIx32, g->sums.crc);
    g->u.sum = g->t->sum;
    g->hashed = !g->sums.md5s;
    return 0;
}

static int send_file(struct s3_store *s, const char *key, int fd, int64_t bytes, bool resume,
                     struct store_transfer *t, struct err *e) {
    struct sending *g = calloc(1, sizeof *g);
    if (!g) return err_set(e, ERR_MEMORY, "no memory for an upload of '%s'", key);
    g->u = (struct s3_upload){.s = s, .key = key};
    g->t = t;
    g->fd = fd;
    g->part = store_s3_part_bytes((size_t)bytes);
    if (resume) look_up(&g->earlier, &g->u, bytes, g->part);
    int rc = sum_file(g, bytes, e);
    if (!rc) rc = send_all(g, bytes, e);
    if (rc && !t->resume) store_s3_upload_abort(&g->u);
    for (int i = 0; i < FILE_SLOTS; i++) free(g->slots[i].memory);
    file_sums_fini(&g->sums);
    free(g->earlier.etags);
    free(g->earlier.bytes);
    free(g->u.etags);
    free(g);
    return rc;
}

// An upload that was begun for another content of the file carries that one's sum: then all is sent anew.
int store_s3_put_file(struct store *s, const char *key, int fd, int64_t bytes, struct store_transfer *t,
                      struct err *e) {
    struct store_result head;
    int rc = send_file((struct s3_store *)s, key, fd, bytes, t->resume, t, e);
    if (rc || !t->resumed_bytes || !t->sum[0]) return rc;
    rc = store_head(s, key, &head, e);
    if (rc || !strcmp(head.sum, t->sum)) return rc;
    t->resumed_bytes = 0;
    return send_file((struct s3_store *)s, key, fd, bytes, false, t, e);
}
