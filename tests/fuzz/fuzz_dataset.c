// SPDX-License-Identifier: Apache-2.0
// Index, manifest and sample metadata on any bytes: what is accepted holds together, and is written and read
// back to the same bytes.
#include <stdlib.h>
#include <string.h>

#include "storage/dataset_index.h"
#include "storage/dataset_manifest.h"
#include "storage/loader.h"
#include "storage/sample_meta.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_refusal(const struct err *e) {
    if (e->code != ERR_DATA || !strstr(e->text, "input")) abort();
}

static void index_and_back(const struct dataset_index *x) {
    struct err e = {0};
    struct dataset_index again;
    struct buf text, twice;
    buf_init(&text, DATASET_INDEX_MAX);
    buf_init(&twice, DATASET_INDEX_MAX);
    dataset_index_init(&again);
    if (dataset_index_write(x, "input.tar", &text, &e)) abort();
    if (dataset_index_parse(&again, text.data, text.len, "input.tar", &e)) abort();
    if (dataset_index_write(&again, "input.tar", &twice, &e)) abort();
    if (text.len != twice.len || memcmp(text.data, twice.data, text.len)) abort();
    dataset_index_fini(&again);
    buf_fini(&text);
    buf_fini(&twice);
}

static void check_index(const char *text, size_t n) {
    struct err e = {0};
    struct dataset_index x;
    dataset_index_init(&x);
    if (dataset_index_parse(&x, text, n, "input.tar", &e)) {
        check_refusal(&e);
    } else {
        int64_t at = 0;
        for (size_t i = 0; i < x.n_members; i++) {
            const struct index_member *m = &x.members[i];
            if (m->offset < at || m->bytes < 0 || m->offset + m->bytes > x.bytes) abort();
            at = m->offset + m->bytes;
        }
        index_and_back(&x);
    }
    dataset_index_fini(&x);
}

static void plan(const struct dataset_manifest *m) {
    struct err e = {0};
    struct loader_plan *p;
    struct loader_options o = {1, 4, 16};
    struct loader_item item;
    int64_t frames[64], n = m->samples < 64 ? m->samples : 64;
    for (int64_t i = 0; i < n; i++) frames[i] = dataset_manifest_frames(m, i);
    if (loader_plan_create_frames(&p, frames, n, &o, &e)) return;
    for (int64_t g = 0; g < 64; g++) {
        loader_item_at(p, g, &item);
        if (item.sample < 0 || item.sample >= n || item.first_frame < 0 ||
            item.first_frame + 4 > frames[item.sample])
            abort();
    }
    loader_plan_destroy(p);
}

static void write_manifest(const struct dataset_manifest *m, struct buf *out) {
    struct err e = {0};
    struct json_writer w;
    json_begin(&w, out);
    dataset_manifest_put_head(&w);
    for (size_t i = 0; i < m->n_shards; i++) dataset_manifest_put_shard(&w, m, i);
    if (dataset_manifest_put_tail(&w, m, &e)) abort();
}

static void check_manifest(const char *text, size_t n) {
    struct err e = {0};
    struct dataset_manifest m, again;
    struct buf out, twice;
    dataset_manifest_init(&m);
    dataset_manifest_init(&again);
    buf_init(&out, DATASET_MANIFEST_MAX);
    buf_init(&twice, DATASET_MANIFEST_MAX);
    if (dataset_manifest_parse(&m, text, n, "input", &e)) {
        check_refusal(&e);
    } else {
        write_manifest(&m, &out);
        if (dataset_manifest_parse(&again, out.data, out.len, "input", &e)) abort();
        write_manifest(&again, &twice);
        if (out.len != twice.len || memcmp(out.data, twice.data, out.len)) abort();
        size_t shard = dataset_manifest_shard(&m, m.samples - 1);
        if (shard >= m.n_shards || m.shards[shard].first + m.shards[shard].samples != m.samples) abort();
        plan(&m);
    }
    dataset_manifest_fini(&m);
    dataset_manifest_fini(&again);
    buf_fini(&out);
    buf_fini(&twice);
}

static void check_meta(const char *text, size_t n) {
    struct err e = {0};
    struct sample_meta m, back;
    struct buf out;
    bool known;
    buf_init(&out, SAMPLE_META_BYTES_MAX);
    if (sample_meta_parse(&m, &known, text, n, "input", &e)) {
        check_refusal(&e);
    } else if (known) {
        if (sample_meta_write(&m, NULL, &out, &e)) abort();
        if (sample_meta_parse(&back, &known, out.data, out.len, "input", &e)) abort();
        if (!known || memcmp(&m, &back, sizeof m)) abort();
    }
    buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n > ((size_t)1 << 20)) return 0;
    check_index((const char *)data, n);
    check_manifest((const char *)data, n);
    check_meta((const char *)data, n);
    return 0;
}
