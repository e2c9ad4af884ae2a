// SPDX-License-Identifier: Apache-2.0
// bench_loader make|read URL SAMPLES BYTES IN_FLIGHT: writes a data set of so many samples of BYTES, or opens
// it and reads each of them once in the loader's order, as training does: so many under way at once, every
// byte compared with the CRC32C of its index. One line of JSON of `read`, with the most memory that the
// process had.
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "bench_block.h"
#include "storage/loader.h"
#include "storage/shard.h"
#include "tests/lib/peak_memory.h"

#define PER_SHARD     64
#define READERS_MAX   256
#define SHUFFLE_BLOCK 256

struct reading {
    struct dataset *d;
    struct loader_plan *plan;
    int64_t samples;
    _Atomic int64_t next, bytes;
    pthread_mutex_t lock;
    struct err err;
};

static int put_shard(struct store *s, const char *block, int64_t first, int64_t n, size_t bytes,
                     struct err *e) {
    struct buf tar;
    char key[32], stem[32];
    int rc = 0;
    buf_init(&tar, PER_SHARD * (bytes + 4096) + 65536);
    for (int64_t i = first; i < first + n && !rc; i++) {
        snprintf(stem, sizeof stem, "s%07" PRId64, i);
        rc = shard_append(&tar, stem, "bin", block, bytes, e);
    }
    if (!rc) rc = shard_finish(&tar, e);
    snprintf(key, sizeof key, "%06" PRId64 ".tar", first / PER_SHARD);
    if (!rc) rc = dataset_put_shard(s, key, tar.data, tar.len, e);
    buf_fini(&tar);
    return rc;
}

static int make(const char *url, const struct store_options *o, int64_t samples, size_t bytes,
                struct err *e) {
    struct store *s = NULL;
    char *block = malloc(2 * BLOCK_BYTES);
    if (!block) return err_set(e, ERR_MEMORY, "no memory");
    bench_block_fill(block);
    int rc = store_open(&s, url, o, e);
    for (int64_t at = 0; at < samples && !rc; at += PER_SHARD)
        rc = put_shard(s, block, at, samples - at < PER_SHARD ? samples - at : PER_SHARD, bytes, e);
    if (!rc) rc = dataset_write_manifest(s, NULL, 0, e);
    store_close(s);
    free(block);
    return rc;
}

static int read_one(struct reading *r, int64_t g, struct err *e) {
    struct loader_item item;
    struct sample sample;
    loader_item_at(r->plan, g, &item);
    int rc = dataset_read(r->d, item.sample, &sample, e);
    if (rc) return rc;
    for (int i = 0; i < sample.n; i++) r->bytes += (int64_t)sample.members[i].bytes;
    sample_fini(&sample);
    return 0;
}

static void *reader(void *arg) {
    struct reading *r = arg;
    struct err e = {0};
    int rc = 0;
    for (int64_t g; !rc && (g = r->next++) < r->samples;) rc = read_one(r, g, &e);
    pthread_mutex_lock(&r->lock);
    if (rc && !r->err.code) r->err = e;
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static int read_all(struct reading *r, int width, struct err *e) {
    pthread_t threads[READERS_MAX];
    int started = 0;
    while (started < width && !pthread_create(&threads[started], NULL, reader, r)) started++;
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    if (started < width) return err_set(e, ERR_MEMORY, "only %d threads could be started", started);
    if (r->err.code) *e = r->err;
    return -(int)r->err.code;
}

static int read_set(const char *url, const struct store_options *o, int64_t samples, int width,
                    struct err *e) {
    struct reading r = {.samples = samples, .lock = PTHREAD_MUTEX_INITIALIZER};
    struct loader_options order = {.seed = 3, .window = 1, .shuffle_block = SHUFFLE_BLOCK};
    int64_t *frames = malloc((size_t)samples * sizeof *frames);
    if (!frames) return err_set(e, ERR_MEMORY, "no memory");
    for (int64_t i = 0; i < samples; i++) frames[i] = 1;
    int rc = dataset_open(&r.d, url, o, e);
    if (!rc && dataset_samples(r.d) != samples)
        rc = err_set(e, ERR_DATA, "%" PRId64 " samples instead of %" PRId64, dataset_samples(r.d), samples);
    if (!rc) rc = loader_plan_create_frames(&r.plan, frames, samples, &order, e);
    double begun = clock_seconds(), cpu = bench_cpu_seconds();
    if (!rc) rc = read_all(&r, width, e);
    double seconds = clock_seconds() - begun, gb = 1e-9 * (double)r.bytes;
    cpu = bench_cpu_seconds() - cpu;
    if (!rc)
        printf("{\"gb\": %.3f, \"seconds\": %.3f, \"gb_per_s\": %.3f, \"cpu_s_per_gb\": %.3f, \"peak_mib\": "
               "%.1f}\n",
               gb, seconds, gb / seconds, cpu / gb, (double)peak_memory_kib() / 1024);
    loader_plan_destroy(r.plan);
    dataset_close(r.d);
    free(frames);
    return rc;
}

int main(int argc, char **argv) {
    int64_t samples, bytes, width;
    struct err e = {0};
    if (argc != 6 || !bytes_parse_i64(argv[3], &samples) || !bytes_parse_i64(argv[4], &bytes) ||
        !bytes_parse_i64(argv[5], &width) || samples < 1 || samples > 1000000 || bytes < 1 ||
        bytes > (int64_t)BLOCK_BYTES || width < 1 || width > READERS_MAX) {
        fprintf(stderr, "usage: bench_loader make|read URL SAMPLES BYTES IN_FLIGHT\n");
        return 64;
    }
    struct store_options o = {.path_style = true, .connections = (int)width, .deadline_ms = 300000};
    int rc = !strcmp(argv[1], "make") ? make(argv[2], &o, samples, (size_t)bytes, &e)
                                      : read_set(argv[2], &o, samples, (int)width, &e);
    if (!rc) return 0;
    fprintf(stderr, "bench_loader: %s\n", e.text);
    return err_exit_code(e.code);
}
