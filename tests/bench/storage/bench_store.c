// SPDX-License-Identifier: Apache-2.0
// bench_store get|put URL BYTES PART IN_FLIGHT: moves so many bytes in requests of PART, so many under way at
// once, into and out of this program's memory. GET verifies the CRC32C of every part: of one object
// (noop_http), or of the objects that put made. One line of JSON.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "bench_block.h"
#include "storage/hash.h"
#include "storage/store.h"
#include "tests/lib/peak_memory.h"

struct slot {
    char key[32];
    char *memory;
    struct store_request *request;
};

struct bench {
    struct store *s;
    bool put;
    int64_t parts;
    size_t part, width;
    uint32_t crc; // of a part
    struct slot *slots;
    const char *block;
    int64_t bad;
};

static int begin(struct bench *b, int64_t i, struct err *e) {
    struct slot *slot = &b->slots[(size_t)i % b->width];
    snprintf(slot->key, sizeof slot->key, "b/%06" PRId64, i);
    struct store_call c = {.op = b->put ? STORE_PUT : STORE_GET,
                           .key = slot->key,
                           .length = b->put ? 0 : (int64_t)b->part,
                           .into = slot->memory,
                           .capacity = b->part,
                           .data = b->block,
                           .bytes = b->part};
    return store_start(b->s, &slot->request, &c, e);
}

static int finish(struct bench *b, int64_t i, struct err *e) {
    struct slot *slot = &b->slots[(size_t)i % b->width];
    struct store_result got;
    int rc = store_wait(b->s, slot->request, &got, e);
    if (!rc && !b->put) b->bad += hash_crc32c(0, slot->memory, b->part) != b->crc;
    return rc;
}

static int move(struct bench *b, struct err *e) {
    int64_t begun = 0, done = 0;
    int rc = 0;
    while (done < b->parts) {
        for (; !rc && begun < b->parts && begun < done + (int64_t)b->width; begun += !rc)
            rc = begin(b, begun, e);
        if (done == begun) break;
        struct err late = {0};
        int one = finish(b, done++, rc ? &late : e);
        if (!rc) rc = one;
    }
    return rc;
}

static int prepare(struct bench *b, struct err *e) {
    char *block = malloc(2 * BLOCK_BYTES);
    b->slots = calloc(b->width, sizeof *b->slots);
    if (!block || !b->slots) return err_set(e, ERR_MEMORY, "no memory");
    bench_block_fill(block);
    b->crc = hash_crc32c(0, block, b->part);
    for (size_t i = 0; i < b->width && !b->put; i++)
        if (!(b->slots[i].memory = malloc(b->part))) return err_set(e, ERR_MEMORY, "no memory");
    b->block = block;
    if (b->put) return 0;
    free(block); // a GET's memory is its parts alone
    b->block = NULL;
    return 0;
}

int main(int argc, char **argv) {
    int64_t bytes, part, width;
    struct err e = {0};
    if (argc != 6 || !bytes_parse_i64(argv[3], &bytes) || !bytes_parse_i64(argv[4], &part) ||
        !bytes_parse_i64(argv[5], &width) || part < 1 || part > (int64_t)BLOCK_BYTES || width < 1 ||
        width > 256 || bytes < part) {
        fprintf(stderr, "usage: bench_store get|put URL BYTES PART IN_FLIGHT\n");
        return 64;
    }
    struct bench b = {.put = !strcmp(argv[1], "put"), .parts = bytes / part, .part = (size_t)part};
    struct store_options o = {.path_style = true, .connections = (int)width, .deadline_ms = 300000};
    b.width = (size_t)width;
    int rc = prepare(&b, &e);
    if (!rc) rc = store_open(&b.s, argv[2], &o, &e);
    double begun = clock_seconds(), cpu = bench_cpu_seconds();
    if (!rc) rc = move(&b, &e);
    double seconds = clock_seconds() - begun;
    cpu = bench_cpu_seconds() - cpu;
    store_close(b.s);
    if (rc) {
        fprintf(stderr, "bench_store: %s\n", e.text);
        return err_exit_code(e.code);
    }
    double gb = 1e-9 * (double)(b.parts * part);
    printf(
        "{\"gb\": %.3f, \"seconds\": %.3f, \"gb_per_s\": %.3f, \"cpu_s_per_gb\": %.3f, \"peak_mib\": %.1f, "
        "\"bad\": %" PRId64 "}\n",
        gb, seconds, gb / seconds, cpu / gb, (double)peak_memory_kib() / 1024, b.bad);
    return b.bad != 0;
}
