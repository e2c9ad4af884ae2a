// SPDX-License-Identifier: Apache-2.0
// The cache of episodes whose film is kept by windows: what threads take is what the whole film shows, memory
// stays within its budget, and a broken window harms no other.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/mp4_make.h"
#include "lib/mp4_set.h"
#include "trainer/data_cache.h"

enum { PICTURES = 240, FRAMES = PICTURES + 2, SIDE = 16, ELEMS = SIDE * SIDE * 3, WINDOW = 8, THREADS = 4 };
enum { BUDGET = 128 << 10 }; // some windows; the episode has 184 KiB

static struct dataset *set;
static struct config_file *config;
static struct modality_set senses;

static int open_set(void **state) {
    static const char *const overrides[] = {"video.height=16", "video.width=16", "video.channels=3",
                                            "model.modalities=video"};
    struct err e = {0};
    const struct stream_schema *streams;
    int64_t times[PICTURES];
    size_t n = 0;
    for (int i = 0; i < PICTURES; i++) times[i] = 100 * i;
    const struct mp4_make make = {"mpeg4", 64, 48, PICTURES, 2, times, false, true};
    char *film = mp4_encode(&make, &n);
    if (!film) return -1;
    mp4_set("mem:cache", film, n, FRAMES, SIDE);
    free(film);
    if (dataset_open(&set, "mem:cache", NULL, &e) || config_load(&config, NULL, overrides, 4, &e)) return -1;
    int count = dataset_streams(set, &streams);
    return modality_set_init(&senses, config_values(config), streams, count, &e);
}

static int close_set(void **state) {
    dataset_close(set);
    config_close(config);
    return 0;
}

struct taker {
    struct data_cache *cache;
    const struct data_episode *whole;
    int number, wrong;
};

static void *take_windows(void *arg) {
    struct taker *t = arg;
    for (int i = 0; i < 150; i++) {
        struct err e = {0};
        const struct data_episode *x;
        int64_t first =
            (i * 37 + t->number % 2 * 11) % (FRAMES - WINDOW + 1); // two threads want the same ones
        if (data_cache_take(t->cache, 0, first, WINDOW, &x, &e)) {
            t->wrong++;
            continue;
        }
        size_t from = (size_t)(first - x->first[0]);
        t->wrong += memcmp((const char *)x->cells[0] + from * ELEMS,
                           (const char *)t->whole->cells[0] + (size_t)first * ELEMS, WINDOW * ELEMS) != 0;
        t->wrong += memcmp(x->valid[0] + from, t->whole->valid[0] + first, WINDOW) != 0;
        data_cache_give_back(t->cache, x);
    }
    return NULL;
}

static void threads_take_what_the_whole_film_shows(void **state) {
    (void)state;
    struct err e = {0};
    struct data_cache *large, *small;
    const struct data_episode *whole;
    pthread_t threads[THREADS];
    struct taker takers[THREADS];
    if (!getenv("ORRERY_FFMPEG_PLUGIN")) skip();
    assert_int_equal(data_cache_create(&large, set, &senses, (size_t)64 << 20, 1, &e), 0);
    assert_int_equal(data_cache_create(&small, set, &senses, BUDGET, 1, &e), 0);
    if (data_cache_take(large, 0, 0, WINDOW, &whole, &e)) fail_msg("%s", e.text);
    for (int i = 0; i < THREADS; i++) {
        takers[i] = (struct taker){small, whole, i, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, take_windows, &takers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) assert_int_equal(takers[i].wrong, 0);
    assert_true(data_cache_bytes(small) <= BUDGET && data_cache_bytes(small) > 0);
    data_cache_give_back(large, whole);
    data_cache_destroy(small);
    data_cache_destroy(large);
}

static void a_broken_window_harms_no_other(void **state) {
    (void)state;
    struct err e = {0};
    struct store *s;
    struct buf tar;
    struct data_cache *cache;
    const struct data_episode *x;
    if (!getenv("ORRERY_FFMPEG_PLUGIN")) skip();
    buf_init(&tar, (size_t)64 << 20);
    assert_int_equal(store_open(&s, "mem:cache", NULL, &e), 0);
    assert_int_equal(store_get(s, "part.tar", (size_t)64 << 20, &tar, &e), 0);
    tar.data[tar.len / 2] ^= 1; // in the middle of the film
    assert_int_equal(store_put(s, "part.tar", tar.data, tar.len, false, &e), 0);
    assert_int_equal(data_cache_create(&cache, set, &senses, BUDGET, 1, &e), 0);
    for (int turn = 0; turn < 2; turn++) {
        int rc = 0, broken = 0, whole = 0;
        for (int first = 0; first + WINDOW <= FRAMES; first += WINDOW) {
            err_clear(&e);
            rc = data_cache_take(cache, 0, first, WINDOW, &x, &e);
            if (!rc) data_cache_give_back(cache, x);
            if (rc && (rc != -ERR_DATA || !strstr(e.text, "part.tar: a.cam.mp4 at byte")))
                fail_msg("%d: %s", rc, e.text);
            broken += rc != 0;
            whole += !rc;
        }
        assert_true(broken > 0 && whole > broken);
        assert_true(data_cache_bytes(cache) <= BUDGET);
    }
    data_cache_destroy(cache);
    store_close(s);
    buf_fini(&tar);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_take_what_the_whole_film_shows),
        cmocka_unit_test(a_broken_window_harms_no_other),
    };
    return cmocka_run_group_tests(tests, open_set, close_set);
}
