// SPDX-License-Identifier: Apache-2.0
// ListObjectsV2, page by page. Keys are asked for URL-encoded: XML 1.0 cannot carry every byte that a key may
// hold.
#include <stdlib.h>
#include <string.h>

#include "storage/store_s3.h"

#define EMPTY_PAGES_MAX 1000

struct page {
    struct s3_store *s;
    struct store_listing *out;
    bool truncated, listed, encoded;
    char next[2048]; // continuation token
    // The object that is being read.
    char key[4 * STORE_KEY_MAX], etag[72];
    int64_t bytes;
};

// %XX and '+' (a blank, as HTML forms have it). False: no such encoding, or a NUL.
bool store_s3_url_decode(char *text) {
    char *to = text;
    for (const char *p = text; *p; p++) {
        if (*p != '%') {
            *to++ = *p == '+' ? ' ' : *p;
            continue;
        }
        char hex[3] = {p[1], p[1] ? p[2] : 0, 0}, *end;
        long byte = strtol(hex, &end, 16);
        if (end != hex + 2 || !byte) return false;
        *to++ = (char)byte;
        p += 2;
    }
    *to = 0;
    return true;
}

// Relative to the store; NULL: the server answered with a key that was not asked for.
static const char *relative(struct page *p, char *key) {
    size_t n = strlen(p->s->prefix);
    if ((p->encoded && !store_s3_url_decode(key)) || strncmp(key, p->s->prefix, n)) return NULL;
    return key + n;
}

static int add_object(struct page *p, struct err *e) {
    const char *key = relative(p, p->key);
    if (!key || p->bytes < 0)
        return err_set(e, ERR_PEER, "a key in the listing that was not asked for, or no size");
    return *key ? store_listing_add(p->out, key, p->bytes, p->etag, e)
                : 0; // the prefix itself is no key of ours
}

static int add_prefix(struct page *p, const char *text, struct err *e) {
    char copy[4 * STORE_KEY_MAX];
    if (strlen(text) >= sizeof copy) return err_set(e, ERR_PEER, "a prefix in the listing is too long");
    memcpy(copy, text, strlen(text) + 1);
    const char *prefix = relative(p, copy);
    if (!prefix) return err_set(e, ERR_PEER, "a prefix in the listing that was not asked for");
    return store_listing_add_prefix(p->out, prefix, e);
}

static int keep(char *out, size_t n, const char *text, struct err *e) {
    if (strlen(text) >= n) return err_set(e, ERR_PEER, "a field of the listing is too long");
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

static int on_object_field(struct page *p, const char *name, const char *text, struct err *e) {
    if (!strcmp(name, "Key")) return keep(p->key, sizeof p->key, text, e);
    if (!strcmp(name, "ETag")) return keep(p->etag, sizeof p->etag, text, e);
    if (!strcmp(name, "Size") && !bytes_parse_i64(text, &p->bytes))
        return err_set(e, ERR_PEER, "a size '%s'", text);
    return 0;
}

static int on_element(void *arg, const char *path, const char *text, struct err *e) {
    struct page *p = arg;
    if (strncmp(path, "ListBucketResult", 16)) return 0;
    if (!path[16]) p->listed = true;
    if (!path[16]) return 0;
    const char *name = path + 17;
    if (!strcmp(name, "IsTruncated")) p->truncated = !strcmp(text, "true");
    if (!strcmp(name, "NextContinuationToken")) return keep(p->next, sizeof p->next, text, e);
    if (!strcmp(name, "CommonPrefixes/Prefix")) return add_prefix(p, text, e);
    if (!strncmp(name, "Contents/", 9)) return on_object_field(p, name + 9, text, e);
    if (strcmp(name, "Contents")) return 0;
    int rc = add_object(p, e);
    p->key[0] = p->etag[0] = 0;
    p->bytes = -1;
    return rc;
}

// Undoes a page that broke off, so that it can be read again.
static void shrink(struct store_listing *l, size_t n, size_t n_prefixes) {
    while (l->n > n) free(l->objects[--l->n].key);
    while (l->n_prefixes > n_prefixes) free(l->prefixes[--l->n_prefixes]);
}

static int accept_page(struct s3_op *op, struct err *e) {
    struct page *p = op->owner;
    size_t n = p->out->n, n_prefixes = p->out->n_prefixes;
    p->truncated = p->listed = false;
    p->encoded = op->text.data && strstr(op->text.data, "<EncodingType>url</"); // no key can hold a bare '<'
    p->next[0] = p->key[0] = p->etag[0] = 0;
    p->bytes = -1;
    int rc = store_s3_xml(&op->text, on_element, p, e);
    if (!rc && !p->listed) rc = err_set(e, ERR_PEER, "the reply is no listing");
    if (!rc && p->truncated && !p->next[0])
        rc = err_set(e, ERR_PEER, "a cut listing without a continuation token");
    if (rc) shrink(p->out, n, n_prefixes);
    return rc;
}

static int fetch_page(struct page *p, const char *prefix, const char *delimiter, const char *token,
                      struct err *e) {
    struct s3_op op = {
        .verb = "LIST", .method = "GET", .accept = accept_page, .owner = p, .text_max = S3_LIST_BODY_MAX};
    op.query[op.n_query++] = (struct sigv4_field){"list-type", "2"};
    op.query[op.n_query++] = (struct sigv4_field){"encoding-type", "url"};
    op.query[op.n_query++] = (struct sigv4_field){"prefix", prefix};
    if (delimiter) op.query[op.n_query++] = (struct sigv4_field){"delimiter", delimiter};
    if (token[0]) op.query[op.n_query++] = (struct sigv4_field){"continuation-token", token};
    int rc = store_s3_op_run(&op, p->s, e);
    store_s3_op_fini(&op);
    return rc;
}

static int fetch_pages(struct page *p, const char *prefix, const char *delimiter, store_page_fn *page,
                       void *arg, struct err *e) {
    char token[sizeof p->next] = "";
    int empty = 0, rc;
    do {
        memcpy(token, p->next, sizeof token);
        rc = fetch_page(p, prefix, delimiter, token, e);
        if (rc) return rc;
        empty = p->out->n + p->out->n_prefixes ? 0 : empty + 1;
        if (p->truncated && (!strcmp(token, p->next) || empty > EMPTY_PAGES_MAX))
            return err_set(e, ERR_DATA, "the endpoint goes round in circles");
        rc = page(arg, p->out, e);
    } while (p->truncated && !rc);
    return rc;
}

int store_s3_list(struct store *s, const char *prefix, const char *delimiter, store_page_fn *page, void *arg,
                  struct err *e) {
    struct buf full;
    struct store_listing l = {0};
    struct page *p = calloc(1, sizeof *p);
    if (!p) return err_set(e, ERR_MEMORY, "no memory for a listing");
    p->s = (struct s3_store *)s;
    p->out = &l;
    buf_init(&full, 4 * STORE_KEY_MAX);
    int rc = buf_appendf(&full, e, "%s%s", p->s->prefix, prefix);
    if (!rc) rc = fetch_pages(p, full.data, delimiter, page, arg, e);
    store_listing_fini(&l);
    buf_fini(&full);
    free(p);
    return rc;
}
