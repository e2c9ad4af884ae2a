// SPDX-License-Identifier: Apache-2.0
// The collectives of one rank, and what coll.c does for every back end: numbering, notices, deadlines, the
// refusal to go on after a failure. The MPI back end is tested under mpirun (tests/e2e/comm_mpi.sh).
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "comm/coll_impl.h"

struct notice {
    int begun, ended;
    int64_t bytes;
    char name[32];
};

static void note(void *arg, const struct coll_note *said) {
    struct notice *n = arg;
    n->ended += said->moment == COLL_ENDS;
    if (said->moment != COLL_BEGINS) return;
    n->begun++;
    n->bytes = said->bytes;
    strncpy(n->name, said->name, sizeof n->name - 1);
}

static void one_rank_is_its_own_world(void **state) {
    struct err e = {0};
    struct notice n = {0};
    struct coll_options options = {.kind = COLL_SELF, .notify = note, .notify_arg = &n};
    struct coll *c;
    struct coll_op *op;
    assert_int_equal(coll_open(&c, &options, &e), 0);
    assert_int_equal(coll_rank(c), 0);
    assert_int_equal(coll_size(c), 1);
    float v[3] = {1, 2, 3}, w[3] = {0};
    int64_t offset[] = {0, 3}, empty[] = {0, 0};
    assert_int_equal(coll_reduce_scatter(c, &op, "reduce", v, offset, &e), 0);
    assert_string_equal(n.name, "reduce");
    assert_int_equal(n.bytes, 12);
    assert_int_equal(n.ended, 0);
    assert_int_equal(coll_wait(c, op, &e), 0);
    assert_int_equal(n.ended, 1);
    assert_int_equal(coll_all_gather(c, &op, "gather", v, offset, &e), 0);
    assert_int_equal(coll_wait(c, op, &e), 0);
    assert_int_equal(coll_exchange(c, &op, "exchange", 1, v, offset, w, offset, &e), 0);
    assert_int_equal(coll_wait(c, op, &e), 0);
    assert_memory_equal(v, w, sizeof v);
    float rows[3] = {0};
    int64_t two[] = {0, 1, 3};
    assert_int_equal(coll_exchange(c, &op, "two rows", 2, v, two, rows, two, &e), 0);
    assert_int_equal(n.bytes, 12);
    assert_int_equal(coll_wait(c, op, &e), 0);
    assert_memory_equal(v, rows, sizeof v);
    assert_int_equal(coll_exchange(c, &op, "stay", 1, v, offset, NULL, empty, &e), 0);
    assert_int_equal(coll_wait(c, op, &e), 0);
    int64_t sum[] = {5, -7}, all = 0, piece = 9;
    assert_int_equal(coll_sum_i64(c, "sum", sum, 2, &e), 0);
    assert_int_equal(coll_max_i64(c, "max", sum, 2, &e), 0);
    assert_int_equal(sum[0], 5);
    assert_int_equal(sum[1], -7);
    assert_int_equal(coll_gather_all(c, "all", &piece, sizeof piece, &all, &e), 0);
    assert_int_equal(all, 9);
    assert_int_equal(coll_broadcast(c, &op, "broadcast", &piece, sizeof piece, 0, &e), 0);
    assert_int_equal(coll_wait(c, op, &e), 0);
    assert_int_equal(coll_barrier(c, "barrier", &e), 0);
    assert_int_equal(n.begun, n.ended);
    coll_close(c, false);
    coll_close(NULL, false);
}

static void a_piece_for_itself_must_fit(void **state) {
    struct err e = {0};
    struct coll_options options = {.kind = COLL_SELF};
    struct coll *c;
    struct coll_op *op;
    float v[3] = {0}, w[3];
    int64_t three[] = {0, 3}, two[] = {0, 2};
    assert_int_equal(coll_open(&c, &options, &e), 0);
    assert_int_equal(coll_exchange(c, &op, "uneven", 1, v, three, w, two, &e), -ERR_BUG);
    err_clear(&e);
    assert_int_equal(coll_barrier(c, "after", &e), -ERR_PEER); // nothing goes on after a failure
    coll_close(c, false);
}

static void nccl_says_what_is_missing(void **state) {
    struct err e = {0};
    struct coll_options options = {.kind = COLL_NCCL};
    struct coll *c;
    setenv("ORRERY_CUDA_PLUGIN", "/nowhere/liborrery_cuda.so", 1);
    assert_int_equal(coll_open(&c, &options, &e), -ERR_ABSENT);
    assert_non_null(strstr(e.text, "/nowhere/liborrery_cuda.so"));
    unsetenv("ORRERY_CUDA_PLUGIN");
    assert_null(c);
}

// A back end whose operations never end.
static int stuck_start(struct coll *c, const struct coll_request *q, struct coll_op **op, struct err *e) {
    *op = calloc(1, sizeof **op);
    return *op ? 0 : err_set(e, ERR_MEMORY, "no memory");
}
static int stuck_test(struct coll *c, struct coll_op *op, bool *done, struct err *e) {
    return 0;
}
static void stuck_release(struct coll_op *op, bool ended) {
    assert_false(ended);
    free(op);
}
static void stuck_close(struct coll *c, bool abort) {
    assert_true(abort);
}

static void a_deadline_names_the_operation(void **state) {
    static const struct coll_vtable stuck = {.name = "stuck",
                                             .start = stuck_start,
                                             .test = stuck_test,
                                             .release = stuck_release,
                                             .close = stuck_close};
    struct coll c = {.vtable = &stuck, .rank = 2, .size = 4, .deadline_ms = 20, .seq = 811};
    struct err e = {0};
    struct coll_op *first, *second;
    float v[4] = {0};
    int64_t offset[] = {0, 1, 2, 3, 4};
    assert_int_equal(coll_reduce_scatter(&c, &first, "reduce-scatter gradients", v, offset, &e), 0);
    assert_int_equal(coll_all_gather(&c, &second, "all-gather weights", v, offset, &e), 0);
    assert_int_equal(coll_set_deadline(&c, 30), 20);
    assert_int_equal(coll_wait(&c, first, &e), -ERR_TIMEOUT);
    assert_non_null(strstr(e.text, "waited 30 ms in collective 812 (reduce-scatter gradients)"));
    assert_non_null(strstr(e.text, "rank 2"));
    err_clear(&e);
    assert_int_equal(coll_wait(&c, second, &e), -ERR_PEER); // at once
    coll_close(&c, false);
}

// A back end whose operations end at the third look.
static int slow_start(struct coll *c, const struct coll_request *q, struct coll_op **op, struct err *e) {
    *op = calloc(1, sizeof **op);
    return *op ? 0 : err_set(e, ERR_MEMORY, "no memory");
}
static int slow_test(struct coll *c, struct coll_op *op, bool *done, struct err *e) {
    assert_false(op->ended); // its results are delivered once
    if (c->slip_value < 0) return err_set(e, ERR_PEER, "lost");
    *done = ++c->slip_value % 3 == 0;
    return 0;
}
static int released, unended;
static void slow_release(struct coll_op *op, bool ended) {
    released++;
    unended += !ended;
    free(op);
}
static const struct coll_vtable slow = {
    .name = "slow", .start = slow_start, .test = slow_test, .release = slow_release};

static void progress_ends_what_is_under_way(void **state) {
    struct coll c = {.vtable = &slow, .size = 2, .deadline_ms = 1000};
    struct err e = {0};
    struct coll_op *first, *second;
    float v[2] = {0};
    int64_t offset[] = {0, 1, 2};
    released = unended = 0;
    assert_int_equal(coll_progress(&c, &e), 0); // nothing to do
    assert_int_equal(coll_reduce_scatter(&c, &first, "first", v, offset, &e), 0);
    assert_int_equal(coll_all_gather(&c, &second, "second", v, offset, &e), 0);
    for (int i = 0; i < 3; i++) assert_int_equal(coll_progress(&c, &e), 0);
    assert_true(first->ended && !second->ended); // one look at each of them, in order
    double before = coll_clock(&c).busy;
    assert_true(coll_clock(&c).busy > before && before > 0 && coll_clock(&c).wait == 0);
    assert_int_equal(coll_wait(&c, second, &e), 0);
    assert_int_equal(coll_wait(&c, first, &e), 0);
    struct coll_clock after = coll_clock(&c);
    assert_true(after.wait > 0 && after.wait <= after.busy);
    assert_true(coll_clock(&c).busy == after.busy); // nothing is under way now
    assert_int_equal(released, 2);
    assert_int_equal(unended, 0);
    assert_null(c.under_way);
}

static void progress_tells_a_failure(void **state) {
    struct coll c = {.vtable = &slow, .size = 2, .deadline_ms = 1000};
    struct err e = {0};
    struct coll_op *op;
    float v[2] = {0};
    int64_t offset[] = {0, 1, 2};
    released = unended = 0;
    assert_int_equal(coll_reduce_scatter(&c, &op, "sum", v, offset, &e), 0);
    c.slip_value = -1;
    assert_int_equal(coll_progress(&c, &e), -ERR_PEER);
    assert_true(c.broken);
    coll_drop(&c, op); // waits for nobody
    coll_drop(&c, NULL);
    assert_true(released == 1 && unended == 1 && !c.under_way);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rank_is_its_own_world),       cmocka_unit_test(a_piece_for_itself_must_fit),
        cmocka_unit_test(nccl_says_what_is_missing),       cmocka_unit_test(a_deadline_names_the_operation),
        cmocka_unit_test(progress_ends_what_is_under_way), cmocka_unit_test(progress_tells_a_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
