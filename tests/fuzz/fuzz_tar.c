// SPDX-License-Identifier: Apache-2.0
// The tar scanner and the indexer on any bytes. Every member lies inside the archive under a safe name; what
// can be indexed gives an index that reads back to the same bytes.
#include <stdlib.h>
#include <string.h>

#include "storage/dataset.h"
#include "storage/dataset_index.h"
#include "storage/tar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void scan(const uint8_t *data, size_t n) {
    struct err e = {0};
    struct tar_memory memory = {(const char *)data, n};
    struct tar_source source = tar_memory_source(&memory, "input");
    struct tar_scan s;
    struct tar_member m;
    int rc;
    tar_scan_init(&s, &source);
    while ((rc = tar_scan_next(&s, &m, &e)) > 0) {
        if (m.offset < TAR_BLOCK || m.bytes < 0 || m.offset + m.bytes > (int64_t)n) abort();
        if (tar_name_flaw(m.name, strlen(m.name))) abort();
    }
    if (rc && e.code != ERR_DATA) abort();
}

static void index_and_back(const uint8_t *data, size_t n) {
    struct err e = {0};
    struct buf text, again;
    struct dataset_index x;
    buf_init(&text, DATASET_INDEX_MAX);
    buf_init(&again, DATASET_INDEX_MAX);
    dataset_index_init(&x);
    if (dataset_index_tar("input.tar", data, n, &text, &e)) {
        if (e.code != ERR_DATA) abort();
    } else {
        if (dataset_index_parse(&x, text.data, text.len, "input.tar", &e)) abort();
        if (dataset_index_write(&x, "input.tar", &again, &e)) abort();
        if (text.len != again.len || memcmp(text.data, again.data, text.len)) abort();
    }
    dataset_index_fini(&x);
    buf_fini(&text);
    buf_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n > ((size_t)1 << 20)) return 0;
    scan(data, n);
    index_and_back(data, n);
    return 0;
}
