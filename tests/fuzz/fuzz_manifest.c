// SPDX-License-Identifier: Apache-2.0
// A checkpoint's manifest on any bytes. The last line of an input may be wrong or missing: the CRC is made
// right here, so that the reader behind it is reached. What is accepted tiles every tensor, and reads back to
// the same bytes.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/ckpt_manifest.h"
#include "storage/hash.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(const char *text, size_t n) {
    struct err e = {0};
    struct ckpt_manifest *m = calloc(1, sizeof *m), *again = calloc(1, sizeof *again);
    struct buf out;
    if (!m || !again) abort();
    buf_init(&out, CKPT_MANIFEST_MAX);
    if (ckpt_manifest_parse(m, text, n, "input", &e)) {
        if (e.code != ERR_DATA || !*e.text) abort();
    } else {
        for (size_t i = 0; i < m->n_boxes; i++) {
            const struct ckpt_box *b = &m->boxes[i];
            const struct ckpt_file *f = &m->files[b->file];
            if (b->begin < 0 || b->bytes < 4 || f->data_begin + b->begin + b->bytes > f->bytes) abort();
            if (!ckpt_manifest_find(m, b->name)) abort();
        }
        if (ckpt_manifest_write(m, &out, &e)) abort();
        if (ckpt_manifest_parse(again, out.data, out.len, "input", &e)) abort();
        if (again->n_boxes != m->n_boxes || again->n_tensors != m->n_tensors) abort();
    }
    ckpt_manifest_fini(m);
    ckpt_manifest_fini(again);
    free(m);
    free(again);
    buf_fini(&out);
}

static void check_part(const char *text, size_t n) {
    struct err e = {0};
    struct ckpt_manifest *m = calloc(1, sizeof *m);
    char *whole = strndup(text, n);
    if (!m || !whole) abort();
    snprintf(m->id, sizeof m->id, "000000000007-0123456789abcdef");
    if (!ckpt_manifest_add_part(m, whole, "input", &e) && ckpt_manifest_seal(m, "input", &e) &&
        e.code != ERR_DATA)
        abort();
    ckpt_manifest_fini(m);
    free(m);
    free(whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct err e = {0};
    struct buf sealed;
    if (n > ((size_t)1 << 20)) return 0;
    check((const char *)data, n);
    check_part((const char *)data, n);
    // Up to the CRC, or all but the closing bracket.
    const char *tail = memmem(data, n, ",\"manifest_crc32c\"", 18);
    size_t body = tail ? (size_t)(tail - (const char *)data) : n;
    buf_init(&sealed, (size_t)2 << 20);
    if (buf_append(&sealed, data, body, &e) ||
        buf_appendf(&sealed, &e, ",\"manifest_crc32c\":\"%08" PRIx32 "\"}\n",
                    hash_crc32c(0, sealed.data ? sealed.data : "", body)))
        abort();
    check(sealed.data, sealed.len);
    buf_fini(&sealed);
    return 0;
}
