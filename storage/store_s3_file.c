// SPDX-License-Identifier: Apache-2.0
// A file as a multipart upload. The server knows which parts of an upload that broke off are there: they are
// looked up, their MD5 is compared with the file's, and only the rest is sent. No state is kept on this
// machine.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/hash.h"
#include "storage/store_s3_upload.h"

#define FILE_SLOTS   6 // parts in memory
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

static bool is_same(const struct earlier *g, int i, const char *data, size_t n) {
    unsigned char digest[16];
    char hex[33], quoted[36];
    if (!g->etags || !g->etags[i][0] || g->bytes[i] != (int64_t)n) return false;
    struct hash_md5 *md5 = hash_md5_create();
    if (!md5) return false;
    hash_md5_update(md5, data, n);
    hash_md5_end(md5, digest);
    hash_md5_destroy(md5);
    bytes_hex(digest, sizeof digest, hex);
    snprintf(quoted, sizeof quoted, "\"%s\"", hex);
    return !strcmp(g->etags[i], quoted) || !strcmp(g->etags[i], hex);
}

struct sending {
    struct s3_upload u;
    struct s3_slot slots[FILE_SLOTS];
    struct earlier earlier;
    struct store_transfer *t;
    int fd;
    size_t part;
};

static int read_part(const struct sending *g, struct s3_slot *p, size_t n, int64_t at, struct err *e) {
    if (!p->memory && !(p->memory = malloc(g->part)))
        return err_set(e, ERR_MEMORY, "no memory for a part of '%s'", g->u.key);
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(g->fd, p->memory + done, n - done, at + (int64_t)done);
        if (got <= 0)
            return err_set(e, ERR_IO, "the file for '%s' cannot be read, or became shorter", g->u.key);
        done += (size_t)got;
    }
    return 0;
}

static int wait_slot(struct sending *g, struct s3_slot *p, struct err *e) {
    size_t bytes = p->busy ? p->op.body_bytes : 0;
    int rc = store_s3_part_wait(p, e);
    if (!rc && bytes && g->t->moved) g->t->moved(g->t->arg, (int64_t)bytes);
    return rc;
}

static int send_part(struct sending *g, struct s3_slot *p, size_t n, int64_t at, struct err *e) {
    int rc = wait_slot(g, p, e);
    if (!rc) rc = read_part(g, p, n, at, e);
    if (rc) return rc;
    p->op.hashed = g->t->verify;
    if (!is_same(&g->earlier, g->u.parts, p->memory, n))
        return store_s3_part_start(p, &g->u, p->memory, n, e);
    memcpy(g->u.etags[g->u.parts], g->earlier.etags[g->u.parts], sizeof g->u.etags[0]);
    g->u.parts++;
    g->u.bytes += (int64_t)n;
    g->t->resumed_bytes += (int64_t)n;
    if (g->t->moved) g->t->moved(g->t->arg, (int64_t)n);
    return 0;
}

static int send_all(struct sending *g, int64_t bytes, struct err *e) {
    int rc = store_s3_upload_create(&g->u, e);
    int next = 0;
    for (int64_t at = 0; at < bytes && !rc; at += (int64_t)g->part, next = (next + 1) % FILE_SLOTS) {
        size_t n = bytes - at < (int64_t)g->part ? (size_t)(bytes - at) : g->part;
        rc = send_part(g, &g->slots[next], n, at, e);
    }
    for (int i = 0; i < FILE_SLOTS; i++) {
        int waited = wait_slot(g, &g->slots[i], e);
        if (!rc) rc = waited;
    }
    return rc ? rc : store_s3_upload_complete(&g->u, 0, e);
}

static int send_file(struct s3_store *s, const char *key, int fd, int64_t bytes, bool resume,
                     struct store_transfer *t, struct err *e) {
    struct sending *g = calloc(1, sizeof *g);
    if (!g) return err_set(e, ERR_MEMORY, "no memory for an upload of '%s'", key);
    g->u = (struct s3_upload){.s = s, .key = key, .sum = t->sum[0] ? t->sum : NULL};
    g->t = t;
    g->fd = fd;
    g->part = store_s3_part_bytes((size_t)bytes);
    if (resume) look_up(&g->earlier, &g->u, bytes, g->part);
    int rc = send_all(g, bytes, e);
    if (rc && !t->resume) store_s3_upload_abort(&g->u);
    for (int i = 0; i < FILE_SLOTS; i++) free(g->slots[i].memory);
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
