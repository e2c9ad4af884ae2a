// SPDX-License-Identifier: Apache-2.0
// Multipart uploads that nobody will complete: listed page by page (ListMultipartUploads), and those that the
// caller calls its own aborted. They cost money, and no listing of objects shows them.
#include <stdlib.h>
#include <string.h>

#include "storage/store_s3_upload.h"

#define ENCODED_KEY (4 * STORE_KEY_MAX)

struct found {
    char *key; // relative to the store
    char id[S3_UPLOAD_ID_BYTES];
};

struct uploads {
    struct s3_store *s;
    bool listed, truncated, encoded;
    char next_key[ENCODED_KEY], next_id[S3_UPLOAD_ID_BYTES]; // where the next page begins
    // The upload that is being read.
    char key[ENCODED_KEY], id[S3_UPLOAD_ID_BYTES];
    struct found *found; // of a page
    size_t n;
};

static int keep(char *out, size_t n, const char *text, struct err *e) {
    if (strlen(text) >= n) return err_set(e, ERR_PEER, "a field of the list of uploads is too long");
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

static int add_upload(struct uploads *u, struct err *e) {
    size_t prefix = strlen(u->s->prefix);
    if ((u->encoded && !store_s3_url_decode(u->key)) || !u->id[0])
        return err_set(e, ERR_PEER, "an upload without a proper key or id");
    if (strncmp(u->key, u->s->prefix, prefix) || !u->key[prefix]) return 0; // not ours
    struct found *grown = reallocarray(u->found, u->n + 1, sizeof *grown);
    if (!grown) return err_set(e, ERR_MEMORY, "no memory for a list of uploads");
    u->found = grown;
    if (!(grown[u->n].key = strdup(u->key + prefix)))
        return err_set(e, ERR_MEMORY, "no memory for a list of uploads");
    memcpy(grown[u->n++].id, u->id, sizeof u->id);
    return 0;
}

static int on_element(void *arg, const char *path, const char *text, struct err *e) {
    struct uploads *u = arg;
    if (strncmp(path, "ListMultipartUploadsResult", 26)) return 0;
    if (!path[26]) u->listed = true;
    if (!path[26]) return 0;
    const char *name = path + 27;
    if (!strcmp(name, "IsTruncated")) u->truncated = !strcmp(text, "true");
    if (!strcmp(name, "NextKeyMarker")) return keep(u->next_key, sizeof u->next_key, text, e);
    if (!strcmp(name, "NextUploadIdMarker")) return keep(u->next_id, sizeof u->next_id, text, e);
    if (!strcmp(name, "Upload/Key")) return keep(u->key, sizeof u->key, text, e);
    if (!strcmp(name, "Upload/UploadId")) return keep(u->id, sizeof u->id, text, e);
    if (strcmp(name, "Upload")) return 0;
    int rc = add_upload(u, e);
    u->key[0] = u->id[0] = 0;
    return rc;
}

static void forget(struct uploads *u) {
    while (u->n) free(u->found[--u->n].key);
    free(u->found);
    u->found = NULL;
}

static int accept_page(struct s3_op *op, struct err *e) {
    struct uploads *u = op->owner;
    forget(u); // of an attempt that broke off
    u->listed = u->truncated = false;
    u->encoded = op->text.data && strstr(op->text.data, "<EncodingType>url</");
    u->next_key[0] = u->next_id[0] = u->key[0] = u->id[0] = 0;
    int rc = store_s3_xml(&op->text, on_element, u, e);
    if (!rc && u->encoded && !store_s3_url_decode(u->next_key))
        rc = err_set(e, ERR_PEER, "a marker of the list of uploads is not properly encoded");
    return !rc && !u->listed ? err_set(e, ERR_PEER, "the reply is no list of uploads") : rc;
}

static int fetch_page(struct uploads *u, const char *key, const char *id, struct err *e) {
    struct s3_op op = {.verb = "LIST UPLOADS",
                       .method = "GET",
                       .accept = accept_page,
                       .owner = u,
                       .text_max = S3_LIST_BODY_MAX};
    op.query[op.n_query++] = (struct sigv4_field){"uploads", ""};
    op.query[op.n_query++] = (struct sigv4_field){"encoding-type", "url"};
    op.query[op.n_query++] = (struct sigv4_field){"prefix", u->s->prefix};
    if (key[0]) op.query[op.n_query++] = (struct sigv4_field){"key-marker", key};
    if (key[0] && id[0]) op.query[op.n_query++] = (struct sigv4_field){"upload-id-marker", id};
    int rc = store_s3_op_run(&op, u->s, e);
    store_s3_op_fini(&op);
    return rc;
}

// What cannot be aborted now is left for the next sweep.
static size_t abort_found(struct uploads *u, bool (*mine)(void *arg, const char *key), void *arg) {
    size_t n = 0;
    for (size_t i = 0; i < u->n; i++) {
        if (!mine(arg, u->found[i].key)) continue;
        struct s3_upload upload = {.s = u->s, .key = u->found[i].key};
        memcpy(upload.id, u->found[i].id, sizeof upload.id);
        store_s3_upload_abort(&upload);
        n += !upload.id[0];
    }
    return n;
}

static int sweep_pages(struct uploads *u, bool (*mine)(void *arg, const char *key), void *arg,
                       size_t *removed, struct err *e) {
    char key[ENCODED_KEY] = "", id[S3_UPLOAD_ID_BYTES] = "";
    int rc = 0;
    for (bool more = true; more;) {
        if ((rc = fetch_page(u, key, id, e))) return rc;
        *removed += abort_found(u, mine, arg);
        more = u->truncated && u->next_key[0] && (strcmp(key, u->next_key) || strcmp(id, u->next_id));
        memcpy(key, u->next_key, sizeof key);
        memcpy(id, u->next_id, sizeof id);
    }
    return 0;
}

int store_s3_sweep(struct store *s, bool (*mine)(void *arg, const char *key), void *arg, size_t *removed,
                   struct err *e) {
    struct err why = {0};
    struct uploads *u = calloc(1, sizeof *u);
    if (!u) return err_set(e, ERR_MEMORY, "no memory for a list of uploads");
    u->s = (struct s3_store *)s;
    int rc = sweep_pages(u, mine, arg, removed, &why);
    forget(u);
    free(u);
    if (!rc) return 0;
    if (store_transient(rc) || rc == -ERR_MEMORY) {
        if (e && !e->code) *e = why;
        return rc;
    }
    return err_set(
        e, ERR_ABSENT,
        "%s: its multipart uploads cannot be listed (%.300s): what killed jobs leave of theirs stays "
        "until the bucket's lifecycle rule AbortIncompleteMultipartUpload removes it",
        s->url, why.text);
}
