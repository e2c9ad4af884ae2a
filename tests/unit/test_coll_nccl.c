// SPDX-License-Identifier: Apache-2.0
// comm/coll_nccl.c between three threads that take themselves for ranks, on a stand-in for NCCL.
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "comm/coll_impl.h"
#include "tests/stub/nccl_stub.h"

enum { SIZE = 3, ELEMS = 10 };

static struct nccl_stub *stub;
static pthread_barrier_t barrier;
static unsigned char board[SIZE][256];

// The host's back end: threads that meet at a barrier when an operation starts.
static int host_start(struct coll *c, const struct coll_request *q, struct coll_op **op, struct err *e) {
    bool max = q->verb == VERB_MAX;
    const void *mine = q->verb == VERB_BROADCAST ? q->host : max ? q->values : q->piece;
    if (mine) memcpy(board[c->rank], mine, max ? sizeof *q->values : q->host_bytes);
    pthread_barrier_wait(&barrier);
    if (q->verb == VERB_BROADCAST) memcpy(q->host, board[q->root], q->host_bytes);
    for (int r = 0; q->verb == VERB_GATHER_ALL && r < SIZE; r++)
        memcpy((char *)q->all + (size_t)r * q->host_bytes, board[r], q->host_bytes);
    for (int r = 0; max && r < SIZE; r++) {
        int64_t theirs;
        memcpy(&theirs, board[r], sizeof theirs);
        if (theirs > *q->values) *q->values = theirs;
    }
    pthread_barrier_wait(&barrier);
    *op = calloc(1, sizeof **op);
    return 0;
}
static int host_test(struct coll *c, struct coll_op *op, bool *done, struct err *e) {
    *done = true;
    return 0;
}
static void host_release(struct coll_op *op, bool ended) {
    free(op);
}
static void host_close(struct coll *c, bool abort) {
    free(c);
}
static const struct coll_vtable host_vtable = {
    .name = "threads", .start = host_start, .test = host_test, .release = host_release, .close = host_close};

// A device whose queues are empty and whose marks are reached at the second look.
static int joins, marks, first_marks;
static int queue_open(struct device *d, void **queue, struct err *e) {
    *queue = d;
    return 0;
}
static void queue_close(struct device *d, void *queue) {
    assert_ptr_equal(queue, d);
}
static int queue_follow(struct device *d, void *queue, struct err *e) {
    return 0;
}
static int queue_join(struct device *d, void *queue, struct err *e) {
    __atomic_fetch_add(&joins, 1, __ATOMIC_SEQ_CST);
    return 0;
}
static int queue_mark(struct device *d, void *queue, void **mark, struct err *e) {
    __atomic_fetch_add(queue ? &marks : &first_marks, 1, __ATOMIC_SEQ_CST);
    *mark = calloc(1, sizeof(int));
    return 0;
}
static int queue_reached(struct device *d, void *mark, bool *yes, struct err *e) {
    *yes = ++*(int *)mark > 1;
    return 0;
}
static void queue_unmark(struct device *d, void *mark) {
    free(mark);
}
static const struct device_queues queues = {queue_open, queue_close,   queue_follow, queue_join,
                                            queue_mark, queue_reached, queue_unmark};
static int plain_blocks;
static int plain_alloc(struct device *d, void **out, size_t bytes, struct err *e) {
    __atomic_fetch_add(&plain_blocks, 1, __ATOMIC_SEQ_CST);
    *out = malloc(bytes);
    return *out ? 0 : err_set(e, ERR_MEMORY, "no memory");
}
static void plain_release(struct device *d, void *p) {
    free(p);
}
static const struct device_vtable device_vtable = {
    .name = "stub", .queues = &queues, .alloc = plain_alloc, .release = plain_release};

static bool share; // cuda.share
static char words[SIZE][4][256];
static int n_words[SIZE];
static void hear(void *arg, const char *text) {
    int rank = *(const int *)arg;
    if (n_words[rank] < 4) snprintf(words[rank][n_words[rank]++], 256, "%s", text);
}
static bool was_said(int rank, const char *what) {
    for (int i = 0; i < n_words[rank]; i++)
        if (strstr(words[rank][i], what)) return true;
    return false;
}

struct rank {
    int number, rc, code;
    int64_t deadline_ms;
    bool same_gpu;
    bool offered; // memory, after the close
    bool lost;    // the device
    bool keep;    // what was taken is not given back before the end
    float *data, *out, seen[ELEMS], seen_out[SIZE];
    char text[512];
};

static int (*work)(struct rank *r, struct coll *c, struct err *e);
static const int64_t cuts[SIZE + 1] = {0, 3, 3, ELEMS}; // an empty segment in the middle

static int take(struct rank *r, struct coll *c, struct err *e) {
    void *data = NULL, *out = NULL;
    int rc = device_alloc_shared(c->device, &data, ELEMS * sizeof(float), true, e);
    if (!rc) rc = device_alloc_shared(c->device, &out, SIZE * ELEMS * sizeof(float), false, e);
    r->data = data;
    r->out = out;
    for (int i = 0; !rc && i < ELEMS; i++) r->data[i] = (float)(100 * r->number + i);
    return rc;
}

static void give_back(struct rank *r, struct coll *c) {
    memcpy(r->seen, r->data, sizeof r->seen);
    memcpy(r->seen_out, r->out, sizeof r->seen_out);
    if (r->keep) return;
    device_release_shared(c->device, r->data);
    device_release_shared(c->device, r->out);
}

// Rank p's piece of row k for rank r is element k * SIZE + r of what all have the same of.
static int exchange_rows(struct rank *r, struct coll *c, struct err *e) {
    static const int64_t one_each[2 * SIZE + 1] = {0, 1, 2, 3, 4, 5, 6};
    struct coll_op *op = NULL;
    float *rows = r->out + SIZE;
    int rc = coll_exchange(c, &op, "rows", 2, r->data, one_each, rows, one_each, e);
    if (!rc) rc = coll_wait(c, op, e);
    for (int i = 0; !rc && i < 2 * SIZE; i++)
        if (rows[i] != (float)(300 + 3 * (i / SIZE * SIZE + r->number)))
            rc = err_set(e, ERR_BUG, "piece %d of two rows is %g", i, (double)rows[i]);
    return rc;
}

static int wait_for_each(struct rank *r, struct coll *c, struct err *e) {
    struct coll_op *op = NULL, *next = NULL;
    static const int64_t one_each[SIZE + 1] = {0, 1, 2, 3};
    int rc = coll_reduce_scatter(c, &op, "sum 1", r->data, cuts, e);
    if (!rc && coll_progress(c, e)) {
        coll_drop(c, op);
        return -(int)e->code;
    }
    if (!rc) rc = coll_wait(c, op, e);
    // Two under way at once.
    if (!rc) rc = coll_all_gather(c, &op, "gather", r->data, cuts, e);
    if (!rc) rc = coll_exchange(c, &next, "exchange", 1, r->data, one_each, r->out, one_each, e);
    if (!rc) rc = coll_wait(c, op, e);
    if (!rc) rc = coll_wait(c, next, e);
    return rc ? rc : exchange_rows(r, c, e);
}

// The same, with one wait at the end: as a step does it.
static int join_and_settle(struct rank *r, struct coll *c, struct err *e) {
    struct coll_op *op = NULL;
    static const int64_t one_each[SIZE + 1] = {0, 1, 2, 3};
    int rc = coll_reduce_scatter(c, &op, "sum", r->data, cuts, e);
    if (!rc) rc = coll_join(c, op, e);
    if (!rc) rc = coll_all_gather(c, &op, "gather", r->data, cuts, e);
    if (!rc) rc = coll_join(c, op, e);
    if (!rc) rc = coll_exchange(c, &op, "exchange", 1, r->data, one_each, r->out, one_each, e);
    if (!rc) rc = coll_join(c, op, e);
    return rc ? rc : coll_settle(c, e);
}

static int record_and_launch(struct rank *r, struct coll *c, struct err *e) {
    struct coll_op *op = NULL;
    coll_record(c, true);
    int rc = coll_reduce_scatter(c, &op, "sum", r->data, cuts, e);
    if (!rc) rc = coll_join(c, op, e);
    if (!rc) rc = coll_all_gather(c, &op, "gather", r->data, cuts, e);
    if (!rc) rc = coll_join(c, op, e);
    coll_record(c, false);
    if (!rc && c->under_way) rc = err_set(e, ERR_BUG, "a recorded operation is waited for");
    if (!rc) rc = coll_launched(c, "recorded", e);
    return rc ? rc : coll_settle(c, e);
}

static void *run_rank(void *arg) {
    struct rank *r = arg;
    struct err e = {0};
    struct device device = {.vtable = &device_vtable, .identity = r->same_gpu ? 7 : (uint64_t)r->number + 1};
    struct coll_options options = {.kind = COLL_NCCL,
                                   .device = &device,
                                   .reach = true,
                                   .share = share,
                                   .say = hear,
                                   .notify_arg = &r->number};
    struct coll *host = calloc(1, sizeof *host), *c = NULL;
    *host =
        (struct coll){.vtable = &host_vtable, .rank = r->number, .size = SIZE, .deadline_ms = r->deadline_ms};
    int rc = coll_nccl_open(&c, host, &options, &e);
    if (rc) free(host);
    if (!rc) rc = take(r, c, &e);
    if (!rc) {
        rc = work(r, c, &e);
        give_back(r, c);
    }
    r->rc = rc;
    r->code = (int)e.code;
    memcpy(r->text, e.text, sizeof r->text - 1);
    if (c) c->vtable->close(c, rc != 0);
    r->offered = device.shared.arg != NULL;
    r->lost = device.lost;
    return NULL;
}

static void run_all(struct rank *r, int64_t deadline_ms, bool same_gpu) {
    pthread_t threads[SIZE];
    pthread_barrier_init(&barrier, NULL, SIZE);
    bool keep = r->keep;
    memset(r, 0, SIZE * sizeof *r);
    memset(n_words, 0, sizeof n_words);
    joins = marks = first_marks = 0;
    plain_blocks = stub->registrations = 0;
    stub->aborts = stub->destroys = stub->allocated = stub->registered = stub->windows = 0;
    for (int i = 0; i < SIZE; i++) {
        r[i].number = i;
        r[i].deadline_ms = deadline_ms;
        r[i].same_gpu = same_gpu;
        r[i].keep = keep;
        assert_int_equal(pthread_create(&threads[i], NULL, run_rank, &r[i]), 0);
    }
    for (int i = 0; i < SIZE; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&barrier);
}

static void check_sums(struct rank *r) {
    for (int k = 0; k < SIZE; k++) {
        if (r[k].rc) fail_msg("%s", r[k].text);
        assert_false(r[k].offered);
        assert_false(r[k].lost);
        for (int i = 0; i < ELEMS; i++) assert_true(r[k].seen[i] == (float)(300 + 3 * i));
        for (int p = 0; p < SIZE; p++) assert_true(r[k].seen_out[p] == (float)(300 + 3 * k));
    }
    assert_int_equal(stub->destroys, SIZE);
    assert_int_equal(stub->aborts, 0);
    assert_int_equal(stub->allocated, 0); // all was given back
    assert_int_equal(stub->registered, 0);
    assert_int_equal(stub->windows, 0);
}

static void sums_arrive(void **state) {
    struct rank r[SIZE] = {0};
    stub->polls = 5;
    run_all(r, 60000, false);
    check_sums(r);
    assert_int_equal(stub->registrations, 2 * SIZE); // a window each for what is alike, a handle for the rest
    assert_int_equal(plain_blocks, 0);
    assert_true(was_said(0, "symmetric windows"));
}

static void what_is_kept_is_taken_back_at_the_close(void **state) {
    struct rank r[SIZE] = {{.keep = true}};
    run_all(r, 60000, false);
    check_sums(r);
}

static void a_refusal_is_told_and_all_go_on(void **state) {
    static const struct {
        int memory, reg, window, none, registrations, plain;
        bool told;
    } cases[] = {
        {.window = 2, .registrations = 2 * SIZE + SIZE - 1}, // one rank's window: all give theirs up
        {.none = 1, .registrations = 3 * SIZE},              // granted, but the links do not do it
        {.reg = -1, .registrations = SIZE, .told = true},
        {.memory = -1, .plain = 2 * SIZE, .told = true},
        {.memory = 1,
         .plain = SIZE + 1,
         .registrations = SIZE - 1,
         .told = true}, // rank 0's: alike blocks are plain
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rank r[SIZE] = {0};
        stub->refuse_memory = cases[i].memory;
        stub->refuse_register = cases[i].reg;
        stub->refuse_window = cases[i].window;
        stub->no_window = cases[i].none;
        run_all(r, 60000, false);
        stub->refuse_memory = stub->refuse_register = stub->refuse_window = stub->no_window = 0;
        check_sums(r);
        assert_int_equal(stub->registrations, cases[i].registrations);
        assert_int_equal(plain_blocks, cases[i].plain);
        assert_int_equal(was_said(0, "does not let peers reach"), cases[i].told);
    }
}

static struct nccl_stub *open_stub(const char *variable) {
    if (strcmp(variable, "ORRERY_NCCL_LIBRARY")) setenv("ORRERY_NCCL_LIBRARY", getenv(variable), 1);
    void *library = dlopen(getenv(variable), RTLD_NOW);
    return library ? dlsym(library, "nccl_stub") : NULL;
}

static void a_library_without_such_memory_works(void **state) {
    struct rank r[SIZE] = {0};
    struct nccl_stub *newer = stub;
    char *keep = strdup(getenv("ORRERY_NCCL_LIBRARY"));
    stub = open_stub("ORRERY_NCCL_OLD");
    assert_non_null(stub);
    stub->version = 22003;
    run_all(r, 60000, false);
    check_sums(r);
    assert_int_equal(plain_blocks, 2 * SIZE);
    assert_int_equal(n_words[0], 0);
    setenv("ORRERY_NCCL_LIBRARY", keep, 1);
    free(keep);
    stub = newer;
}

static void ranks_share_a_gpu_from_2_30_on(void **state) {
    struct rank r[SIZE] = {0};
    share = true;
    stub->version = 23002;
    run_all(r, 60000, true);
    check_sums(r);
    assert_string_equal(getenv("NCCL_MULTI_RANK_GPU_ENABLE"), "1");
    assert_int_equal(plain_blocks, 2 * SIZE);
    stub->version = 22809;
    run_all(r, 60000, true);
    share = false;
    for (int k = 0; k < SIZE; k++) {
        assert_int_equal(r[k].code, ERR_ABSENT);
        assert_non_null(strstr(r[k].text, "2.28.9"));
        assert_non_null(strstr(r[k].text, "comm.backend=mpi"));
    }
}

static void joined_sums_arrive(void **state) {
    struct rank r[SIZE] = {0};
    stub->polls = 5;
    work = join_and_settle;
    run_all(r, 60000, false);
    for (int k = 0; k < SIZE; k++) {
        if (r[k].rc) fail_msg("%s", r[k].text);
        for (int i = 0; i < ELEMS; i++) assert_true(r[k].seen[i] == (float)(300 + 3 * i));
        for (int p = 0; p < SIZE; p++) assert_true(r[k].seen_out[p] == (float)(300 + 3 * k));
    }
    assert_int_equal(joins, 3 * SIZE);
    assert_int_equal(marks, 3 * SIZE);
    stub->silent_rank = 1; // and a peer that never comes ends the one wait
    run_all(r, 300, false);
    stub->silent_rank = -1;
    for (int k = 0; k < SIZE; k++) assert_int_equal(r[k].code, ERR_TIMEOUT);
    assert_int_equal(stub->aborts, SIZE);
    work = wait_for_each;
}

// Nothing of a recording is marked or waited for; what was launched is, with the same eyes on NCCL's errors.
static void recorded_operations_are_waited_for_when_launched(void **state) {
    struct rank r[SIZE] = {0};
    stub->polls = 5;
    work = record_and_launch;
    run_all(r, 60000, false);
    for (int k = 0; k < SIZE; k++) {
        if (r[k].rc) fail_msg("%s", r[k].text);
        for (int i = 0; i < ELEMS; i++) assert_true(r[k].seen[i] == (float)(300 + 3 * i));
    }
    assert_int_equal(joins, 2 * SIZE);
    assert_int_equal(marks, 2 * SIZE); // recorded too: the join is after each one's own
    assert_int_equal(first_marks, SIZE);
    stub->fail_after = 2;
    run_all(r, 60000, false);
    stub->fail_after = 0;
    for (int k = 0; k < SIZE; k++) assert_int_equal(r[k].code, ERR_PEER);
    assert_int_equal(stub->aborts, 0); // NCCL's would wait for the graph
    work = wait_for_each;
}

static void a_silent_peer_ends_in_a_deadline_and_an_abort(void **state) {
    struct rank r[SIZE] = {0};
    stub->silent_rank = 1;
    run_all(r, 300, false);
    stub->silent_rank = -1;
    for (int k = 0; k < SIZE; k++) {
        assert_int_equal(r[k].code, ERR_TIMEOUT);
        assert_non_null(strstr(r[k].text, "sum 1"));
        assert_true(r[k].lost); // so that no release waits for the sum
    }
    assert_int_equal(stub->aborts, SIZE);
    assert_int_equal(stub->destroys, 0);
}

static void a_lost_peer_is_told_and_aborted(void **state) {
    struct rank r[SIZE] = {0};
    stub->fail_after = 1;
    run_all(r, 60000, false);
    stub->fail_after = 0;
    for (int k = 0; k < SIZE; k++) {
        assert_int_equal(r[k].code, ERR_PEER);
        assert_non_null(strstr(r[k].text, "lost"));
    }
    assert_int_equal(stub->aborts, SIZE);
}

static void two_ranks_on_one_gpu_are_refused(void **state) {
    struct rank r[SIZE] = {0};
    run_all(r, 60000, true);
    for (int k = 0; k < SIZE; k++) {
        assert_int_equal(r[k].code, ERR_CONFIG);
        assert_non_null(strstr(r[k].text, "cuda.share"));
    }
}

static void an_old_library_is_refused(void **state) {
    struct rank r[SIZE] = {0};
    stub->version = 21903;
    run_all(r, 60000, false);
    stub->version = 22809;
    for (int k = 0; k < SIZE; k++) {
        assert_int_equal(r[k].code, ERR_ABSENT);
        assert_non_null(strstr(r[k].text, "2.19.3"));
    }
}

static void a_missing_library_is_told(void **state) {
    struct rank r[SIZE] = {0};
    const char *path = getenv("ORRERY_NCCL_LIBRARY");
    char *keep = strdup(path);
    setenv("ORRERY_NCCL_LIBRARY", "/nowhere/libnccl.so.2", 1);
    run_all(r, 60000, false);
    setenv("ORRERY_NCCL_LIBRARY", keep, 1);
    free(keep);
    for (int k = 0; k < SIZE; k++) {
        assert_int_equal(r[k].code, ERR_ABSENT);
        assert_non_null(strstr(r[k].text, "comm.backend=mpi"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_arrive),
        cmocka_unit_test(what_is_kept_is_taken_back_at_the_close),
        cmocka_unit_test(a_refusal_is_told_and_all_go_on),
        cmocka_unit_test(a_library_without_such_memory_works),
        cmocka_unit_test(ranks_share_a_gpu_from_2_30_on),
        cmocka_unit_test(joined_sums_arrive),
        cmocka_unit_test(recorded_operations_are_waited_for_when_launched),
        cmocka_unit_test(a_silent_peer_ends_in_a_deadline_and_an_abort),
        cmocka_unit_test(a_lost_peer_is_told_and_aborted),
        cmocka_unit_test(two_ranks_on_one_gpu_are_refused),
        cmocka_unit_test(an_old_library_is_refused),
        cmocka_unit_test(a_missing_library_is_told),
    };
    stub = open_stub("ORRERY_NCCL_LIBRARY");
    if (!stub) return 1;
    work = wait_for_each;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
