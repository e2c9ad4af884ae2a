// SPDX-License-Identifier: Apache-2.0
// A server's list of multipart uploads on any bytes: what is kept of it is this store's, with a key and an
// id, or it is refused. The reader is private to its file, so the file itself is included.
#include "storage/store_s3_sweep.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct s3_store s = {.prefix = (char *)"pre/", .region = "us-east-1"};
    struct uploads *u = calloc(1, sizeof *u);
    struct s3_op op = {.s = &s, .key = "key", .owner = u};
    struct err e = {0};
    if (!u) abort();
    u->s = &s;
    buf_init(&op.text, n + 1);
    if (n && buf_append(&op.text, data, n, NULL)) abort();
    int rc = accept_page(&op, &e);
    if (rc && !e.text[0]) abort();
    for (size_t i = 0; i < u->n; i++)
        if (!u->found[i].key[0] || !u->found[i].id[0]) abort();
    forget(u);
    free(u);
    buf_fini(&op.text);
    return 0;
}
