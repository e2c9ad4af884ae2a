// SPDX-License-Identifier: Apache-2.0
// Batches: a pure function of global sample numbers, whatever the threads, the ranks and the cache; broken
// samples.
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "storage/dataset.h"
#include "storage/shard.h"
#include "store_collect.h"
#include "trainer/data.h"
#include "trainer/data_cache.h"
#include "trainer/media_npy.h"
#include "trainer/worlds/world.h"

enum { EPISODES = 12, FRAMES = 30, PER_SHARD = 4 };

static char dir[64];

static struct store *open_store(void) {
    struct err e = {0};
    struct store *s;
    assert_int_equal(store_open(&s, dir, NULL, &e), 0);
    return s;
}

// Only the first 20 frames are felt.
static void shorten_touch(struct world_episode *ep) {
    struct err e = {0};
    struct media_npy a;
    for (int m = 0; m < ep->n; m++) {
        struct buf *b = &ep->members[m].bytes;
        if (strcmp(ep->members[m].name, "touch.npy")) continue;
        assert_int_equal(media_npy_read(b->data, b->len, 1 << 20, &a, &e), 0);
        buf_clear(b);
        assert_int_equal(media_npy_write(b, 2, (int64_t[]){200, 2}, a.data, &e), 0);
        media_npy_fini(&a);
    }
}

// Twelve episodes in three shards; episode 5 loses its touch.
static int set_up(void **state) {
    const struct world *w = world_find("table");
    const char *keys[EPISODES / PER_SHARD] = {"a-0.tar", "a-1.tar", "a-2.tar"};
    double knobs[16];
    struct err e = {0};
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/orrery-data-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    struct store *s = open_store();
    assert_int_equal(world_parse_knobs(w, "", knobs, &e), 0);
    for (int shard = 0; shard < EPISODES / PER_SHARD; shard++) {
        struct buf tar;
        buf_init(&tar, 1 << 24);
        for (int i = shard * PER_SHARD; i < (shard + 1) * PER_SHARD; i++) {
            struct world_episode ep;
            char stem[16];
            snprintf(stem, sizeof stem, "ep%02d", i);
            assert_int_equal(w->make(1, i, FRAMES, knobs, "train", &ep, &e), 0);
            if (i == 5) shorten_touch(&ep);
            for (int m = 0; m < ep.n; m++)
                assert_int_equal(shard_append(&tar, stem, ep.members[m].name, ep.members[m].bytes.data,
                                              ep.members[m].bytes.len, &e),
                                 0);
            world_episode_fini(&ep);
        }
        assert_int_equal(shard_finish(&tar, &e), 0);
        if (dataset_put_shard(s, keys[shard], tar.data, tar.len, &e)) fail_msg("%s", e.text);
        buf_fini(&tar);
    }
    assert_int_equal(dataset_write_manifest(s, keys, EPISODES / PER_SHARD, &e), 0);
    store_close(s);
    return 0;
}

static int tear_down(void **state) {
    struct err e = {0};
    struct store_listing all;
    struct store *s = open_store();
    (void)state;
    assert_int_equal(store_collect(s, "", NULL, &all, &e), 0);
    for (size_t i = 0; i < all.n; i++) assert_int_equal(store_delete(s, all.objects[i].key, &e), 0);
    store_listing_fini(&all);
    store_close(s);
    return rmdir(dir);
}

static int try_open(struct data **d, const char *a, const char *b, struct err *e) {
    const char *overrides[] = {"data.shuffle_block=4", a, b};
    struct config_file *f;
    if (config_load(&f, NULL, overrides, b ? 3u : a ? 2u : 1u, e)) fail_msg("%s", e->text);
    int rc = data_open(d, config_values(f), dir, e);
    config_close(f);
    return rc;
}

static struct data *open_data(const char *a, const char *b) {
    struct data *d;
    struct err e = {0};
    if (try_open(&d, a, b, &e)) fail_msg("%s", e.text);
    return d;
}

static void assert_same_rows(const struct modality_set *set, const struct batch *a, int64_t i,
                             const struct batch *b, int64_t k) {
    assert_int_equal(a->episode[i], b->episode[k]);
    assert_int_equal(a->first_frame[i], b->first_frame[k]);
    for (int m = 0; m < set->n; m++) {
        size_t n = (size_t)(a->frames * set->spec[m].frame_elems);
        assert_memory_equal(a->x[m] + (size_t)i * n, b->x[m] + (size_t)k * n, n * sizeof(float));
        assert_memory_equal(a->valid[m] + i * a->frames, b->valid[m] + k * b->frames, (size_t)a->frames);
    }
}

static const struct batch *next(struct data *d) {
    const struct batch *b;
    struct err e = {0};
    if (data_next(d, &b, &e)) fail_msg("%s", e.text);
    return b;
}

static void batches_are_the_planned_windows(void **state) {
    (void)state;
    static const char *const threads[] = {"data.threads=1", "data.threads=4"};
    for (int t = 0; t < 2; t++) {
        struct data *d = open_data(threads[t], NULL);
        struct err e = {0};
        assert_int_equal(data_prefetch(d, 7, 6, 24, &e), 0);
        for (int k = 0; k < 20; k++) {
            const struct batch *b = next(d);
            struct batch want;
            assert_int_equal(b->first, 7 + 24 * k);
            assert_int_equal(b->count, 6);
            assert_int_equal(b->replaced, 0);
            for (int64_t i = 0; i < 6; i++) {
                struct loader_item item;
                data_item(d, b->first + i, &item);
                assert_int_equal(item.sample, b->episode[i]);
                assert_int_equal(item.first_frame, b->first_frame[i]);
            }
            assert_int_equal(data_window(d, b->episode, b->first_frame, 6, 10, &want, &e), 0);
            for (int64_t i = 0; i < 6; i++) assert_same_rows(data_modalities(d), b, i, &want, i);
            batch_fini(&want);
        }
        data_close(d);
    }
}

static void ranks_cut_the_same_global_batch(void **state) {
    (void)state;
    struct data *one = open_data(NULL, NULL), *left = open_data("data.memory_mb=8", NULL),
                *right = open_data("data.threads=3", NULL);
    struct err e = {0};
    assert_int_equal(data_prefetch(one, 0, 8, 8, &e), 0);
    assert_int_equal(data_prefetch(left, 0, 5, 8, &e), 0);
    assert_int_equal(data_prefetch(right, 5, 3, 8, &e), 0);
    for (int k = 0; k < 12; k++) {
        const struct batch *all = next(one), *a = next(left), *b = next(right);
        for (int64_t i = 0; i < 8; i++)
            assert_same_rows(data_modalities(one), all, i, i < 5 ? a : b, i < 5 ? i : i - 5);
    }
    data_close(one);
    data_close(left);
    data_close(right);
}

// A thread's state as /proc has it: "... (name) S ...". One that has ended sleeps too.
static bool sleeps(const char *task) {
    char path[300], text[128] = "";
    snprintf(path, sizeof path, "/proc/self/task/%s/stat", task);
    FILE *f = fopen(path, "re");
    if (f && !fgets(text, sizeof text, f)) text[0] = 0;
    if (f) fclose(f);
    const char *name_end = strrchr(text, ')');
    return !name_end || name_end[2] == 'S';
}

static bool all_others_sleep(void) {
    bool all = true;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (struct dirent *t; (t = readdir(tasks));)
        all = all && (t->d_name[0] == '.' || strtol(t->d_name, NULL, 10) == gettid() || sleeps(t->d_name));
    closedir(tasks);
    return all;
}

// Threads that prefetch rest once they are as far ahead as they may be. One that waits for a lock sleeps as
// well, but not at one look after the other.
static void wait_until_they_rest(void) {
    int looks = 0;
    for (int64_t end_ns = clock_monotonic_ns() + 20000000000; looks < 3; usleep(100)) {
        looks = all_others_sleep() ? looks + 1 : 0;
        if (clock_monotonic_ns() > end_ns) fail_msg("the threads that prefetch never rest");
    }
}

static void a_batch_stays_for_one_more_call(void **state) {
    (void)state;
    struct data *d = open_data("data.threads=4", NULL);
    struct err e = {0};
    const struct batch *before = NULL;
    float *copy = NULL;
    size_t bytes = sizeof(float) * 4 * 10 * 2048;
    assert_int_equal(data_prefetch(d, 0, 4, 4, &e), 0);
    for (int k = 0; k < 20; k++) {
        const struct batch *b = next(d);
        wait_until_they_rest();
        if (before) assert_memory_equal(copy, before->x[3], bytes);
        if (!copy) copy = malloc(bytes);
        memcpy(copy, b->x[3], bytes);
        before = b;
    }
    free(copy);
    data_close(d);
}

static void announcing_again_starts_anew(void **state) {
    (void)state;
    struct data *d = open_data("data.threads=2", NULL), *other = open_data(NULL, NULL);
    struct err e = {0};
    const struct batch *b;
    assert_int_equal(data_next(d, &b, &e), -ERR_BUG);
    err_clear(&e);
    assert_int_equal(data_prefetch(d, 0, 4, 4, &e), 0);
    next(d);
    assert_int_equal(data_prefetch(d, 100, 3, 9, &e), 0);
    assert_int_equal(data_prefetch(other, 100, 3, 9, &e), 0);
    for (int k = 0; k < 6; k++) {
        b = next(d);
        assert_int_equal(b->first, 100 + 9 * k);
        const struct batch *want = next(other);
        for (int64_t i = 0; i < 3; i++) assert_same_rows(data_modalities(d), b, i, want, i);
    }
    data_close(d);
    data_close(other);
}

static void what_is_missing_is_not_valid(void **state) {
    (void)state;
    struct data *d = open_data(NULL, NULL);
    struct err e = {0};
    struct batch b;
    assert_int_equal(data_window(d, (int64_t[]){5, 6}, (int64_t[]){0, 0}, 2, FRAMES, &b, &e), 0);
    for (int f = 0; f < FRAMES; f++) {
        assert_int_equal(b.valid[1][f], f < 20);
        assert_int_equal(b.valid[1][FRAMES + f], 1);
        assert_int_equal(b.valid[3][f], 1);
        for (int k = 0; k < 4 && f >= 20; k++) assert_true(b.x[1][f * 4 + k] == 0);
    }
    batch_fini(&b);
    data_close(d);
}

static void what_does_not_fit_is_refused(void **state) {
    (void)state;
    struct data *d = open_data(NULL, NULL);
    struct err e = {0};
    struct batch b;
    assert_int_equal(data_window(d, (int64_t[]){0}, (int64_t[]){21}, 1, 10, &b, &e), -ERR_DATA);
    batch_fini(&b);
    err_clear(&e);
    assert_int_equal(data_window(d, (int64_t[]){EPISODES}, (int64_t[]){0}, 1, 10, &b, &e), -ERR_BUG);
    batch_fini(&b);
    data_close(d);
    static const struct {
        const char *override;
        int code;
    } rows[] = {
        {"data.rate_hz=20", ERR_CONFIG}, {"touch.channels=3", ERR_CONFIG}, {"data.frames=31", ERR_DATA}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        err_clear(&e);
        assert_int_equal(try_open(&d, rows[i].override, NULL, &e), -rows[i].code);
        assert_null(d);
        assert_non_null(strstr(e.text, dir));
    }
}

static void flip(const char *key, int64_t at) {
    char path[128];
    struct buf b;
    struct err e = {0};
    snprintf(path, sizeof path, "%s/%s", dir, key);
    buf_init(&b, 1 << 24);
    assert_int_equal(bytes_read_file(path, 1 << 24, &b, &e), 0);
    b.data[at] = (char)(b.data[at] ^ 4);
    assert_int_equal(bytes_write_file(path, b.data, b.len, &e), 0);
    buf_fini(&b);
}

static int64_t offset_in_shard(int64_t sample, const char *name) {
    struct dataset *d;
    struct sample s;
    struct err e = {0};
    assert_int_equal(dataset_open(&d, dir, NULL, &e), 0);
    assert_int_equal(dataset_read(d, sample, &s, &e), 0);
    int64_t at = sample_find(&s, name)->offset;
    sample_fini(&s);
    dataset_close(d);
    return at;
}

static void stop_names_the_place(struct data *d, int64_t at) {
    const struct batch *b;
    struct err e = {0};
    char offset[32];
    int rc = 0;
    snprintf(offset, sizeof offset, "%lld", (long long)at);
    assert_int_equal(data_prefetch(d, 0, 4, 4, &e), 0);
    for (int k = 0; k < 12 && !rc; k++) rc = data_next(d, &b, &e);
    assert_int_equal(rc, -ERR_DATA);
    assert_non_null(strstr(e.text, "a-1.tar"));
    assert_non_null(strstr(e.text, "audio.flac"));
    assert_non_null(strstr(e.text, offset));
}

// Everything else stays where it was; the window of the broken episode 6 is cut from episode 7.
static void skip_takes_the_next(struct data *whole, struct data *d) {
    struct err e = {0};
    int64_t replaced = 0, told = 0;
    assert_int_equal(data_prefetch(whole, 0, 4, 4, &e), 0);
    assert_int_equal(data_prefetch(d, 0, 4, 4, &e), 0);
    for (int k = 0; k < 12; k++) {
        const struct batch *a = next(whole), *b = next(d);
        for (int64_t i = 0; i < 4; i++) {
            if (a->episode[i] != 6) {
                assert_same_rows(data_modalities(d), a, i, b, i);
                continue;
            }
            assert_int_equal(b->episode[i], 7);
            assert_int_equal(b->first_frame[i], a->first_frame[i]);
            replaced++;
        }
        told += b->replaced;
        if (b->replaced) assert_non_null(strstr(b->why.text, "a-1.tar"));
    }
    assert_true(replaced > 0);
    assert_int_equal(told, replaced);
}

static void broken_samples(void **state) {
    (void)state;
    int64_t at = offset_in_shard(6, "audio.flac");
    struct data *whole = open_data("data.memory_mb=64", NULL);
    struct batch all;
    struct err e = {0};
    int64_t every[EPISODES], zero[EPISODES] = {0};
    for (int i = 0; i < EPISODES; i++) every[i] = i; // into the cache, before the flip
    assert_int_equal(data_window(whole, every, zero, EPISODES, 10, &all, &e), 0);
    batch_fini(&all);
    flip("a-1.tar", at + 100);
    struct data *stop = open_data("data.threads=3", NULL), *skip = open_data("data.on_error=skip", NULL),
                *fast = open_data("data.on_error=skip", "data.threads=4");
    stop_names_the_place(stop, at);
    skip_takes_the_next(whole, skip);
    skip_takes_the_next(whole, fast);
    data_close(whole);
    data_close(stop);
    data_close(skip);
    data_close(fast);
    flip("a-1.tar", at + 100);
}

static void the_cache_keeps_its_budget(void **state) {
    (void)state;
    enum { BUDGET = 250000 }; // four episodes of 30 pictures of 2 KiB
    struct data *d = open_data(NULL, NULL);
    struct data_cache *c;
    const struct data_episode *held, *ep[EPISODES];
    struct err e = {0};
    assert_int_equal(data_cache_create(&c, data_dataset(d), data_modalities(d), BUDGET, 1, &e), 0);
    assert_int_equal(data_cache_take(c, 3, 0, 1, &held, &e), 0);
    for (int i = 0; i < EPISODES; i++) {
        assert_int_equal(data_cache_take(c, i, 0, 1, &ep[i], &e), 0);
        assert_int_equal(ep[i]->number, i);
        data_cache_give_back(c, ep[i]);
        assert_true(data_cache_bytes(c) <= BUDGET);
    }
    assert_ptr_equal(ep[3], held); // in use: it stays
    for (int i = 0; i < EPISODES; i++) assert_int_equal(data_cache_take(c, i, 0, 1, &ep[i], &e), 0);
    assert_true(data_cache_bytes(c) > BUDGET);
    for (int i = 0; i < EPISODES; i++) data_cache_give_back(c, ep[i]);
    data_cache_give_back(c, held);
    assert_true(data_cache_bytes(c) <= BUDGET);
    data_cache_destroy(c);
    data_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_are_the_planned_windows), cmocka_unit_test(ranks_cut_the_same_global_batch),
        cmocka_unit_test(a_batch_stays_for_one_more_call), cmocka_unit_test(announcing_again_starts_anew),
        cmocka_unit_test(what_is_missing_is_not_valid),    cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(the_cache_keeps_its_budget),      cmocka_unit_test(broken_samples),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
