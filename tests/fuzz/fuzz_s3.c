// SPDX-License-Identifier: Apache-2.0
// Replies of an S3 server on any bytes: as a page of a listing, and as an error of some status. The listing's
// reader is private to its file, so the file itself is included. What is kept of a page is within bounds and
// sorted out cleanly.
#include "storage/store_s3_list.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void as_listing(struct s3_store *s, struct s3_op *op) {
    struct store_listing l = {0};
    struct err e = {0};
    struct page *p = calloc(1, sizeof *p);
    if (!p) abort();
    p->s = s;
    p->out = &l;
    op->owner = p;
    int rc = accept_page(op, &e);
    if (rc && (!e.text[0] || l.n || l.n_prefixes)) abort();
    for (size_t i = 0; i < l.n; i++)
        if (!l.objects[i].key[0] || l.objects[i].bytes < 0) abort();
    store_listing_fini(&l);
    free(p);
}

static void as_error(struct s3_op *op, int status) {
    struct err e = {0};
    op->x.status = status;
    if (!store_s3_judge(op) || !op->err.text[0] || strchr(op->err.text, '\n')) abort();
    if (store_s3_error_in_body(op, &e) && !e.text[0]) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const int statuses[] = {200, 301, 400, 403, 404, 409, 412, 500, 503, 999};
    struct s3_store s = {.prefix = (char *)"pre/", .region = "us-east-1"};
    struct s3_op op = {.s = &s, .key = "key"};
    if (!n || n > ((size_t)1 << 20)) return 0;
    buf_init(&op.text, n);
    if (buf_append(&op.text, data + 1, n - 1, NULL)) abort();
    as_listing(&s, &op);
    as_error(&op, statuses[data[0] % (sizeof statuses / sizeof *statuses)]);
    buf_fini(&op.text);
    return 0;
}
