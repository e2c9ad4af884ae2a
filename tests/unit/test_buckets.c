// SPDX-License-Identifier: Apache-2.0
// How the parameters are cut into what is reduced and gathered in one piece.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fake_config.h"
#include "fake_set.h"
#include "trainer/buckets.h"
#include "trainer/optim.h"

enum { RANKS = 5 };

static void table(struct params *p, struct config_file *f) {
    struct modality_set set;
    struct err e = {0};
    fake_set(&set, config_values(f));
    if (params_init(p, config_values(f), &set, &e)) fail_msg("%s", e.text);
}

static const struct param *param_at(const struct params *p, int64_t offset) {
    for (int i = 0; i < p->n; i++)
        if (p->list[i].offset == offset) return &p->list[i];
    return NULL;
}

// Every element in one bucket, from the end to the start, cut where a stage begins.
static void check_cut(const struct params *p, const struct buckets *b, int64_t least) {
    assert_int_equal(b->cut[0], p->elems);
    assert_int_equal(b->cut[b->n], 0);
    for (int k = 0; k < b->n; k++) {
        const struct param *first = param_at(p, b->cut[k + 1]);
        assert_true(b->cut[k + 1] < b->cut[k]);
        assert_true(k == b->n - 1 || b->cut[k] - b->cut[k + 1] >= least);
        assert_non_null(first);
        assert_int_equal(b->stage[k], first->stage);
        for (const struct param *t = p->list; t < p->list + p->n; t++)
            assert_true((t->stage >= b->stage[k]) == (t->offset >= b->cut[k + 1]));
    }
}

// The ranks' shares of all buckets are their segments.
static void check_shares(const struct config *c, const struct params *p, struct buckets *b) {
    struct err e = {0};
    int64_t offset[RANKS + 1], sum[RANKS] = {0};
    optim_split(c, p, RANKS, offset);
    assert_int_equal(buckets_deal(b, offset, RANKS, &e), 0);
    for (int k = 0; k < b->n; k++) {
        const int64_t *share = buckets_share(b, k);
        assert_int_equal(share[0], 0);
        assert_int_equal(share[RANKS], b->cut[k] - b->cut[k + 1]);
        for (int r = 0; r < RANKS; r++) {
            assert_true(share[r] <= share[r + 1]);
            sum[r] += share[r + 1] - share[r];
            if (share[r] == share[r + 1]) continue;
            assert_true(b->cut[k + 1] + share[r] >= offset[r]);
            assert_true(b->cut[k + 1] + share[r + 1] <= offset[r + 1]);
        }
    }
    for (int r = 0; r < RANKS; r++) assert_int_equal(sum[r], offset[r + 1] - offset[r]);
}

static void every_element_is_in_one_bucket(void **state) {
    struct config_file *f = fake_config("model.layers=4", "model.width=64");
    struct params p;
    struct err e = {0};
    table(&p, f);
    assert_int_equal(p.stages, 4 + 3);
    int most = 0;
    for (int64_t least = 1; least <= 2 * p.elems; least = least * 3 / 2 + 1) {
        struct buckets b;
        assert_int_equal(buckets_init(&b, &p, least, &e), 0);
        check_cut(&p, &b, least);
        check_shares(config_values(f), &p, &b);
        if (b.n > most) most = b.n;
        if (least >= p.elems) assert_int_equal(b.n, 1);
        buckets_fini(&b);
    }
    assert_int_equal(most, p.stages);
    params_fini(&p);
    config_close(f);
}

static int64_t least_for(const char *setting, int64_t elems) {
    struct config_file *f = fake_config(setting);
    const struct params p = {.elems = elems};
    int64_t least = buckets_least(config_values(f), &p);
    config_close(f);
    return least;
}

static void the_config_says_how_large(void **state) {
    assert_int_equal(least_for("comm.overlap=false", 123456789), 123456789);
    assert_int_equal(least_for("comm.bucket_mb=2", 1000), 2 << 18);
    assert_int_equal(least_for("comm.bucket_mb=0", 1000), 1 << 16);
    assert_int_equal(least_for("comm.bucket_mb=0", 1 << 24), 1 << 20);
    assert_int_equal(least_for("comm.bucket_mb=0", INT64_C(1) << 34), 1 << 24);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_element_is_in_one_bucket),
        cmocka_unit_test(the_config_says_how_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
