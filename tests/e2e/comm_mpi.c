// SPDX-License-Identifier: Apache-2.0
// One rank of the MPI tests, started by comm_mpi.sh: `exact SHARDS` prints a digest of an exact reduction,
// `check` compares every collective with what it must give, `late` and `die` show a peer that is missing.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/rng.h"
#include "comm/coll.h"
#include "comm/exact.h"
#include "comm/grid.h"

#define ELEMS 100003

struct world {
    struct coll *coll;
    struct device *device;
    int rank, size;
    int64_t *offset;
};

#define REQUIRE(condition)                                                                                   \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: rank %d: %s\n", __FILE__, __LINE__, w->rank, #condition);                \
            return 1;                                                                                        \
        }                                                                                                    \
    } while (0)

static float leaf_value(int64_t shard, int64_t i) {
    uint32_t words[4];
    rng_block(rng_key(3, RNG_TEST, 0), 0, (uint64_t)shard, (uint32_t)i, words);
    return (rng_unit(words[0]) - 0.5f) * (float)(1 << (words[1] & 15));
}

static int exact_digest(struct world *w, int64_t shards, struct err *e) {
    struct exact *x;
    struct coll_op *op;
    int64_t lo, hi;
    float *leaf, *sum = calloc(ELEMS, sizeof *sum);
    REQUIRE(sum);
    const int64_t at[] = {ELEMS, 2 * ELEMS / 3, ELEMS / 7, 0};
    const struct exact_cut cut = {.n = 3, .cut = at};
    REQUIRE(!exact_open(&x, w->coll, shards, w->offset, &cut, w->device, e));
    exact_leaves(x, &lo, &hi);
    for (int64_t shard = lo; shard < hi; shard++) {
        REQUIRE(!exact_leaf(x, shard, &leaf, e));
        for (int64_t i = 0; i < ELEMS; i++) leaf[i] += leaf_value(shard, i);
        REQUIRE(!exact_leaf_ready(x, shard, ELEMS / 2, e));
        REQUIRE(!coll_progress(w->coll, e));
        REQUIRE(!exact_leaf_done(x, shard, e));
    }
    REQUIRE(!exact_finish(x, sum + w->offset[w->rank], e));
    REQUIRE(!coll_all_gather(w->coll, &op, "sums", sum, w->offset, e));
    REQUIRE(!coll_wait(w->coll, op, e));
    uint64_t digest = 0;
    for (int64_t i = 0; i < ELEMS; i++) {
        uint32_t bits;
        memcpy(&bits, &sum[i], sizeof bits);
        digest = rng_mix64(digest ^ bits) + (uint64_t)i;
    }
    int64_t digests[64], mine = (int64_t)digest;
    REQUIRE(w->size <= 64);
    REQUIRE(!coll_gather_all(w->coll, "digests", &mine, sizeof mine, digests, e));
    for (int r = 0; r < w->size; r++) REQUIRE(digests[r] == mine);
    if (w->rank == 0) printf("%" PRId64 " shards: %016" PRIx64 "\n", shards, digest);
    exact_close(x);
    free(sum);
    return 0;
}

static int check_floats(struct world *w, struct err *e) {
    struct coll_op *reduce, *gather;
    float *a = calloc(ELEMS, sizeof *a), *b = calloc(ELEMS, sizeof *b);
    REQUIRE(a && b);
    for (int64_t i = 0; i < ELEMS; i++) a[i] = (float)(w->rank + 1) * (float)(i % 1000); // exact in any order
    for (int64_t i = w->offset[w->rank]; i < w->offset[w->rank + 1]; i++) b[i] = (float)(i % 4096);
    REQUIRE(!coll_reduce_scatter(w->coll, &reduce, "reduce", a, w->offset, e));
    REQUIRE(!coll_all_gather(w->coll, &gather, "gather", b, w->offset, e)); // both under way
    REQUIRE(!coll_wait(w->coll, gather, e));
    REQUIRE(!coll_wait(w->coll, reduce, e));
    float ranks = (float)(w->size * (w->size + 1) / 2);
    for (int64_t i = w->offset[w->rank]; i < w->offset[w->rank + 1]; i++)
        REQUIRE(a[i] == ranks * (float)(i % 1000));
    for (int64_t i = 0; i < ELEMS; i++) REQUIRE(b[i] == (float)(i % 4096));
    free(a);
    free(b);
    return 0;
}

// In row k rank a sends k * 10000 + a * 100 + b, (k + a + b) % 3 times, to rank b.
static int check_exchange(struct world *w, struct err *e) {
    enum { ROWS = 3 };
    struct coll_op *op;
    int64_t to[64 * ROWS + 1] = {0}, from[64 * ROWS + 1] = {0};
    float send[2 * 64 * ROWS], recv[2 * 64 * ROWS];
    REQUIRE(w->size <= 64);
    for (int k = 0; k < ROWS * w->size; k++) {
        int r = k % w->size, row = k / w->size;
        int64_t n = (row + w->rank + r) % 3;
        to[k + 1] = to[k] + n;
        from[k + 1] = from[k] + n;
        for (int64_t i = to[k]; i < to[k + 1]; i++) send[i] = (float)(row * 10000 + w->rank * 100 + r);
    }
    REQUIRE(!coll_exchange(w->coll, &op, "exchange", ROWS, send, to, recv, from, e));
    REQUIRE(!coll_wait(w->coll, op, e));
    for (int k = 0; k < ROWS * w->size; k++)
        for (int64_t i = from[k]; i < from[k + 1]; i++)
            REQUIRE(recv[i] == (float)(k / w->size * 10000 + k % w->size * 100 + w->rank));
    return 0;
}

static int check_small(struct world *w, struct err *e) {
    struct coll_op *op;
    int64_t sum[2] = {w->rank, -5}, most[1] = {-w->rank};
    char name[16] = "", piece = (char)('a' + w->rank), all[64];
    REQUIRE(!coll_sum_i64(w->coll, "sum", sum, 2, e));
    REQUIRE(sum[0] == w->size * (w->size - 1) / 2 && sum[1] == -5 * w->size);
    REQUIRE(!coll_max_i64(w->coll, "max", most, 1, e));
    REQUIRE(most[0] == 0);
    if (w->rank == w->size - 1) memcpy(name, "from the last", sizeof "from the last");
    REQUIRE(!coll_broadcast(w->coll, &op, "broadcast", name, sizeof name, w->size - 1, e));
    REQUIRE(!coll_wait(w->coll, op, e));
    REQUIRE(!strcmp(name, "from the last"));
    REQUIRE(w->size <= 26);
    REQUIRE(!coll_gather_all(w->coll, "letters", &piece, 1, all, e));
    for (int r = 0; r < w->size; r++) REQUIRE(all[r] == 'a' + r);
    return 0;
}

static int check_all(struct world *w, struct err *e) {
    int rc = check_floats(w, e);
    if (!rc) rc = check_exchange(w, e);
    if (!rc) rc = check_small(w, e);
    if (!rc && w->rank == 0) printf("all collectives agree on %d ranks\n", w->size);
    return rc;
}

// Rank 1 comes too late: rank 0's error must name what it waited for.
static int be_late(struct world *w, struct err *e) {
    if (w->rank == 1) clock_sleep_ms(1500);
    int rc = coll_barrier(w->coll, "the late barrier", e);
    if (rc) fprintf(stderr, "%s\n", e->text);
    return rc;
}

// Rank 1 ends without a word; the others must not wait for their deadline.
static int die(struct world *w, struct err *e) {
    if (w->rank == 1) _exit(9);
    int rc = coll_barrier(w->coll, "the dead barrier", e);
    if (rc) fprintf(stderr, "%s\n", e->text);
    return rc;
}

static int run_mode(struct world *w, int argc, char **argv, struct err *e) {
    const char *mode = argc > 1 ? argv[1] : "";
    int rc = 0;
    if (!strcmp(mode, "check")) return check_all(w, e);
    if (!strcmp(mode, "late")) return be_late(w, e);
    if (!strcmp(mode, "die")) return die(w, e);
    for (int i = 2; i < argc && !rc && !strcmp(mode, "exact"); i++) {
        int64_t shards;
        REQUIRE(bytes_parse_i64(argv[i], &shards));
        rc = exact_digest(w, shards, e);
    }
    return rc;
}

int main(int argc, char **argv) {
    struct err e = {0};
    struct world world = {0}, *w = &world;
    struct coll_options options = {.kind = COLL_MPI,
                                   .deadline_ms = argc > 1 && !strcmp(argv[1], "late") ? 300 : 0};
    REQUIRE(!device_open_cpu(&w->device, 1, &e));
    options.device = w->device;
    int rc = coll_open(&w->coll, &options, &e);
    if (rc) {
        fprintf(stderr, "%s\n", e.text);
        return err_exit_code(e.code);
    }
    w->rank = coll_rank(w->coll);
    w->size = coll_size(w->coll);
    w->offset = calloc((size_t)w->size + 1, sizeof *w->offset);
    REQUIRE(w->offset);
    for (int r = 0; r < w->size; r++) {
        int64_t lo;
        grid_split(ELEMS, w->size, r, &lo, &w->offset[r + 1]);
    }
    rc = run_mode(w, argc, argv, &e);
    if (e.code) fprintf(stderr, "rank %d: %s\n", w->rank, e.text);
    coll_close(w->coll, rc != 0);
    device_close(w->device);
    free(w->offset);
    return e.code ? err_exit_code(e.code) : rc;
}
