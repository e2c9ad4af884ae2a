// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static size_t read_pipe(int fd, char *out, size_t size) {
    size_t got = 0;
    for (ssize_t n; got < size - 1 && (n = read(fd, out + got, size - 1 - got)) > 0;) got += (size_t)n;
    out[got] = 0;
    return got;
}

static void a_line_has_prefix_and_level(void **state) {
    int ends[2];
    char text[1000];
    struct log l;
    assert_int_equal(pipe(ends), 0);
    log_init(&l, ends[1], LOG_INFO, "rank 3: ");
    assert_false(l.colour);
    log_debug(&l, "unseen");
    log_info(&l, "step %d", 5);
    log_warn(&l, "slow");
    errno = ENOENT;
    log_error(&l, "lost\nline \033[31m: %m");
    assert_int_equal(errno, ENOENT);
    close(ends[1]);
    read_pipe(ends[0], text, sizeof text);
    assert_string_equal(text, "rank 3: step 5\nrank 3: warning: slow\n"
                              "rank 3: error: lost line  [31m: No such file or directory\n");
    close(ends[0]);
}

static void long_lines_are_cut(void **state) {
    int ends[2];
    static char text[20000], longer[10000];
    struct log l;
    memset(longer, 'x', sizeof longer - 1);
    assert_int_equal(pipe(ends), 0);
    log_init(&l, ends[1], LOG_DEBUG, NULL);
    log_info(&l, "%s", longer);
    close(ends[1]);
    size_t n = read_pipe(ends[0], text, sizeof text);
    assert_true(n < 4097);
    assert_string_equal(text + n - 5, "x...\n");
    close(ends[0]);
}

#define THREADS 4
#define LINES   500

static void *talk(void *arg) {
    const struct log *l = arg;
    for (int i = 0; i < LINES; i++) log_info(l, "abcdefghijklmnopqrstuvwxyz%s", "0123456789");
    return NULL;
}

static void lines_of_threads_do_not_mix(void **state) {
    char path[] = "/tmp/orrery-log-XXXXXX";
    int fd = mkstemp(path);
    struct log l;
    pthread_t threads[THREADS];
    assert_true(fd >= 0 && fcntl(fd, F_SETFL, O_APPEND) == 0);
    log_init(&l, fd, LOG_INFO, "");
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, talk, &l), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    lseek(fd, 0, SEEK_SET);
    char line[37];
    int lines = 0;
    for (; read(fd, line, 37) == 37; lines++)
        assert_memory_equal(line, "abcdefghijklmnopqrstuvwxyz0123456789\n", 37);
    assert_int_equal(lines, THREADS * LINES);
    close(fd);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_has_prefix_and_level),
        cmocka_unit_test(long_lines_are_cut),
        cmocka_unit_test(lines_of_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
