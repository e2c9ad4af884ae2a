// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "storage/hash.h"
#include "storage/store.h"
#include "store_suite.h"

static struct store *open_with(const char *url, int64_t deadline_ms) {
    struct store *s;
    struct err e = {0};
    struct store_options options = {.deadline_ms = deadline_ms};
    if (store_open(&s, url, &options, &e)) fail_msg("%s", e.text);
    return s;
}

static void specifications(void **state) {
    const char *bad[] = {"fault:503=5%",         "fault:503:mem:x",         "fault:503=5:mem:x",
                         "fault:what=5%:mem:x",  "fault:503=101%:mem:x",    "fault:503=-1%:mem:x",
                         "fault:503=nan%:mem:x", "fault:delay=20@5%:mem:x", "fault:delay=ms@5%:mem:x",
                         "fault:seed=x:mem:x",   "fault:503=1%:",           "fault:503=1%:ftp://x/y"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct store *s;
        struct err e = {0};
        assert_int_equal(store_open(&s, bad[i], NULL, &e), -ERR_CONFIG);
        assert_true(e.text[0]);
    }
    store_close(open_with("fault:503=5%,delay=20ms@10%,flip=0.5%,seed=7:mem:spec", 0));
    store_close(open_with("fault::mem:spec", 0));
}

// Everything that is retried leaves no trace: the whole contract holds behind it.
static void transient_faults_are_hidden(void **state) {
    struct store *s =
        open_with("fault:503=10%,reset=10%,lost=10%,delay=1ms@10%,stall=5ms@2%,seed=3:mem:hidden", 0);
    store_suite_run(s);
    store_close(s);
}

static void a_lost_reply_is_no_conflict(void **state) {
    struct err e = {0};
    struct store *s = open_with("fault:lost=50%,seed=5:mem:lost", 0);
    for (int i = 0; i < 20; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        if (store_put(s, key, key, strlen(key), true, &e)) fail_msg("%s", e.text);
        assert_int_equal(store_put(s, key, "other", 5, true, NULL), -ERR_CONFLICT);
    }
    store_close(s);
}

// One read each of n objects; how many came back wrong, and a hash of what came.
static int count_wrong(const char *url, int n, uint32_t *crc) {
    struct err e = {0};
    struct store *s = open_with(url, 0);
    char want[256], got[256];
    int wrong = 0;
    memset(want, 0x5a, sizeof want);
    if (store_put(s, "k", want, sizeof want, false, &e)) fail_msg("%s", e.text);
    *crc = 0;
    for (int i = 0; i < n; i++) {
        if (store_get_range(s, "k", 0, sizeof got, got, &e)) fail_msg("%s", e.text);
        wrong += memcmp(want, got, sizeof got) != 0;
        *crc = hash_crc32c(*crc, got, sizeof got);
    }
    store_close(s);
    return wrong;
}

static void spoilt_bodies_follow_the_seed(void **state) {
    const char *kinds[] = {"flip", "short"};
    for (int i = 0; i < 2; i++) {
        char url[64], other[64];
        uint32_t first, again, differs;
        snprintf(url, sizeof url, "fault:%s=10%%,seed=1:mem:spoilt", kinds[i]);
        snprintf(other, sizeof other, "fault:%s=10%%,seed=2:mem:spoilt", kinds[i]);
        int wrong = count_wrong(url, 1000, &first);
        assert_in_range(wrong, 60, 140);
        assert_int_equal(count_wrong(url, 1000, &again), wrong);
        assert_int_equal(first, again);
        count_wrong(other, 1000, &differs);
        assert_int_not_equal(first, differs);
    }
}

static void enospc_is_final(void **state) {
    struct err e = {0};
    struct store_writer *w;
    struct store *s = open_with("fault:enospc=100%:mem:full", 0);
    assert_int_equal(store_put(s, "k", "v", 1, false, &e), -ERR_IO);
    assert_non_null(strstr(e.text, "No space left"));
    err_clear(&e);
    if (store_writer_open(s, &w, "w", &e)) fail_msg("%s", e.text);
    assert_int_equal(store_writer_write(w, "abc", 3, &e), -ERR_IO);
    store_writer_abort(w);
    store_close(s);
}

static void nothing_is_deleted_where_that_is_not_allowed(void **state) {
    struct err e = {0};
    struct store_result head;
    struct store *s = open_with("fault:nodelete=100%:mem:kept", 0);
    assert_int_equal(store_put(s, "k", "v", 1, false, &e), 0);
    assert_int_equal(store_delete(s, "k", &e), -ERR_DENIED);
    err_clear(&e);
    assert_int_equal(store_head(s, "k", &head, &e), 0);
    store_close(s);
}

static void a_dead_store_ends_at_the_deadline(void **state) {
    struct err e = {0};
    struct store *s = open_with("fault:503=100%:mem:dead", 300);
    int64_t before = clock_monotonic_ns();
    assert_int_equal(store_put(s, "k", "v", 1, false, &e), -ERR_UNAVAILABLE);
    assert_true(clock_monotonic_ns() - before < 5000000000);
    assert_non_null(strstr(e.text, "attempts"));
    assert_non_null(strstr(e.text, "'k'"));
    store_close(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(specifications),
        cmocka_unit_test(transient_faults_are_hidden),
        cmocka_unit_test(a_lost_reply_is_no_conflict),
        cmocka_unit_test(spoilt_bodies_follow_the_seed),
        cmocka_unit_test(enospc_is_final),
        cmocka_unit_test(nothing_is_deleted_where_that_is_not_allowed),
        cmocka_unit_test(a_dead_store_ends_at_the_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
