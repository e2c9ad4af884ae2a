// SPDX-License-Identifier: Apache-2.0
// Checking a data set byte by byte, several shards at a time, told in the order of the manifest.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/dataset.h"
#include "storage/dataset_manifest.h"
#include "storage/hash.h"
#include "storage/inorder.h"
#include "storage/npy_scan.h"
#include "storage/shard_read.h"

#define LINES_BYTES ((size_t)64 << 20)

// One shard and what was found in it.
struct job {
    struct dataset *d;
    size_t number;
    struct dataset_check sum;
    struct buf lines; // problems, each with its NUL
    struct err first; // of them
};

struct checking {
    struct dataset_check *sum;
    dataset_report_fn *report;
    void *arg;
    struct err first;
};

static void problem(struct job *j, const struct err *what) {
    struct err ignored = {ERR_OK};
    j->sum.problems++;
    if (!j->first.code) j->first = *what;
    // Beyond the bound they are counted only.
    if (buf_append(&j->lines, what->text, strlen(what->text) + 1, &ignored)) err_clear(&ignored);
}

// What sees a member's bytes beside the CRC.
struct scans {
    struct film_scan film;
    struct npy_scan npy;
};

static int feed(struct scans *s, const void *bytes, size_t n, struct err *e) {
    npy_scan_feed(&s->npy, bytes, n);
    return film_scan_feed(&s->film, bytes, n, e);
}

// `scans`: NULL between members.
static int read_crc(struct shard_reader *r, int64_t from, int64_t to, struct scans *scans, uint32_t *crc,
                    uint32_t *whole, struct err *e) {
    char piece[16384];
    *crc = 0;
    while (from < to) {
        size_t n = to - from < (int64_t)sizeof piece ? (size_t)(to - from) : sizeof piece;
        int rc = shard_reader_read(r, from, n, piece, e);
        if (!rc && scans) rc = feed(scans, piece, n, e);
        if (rc) return rc;
        *crc = hash_crc32c(*crc, piece, n);
        *whole = hash_crc32c(*whole, piece, n);
        from += (int64_t)n;
    }
    return 0;
}

// The index's lists of steps and keys may have been left out for want of room.
static void check_film(struct job *j, const struct dataset_index *x, const struct index_sample *s, uint32_t m,
                       const char *shard, struct film_table *found) {
    struct err e = {ERR_OK};
    const struct film_table *told = dataset_index_film(x, m);
    if (!told || !told->frames) return; // an index from before there were tables, or one without this one
    if (told->frames && !told->steps && !told->keys) film_forget(found);
    if (film_same(told, found)) return;
    int rc =
        err_set(&e, ERR_DATA,
                "%s: member '%s.%s' at offset %" PRId64 ": its table of frames is not the index's (%" PRId64
                " frames, the index says %" PRId64 ")",
                shard, dataset_index_text(x, s->stem), dataset_index_text(x, x->members[m].name),
                x->members[m].offset, found->frames, told->frames);
    if (rc) problem(j, &e);
}

// Of a member that a stream names: its shape, and its numbers.
static void check_numbers(struct job *j, const struct dataset_index *x, const struct index_sample *s,
                          const struct index_member *m, const char *shard, const struct npy_scan *npy) {
    const char *name = dataset_index_text(x, m->name);
    char why[200];
    int i = 0;
    while (i < x->n_streams && strcmp(x->streams[i].member, name) != 0) i++;
    if (i == x->n_streams) return;
    if (!npy_shape_differs(&npy->shape, &x->streams[i], why) && !npy_scan_is_bad(npy, why)) return;
    struct err e = {ERR_OK};
    int rc = err_set(&e, ERR_DATA, "%s: member '%s.%s' at offset %" PRId64 ": %s", shard,
                     dataset_index_text(x, s->stem), name, m->offset, why);
    if (rc) problem(j, &e);
}

// True when it is whole.
static bool check_member(struct job *j, const struct dataset_index *x, const struct index_sample *s,
                         const struct index_member *m, const char *shard, uint32_t crc) {
    struct err e = {ERR_OK};
    if (crc == m->crc32c) return true;
    int rc = err_set(&e, ERR_DATA,
                     "%s: member '%s.%s' at offset %" PRId64 ", %" PRId64 " bytes: CRC32C is %08" PRIx32
                     ", the index says %08" PRIx32,
                     shard, dataset_index_text(x, s->stem), dataset_index_text(x, m->name), m->offset,
                     m->bytes, crc, m->crc32c);
    if (rc) problem(j, &e);
    return false;
}

static int read_member(struct job *j, const struct dataset_index *x, const struct index_sample *s, uint32_t m,
                       struct shard_reader *r, const char *shard, uint32_t *whole, struct err *e) {
    const struct index_member *at = &x->members[m];
    struct scans scans;
    struct film_table film;
    struct err ignored = {ERR_OK};
    uint32_t crc;
    film_scan_init(&scans.film, true);
    npy_scan_init(&scans.npy);
    int rc = read_crc(r, at->offset, at->offset + at->bytes, &scans, &crc, whole, e);
    int ended = film_scan_end(&scans.film, &film, rc ? &ignored : e);
    if (!rc) rc = ended;
    if (!rc && check_member(j, x, s, at, shard, crc)) {
        check_film(j, x, s, m, shard, &film);
        check_numbers(j, x, s, at, shard, &scans.npy);
    }
    film_fini(&film);
    return rc;
}

// Walks the members in the order of the tar; headers and padding lie between them.
static int check_bytes(struct job *j, const struct manifest_shard *shard, const struct dataset_index *x,
                       struct shard_reader *r, struct err *e) {
    uint32_t crc, whole = 0;
    int64_t at = 0, before = j->sum.problems;
    int rc = 0;
    for (size_t i = 0; i < x->n_samples; i++) {
        const struct index_sample *s = &x->samples[i];
        for (uint32_t k = 0; k < s->n; k++) {
            const struct index_member *m = &x->members[s->first + k];
            if ((rc = read_crc(r, at, m->offset, NULL, &crc, &whole, e))) return rc;
            if ((rc = read_member(j, x, s, s->first + k, r, shard->key, &whole, e))) return rc;
            at = m->offset + m->bytes;
        }
        j->sum.samples++;
    }
    if ((rc = read_crc(r, at, x->bytes, NULL, &crc, &whole, e))) return rc;
    if (whole == shard->crc32c || j->sum.problems != before) return 0;
    return err_set(
        e, ERR_DATA,
        "%s: the members are whole, but a tar header or padding between them is damaged: CRC32C of the"
        " shard is %08" PRIx32 ", the manifest says %08" PRIx32,
        shard->key, whole, shard->crc32c);
}

static int check_shard(struct job *j, struct err *e) {
    const struct dataset_manifest *m = dataset_manifest_of(j->d);
    const struct manifest_shard *shard = &m->shards[j->number];
    struct store *s = dataset_store(j->d, j->number);
    struct store_result head;
    struct dataset_index x;
    struct shard_reader r = {.data = NULL};
    dataset_index_init(&x);
    int rc = store_head(s, shard->key, &head, e);
    if (!rc && head.object_bytes != shard->bytes)
        rc = err_set(e, ERR_DATA, "%s: has %" PRId64 " bytes, the manifest says %" PRId64, shard->key,
                     head.object_bytes, shard->bytes);
    if (!rc) rc = dataset_load_index(s, m, j->number, &x, e);
    if (!rc) rc = shard_reader_open(&r, s, shard->key, shard->bytes, e);
    if (!rc) rc = check_bytes(j, shard, &x, &r, e);
    if (!rc) j->sum.bytes += shard->bytes;
    shard_reader_close(&r);
    dataset_index_fini(&x);
    return rc;
}

// ---- all of them

static void work(void *arg) {
    struct job *j = arg;
    struct err one = {ERR_OK};
    if (check_shard(j, &one)) problem(j, &one);
    j->sum.shards = 1;
}

// The rest of the shards would fail likewise where the store cannot be reached: positive, enough.
static int finish(void *arg, void *job, struct err *e) {
    struct checking *c = arg;
    struct job *j = job;
    c->sum->shards += j->sum.shards;
    c->sum->samples += j->sum.samples;
    c->sum->bytes += j->sum.bytes;
    c->sum->problems += j->sum.problems;
    for (size_t at = 0; c->report && at < j->lines.len; at += strlen(j->lines.data + at) + 1)
        c->report(c->arg, j->lines.data + at);
    if (!c->first.code) c->first = j->first;
    enum err_code code = j->first.code;
    return code == ERR_UNAVAILABLE || code == ERR_TIMEOUT || code == ERR_DENIED;
}

static void drop(void *job) {
    struct job *j = job;
    buf_fini(&j->lines);
    free(j);
}

int dataset_check(struct dataset *d, dataset_report_fn *report, void *arg, struct dataset_check *out,
                  struct err *e) {
    struct checking c = {.sum = out, .report = report, .arg = arg};
    struct inorder jobs = {.width = SHARDS_AT_ONCE, .work = work, .finish = finish, .drop = drop, .arg = &c};
    int rc = 0;
    memset(out, 0, sizeof *out);
    for (int64_t i = 0; i < dataset_shards(d) && !rc; i++) {
        struct job *j = calloc(1, sizeof *j);
        if (!j) rc = err_set(e, ERR_MEMORY, "no memory to check a shard");
        if (!j) break;
        *j = (struct job){.d = d, .number = (size_t)i};
        buf_init(&j->lines, LINES_BYTES);
        rc = inorder_give(&jobs, j, e);
    }
    rc = inorder_end(&jobs, rc, e);
    if (rc < 0 || !c.first.code) return rc < 0 ? rc : 0;
    *e = c.first;
    return -(int)c.first.code;
}
