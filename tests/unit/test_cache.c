// SPDX-License-Identifier: Apache-2.0
// The node cache: what was put comes back or is not there, the limit holds with many writers and kills, and
// nothing needs cleaning.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
// cmocka.h needs the four above
#include <cmocka.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "storage/cache.h"

#define LIMIT (256 << 10)
#define FILES 40
#define MOST  20000

static void fill(int number, unsigned char *data, size_t *n) {
    *n = (size_t)(1000 + number * 389 % 17000);
    for (size_t i = 0; i < *n; i++) data[i] = (unsigned char)(number * 31 + (int)(i * 7));
}

static struct cache *open_cache(const char *folder) {
    struct err e = {ERR_OK};
    struct cache *c;
    if (cache_open(&c, folder, LIMIT, &e)) fail_msg("%s", e.text);
    return c;
}

static int64_t held(const char *folder, int *temps) {
    int64_t sum = 0;
    char path[512];
    struct stat st;
    DIR *d = opendir(folder);
    assert_non_null(d);
    *temps = 0;
    for (struct dirent *x; (x = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", folder, x->d_name);
        if (stat(path, &st) || !S_ISREG(st.st_mode) || !strcmp(x->d_name, ".sum")) continue;
        *temps += x->d_name[0] == '.';
        sum += st.st_size;
    }
    closedir(d);
    return sum;
}

static void remove_all(const char *folder) {
    pid_t pid = fork();
    if (!pid) execlp("rm", "rm", "-rf", folder, (char *)NULL);
    waitpid(pid, NULL, 0);
}

static void use_at_random(struct cache *c, uint64_t seed, int turns) {
    unsigned char want[MOST], got[MOST];
    struct rng_stream r;
    rng_stream_init(&r, rng_key(seed, RNG_TEST, 0), 0, 0);
    for (int i = 0; turns < 0 || i < turns; i++) {
        char name[32];
        size_t n;
        int number = (int)rng_next_below(&r, FILES);
        snprintf(name, sizeof name, "sample-%d", number);
        fill(number, want, &n);
        if (!cache_get(c, name, got, n))
            cache_put(c, name, want, n);
        else if (memcmp(got, want, n) != 0)
            _exit(3);
    }
}

static void what_is_put_comes_back(void **state) {
    (void)state;
    char folder[] = "/tmp/orrery-cache-XXXXXX";
    unsigned char data[MOST], got[MOST];
    size_t n;
    int temps;
    assert_non_null(mkdtemp(folder));
    struct cache *c = open_cache(folder);
    fill(7, data, &n);
    assert_false(cache_get(c, "seven", got, n));
    cache_put(c, "seven", data, n);
    assert_true(cache_get(c, "seven", got, n));
    assert_memory_equal(got, data, n);
    assert_false(cache_get(c, "seven", got, n - 1)); // of another size: another thing
    cache_drop(c, "seven");
    assert_false(cache_get(c, "seven", got, n));
    cache_put(c, "large", data, LIMIT); // refused before a byte of it is read
    assert_int_equal(held(folder, &temps), 0);
    use_at_random(c, 1, 2000);
    assert_true(held(folder, &temps) <= LIMIT);
    assert_true(held(folder, &temps) > LIMIT / 2); // the limit is used, too
    assert_int_equal(temps, 0);
    cache_close(c);
    remove_all(folder);
}

static void the_least_used_goes_first(void **state) {
    (void)state;
    char folder[] = "/tmp/orrery-cache-XXXXXX", name[32];
    unsigned char data[MOST] = {0}, got[MOST];
    assert_non_null(mkdtemp(folder));
    struct cache *c = open_cache(folder);
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "x%d", i);
        cache_put(c, name, data, 16000);
        clock_sleep_ms(2); // times of files are coarse
        (void)cache_get(c, "x0", got, 16000);
        clock_sleep_ms(8);
    }
    assert_true(cache_get(c, "x0", got, 16000));
    assert_true(cache_get(c, "x39", got, 16000));
    assert_false(cache_get(c, "x1", got, 16000));
    cache_close(c);
    remove_all(folder);
}

static void kills_leave_it_whole_and_within_its_limit(void **state) {
    (void)state;
    char folder[] = "/tmp/orrery-cache-XXXXXX";
    int temps;
    assert_non_null(mkdtemp(folder));
    struct rng_stream r;
    rng_stream_init(&r, rng_key(5, RNG_FAULT, 0), 0, 0);
    for (int round = 0; round < 30; round++) {
        pid_t pids[3];
        for (int i = 0; i < 3; i++) {
            pids[i] = fork();
            assert_true(pids[i] >= 0);
            if (!pids[i]) use_at_random(open_cache(folder), (uint64_t)(round * 3 + i), -1);
        }
        clock_sleep_ms(2 + rng_next_below(&r, 10));
        for (int i = 0; i < 3; i++) {
            int status;
            kill(pids[i], SIGKILL);
            assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
            assert_true(WIFSIGNALED(status)); // an exit would be wrong bytes
        }
        assert_true(held(folder, &temps) <= LIMIT);
    }
    struct cache *c = open_cache(folder);
    use_at_random(c, 99, 3000);
    assert_true(held(folder, &temps) <= LIMIT);
    assert_int_equal(temps, 0);
    cache_close(c);
    remove_all(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_put_comes_back),
                                       cmocka_unit_test(the_least_used_goes_first),
                                       cmocka_unit_test(kills_leave_it_whole_and_within_its_limit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
