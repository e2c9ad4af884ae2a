// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/rng.h"

static void arithmetic_tells_of_overflow(void **state) {
    size_t out = 7;
    assert_true(bytes_add(2, 3, &out));
    assert_int_equal(out, 5);
    assert_false(bytes_add(SIZE_MAX, 1, &out));
    assert_false(bytes_mul(SIZE_MAX / 2, 3, &out));
    assert_int_equal(out, 5);
    assert_true(bytes_mul(6, 7, &out));
    assert_int_equal(out, 42);
}

static void a_buffer_stops_at_its_limit(void **state) {
    struct err e = {0};
    struct buf b;
    buf_init(&b, 10);
    assert_null(b.data);
    assert_int_equal(buf_append(&b, "12345", 5, &e), 0);
    assert_int_equal(buf_appendf(&b, &e, "%s-%d", "ab", 12345), -ERR_DATA);
    err_clear(&e);
    assert_int_equal(b.len, 5);
    assert_string_equal(b.data, "12345");
    assert_int_equal(buf_appendf(&b, &e, "%d", 67890), 0);
    assert_string_equal(b.data, "1234567890");
    assert_int_equal(buf_append(&b, "x", 1, &e), -ERR_DATA);
    err_clear(&e);
    assert_int_equal(buf_append(&b, NULL, 0, &e), 0);
    assert_int_equal(buf_append(&b, "x", SIZE_MAX, &e), -ERR_DATA);
    err_clear(&e);
    assert_int_equal(buf_reserve(&b, 11, &e), -ERR_DATA);
    buf_clear(&b);
    assert_string_equal(b.data, "");
    char *taken = buf_take(&b);
    assert_string_equal(taken, "");
    assert_null(b.data);
    free(taken);
    buf_fini(&b);
    buf_fini(&b);
}

static void a_buffer_grows_in_many_steps(void **state) {
    struct err e = {0};
    struct buf b;
    buf_init(&b, (size_t)1 << 20);
    for (int i = 0; i < 100000; i++) assert_int_equal(buf_appends(&b, "abc", &e), 0);
    assert_int_equal(b.len, 300000);
    assert_memory_equal(b.data + 299997, "abc", 4);
    assert_true(b.cap <= b.max);
    buf_fini(&b);
}

static void little_endian_everywhere(void **state) {
    unsigned char p[9] = {0};
    bytes_put_le16(p + 1, 0x1234);
    assert_int_equal(p[1], 0x34);
    assert_int_equal(bytes_le16(p + 1), 0x1234);
    bytes_put_le32(p + 1, 0x89abcdef);
    assert_int_equal(p[4], 0x89);
    assert_int_equal(bytes_le32(p + 1), 0x89abcdef);
    bytes_put_le64(p + 1, 0xfedcba9876543210);
    assert_int_equal(p[1], 0x10);
    assert_true(bytes_le64(p + 1) == 0xfedcba9876543210);
    char hex[17];
    bytes_hex(p + 1, 8, hex);
    assert_string_equal(hex, "1032547698badcfe");
}

static void numbers_are_whole_strings(void **state) {
    static const char *const bad[] = {"",    " 1", "1 ", "+", "-", "1a", "0x10", "9223372036854775808",
                                      "1.0", "--1"};
    int64_t v = 5;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(bytes_parse_i64(bad[i], &v));
    assert_int_equal(v, 5);
    assert_true(bytes_parse_i64("-9223372036854775808", &v));
    assert_true(v == INT64_MIN);
    assert_true(bytes_parse_i64("+007", &v));
    assert_int_equal(v, 7);
    static const char *const bad_reals[] = {"",      " 1", "1 ", "nan", "inf",  "1e999",
                                            "0x1p3", "1e", "e5", ".",   "1.2.3"};
    double d = 5;
    for (size_t i = 0; i < sizeof bad_reals / sizeof *bad_reals; i++)
        assert_false(bytes_parse_f64(bad_reals[i], &d));
    assert_true(d == 5);
    assert_true(bytes_parse_f64("-.5e-1", &d));
    assert_true(d == -0.05);
}

static void doubles_keep_their_bits(void **state) {
    char text[BYTES_F64_BYTES];
    assert_string_equal(bytes_format_f64(0.1, text), "0.1");
    assert_string_equal(bytes_format_f64(0.1 + 0.2, text), "0.30000000000000004");
    assert_string_equal(bytes_format_f64(1e-8, text), "1e-08");
    assert_string_equal(bytes_format_f64(5e-324, text), "5e-324");
    assert_string_equal(bytes_format_f64(12, text), "12");
    struct rng_stream r;
    rng_stream_init(&r, rng_key(1, RNG_TEST, 0), 0, 0);
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = rng_next_u64(&r);
        double v, back;
        memcpy(&v, &bits, sizeof v);
        if (!isfinite(v)) continue;
        bytes_format_f64(v, text);
        assert_true(strlen(text) < BYTES_F64_BYTES - 1);
        back = strtod(text, NULL);
        assert_memory_equal(&v, &back, sizeof v);
    }
}

static void utf8_is_checked(void **state) {
    assert_true(bytes_is_utf8("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 10));
    assert_true(bytes_is_utf8("", 0));
    static const char *const bad[] = {
        "\x80", "\xc0\x80", "\xc3", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80",
        "\xff", "a\xe2\x82"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(bytes_is_utf8(bad[i], strlen(bad[i])));
}

// ---- files

static char *folder(void) {
    char *path = strdup("/tmp/orrery-bytes-XXXXXX");
    assert_non_null(mkdtemp(path));
    return path;
}

static void remove_folder(char *path) {
    char file[600];
    struct dirent **names;
    int n = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
        unlink(file);
        free(names[i]);
    }
    free(names);
    rmdir(path);
    free(path);
}

static int count_files(const char *path) {
    int n = 0;
    DIR *d = opendir(path);
    for (struct dirent *at; (at = readdir(d));) n += at->d_name[0] != '.';
    closedir(d);
    return n;
}

static void files_are_read_within_bounds(void **state) {
    struct err e = {0};
    struct buf b;
    char *dir = folder(), path[300];
    snprintf(path, sizeof path, "%s/f", dir);
    buf_init(&b, 100);
    assert_int_equal(bytes_write_file(path, "hello", 5, &e), 0);
    assert_int_equal(bytes_read_file(path, 5, &b, &e), 0);
    assert_int_equal(bytes_read_file(path, 5, &b, &e), 0); // appends
    assert_string_equal(b.data, "hellohello");
    assert_int_equal(bytes_read_file(path, 4, &b, &e), -ERR_DATA);
    assert_string_equal(b.data, "hellohello");
    err_clear(&e);
    assert_int_equal(bytes_read_file(dir, 4, &b, &e), -ERR_DATA);
    err_clear(&e);
    assert_int_equal(bytes_read_file("/dev/zero", 50, &b, &e), -ERR_DATA); // endless, and no size beforehand
    assert_int_equal(b.len, 10);
    err_clear(&e);
    assert_int_equal(bytes_read_file("/nonexistent/x", 50, &b, &e), -ERR_MISSING);
    assert_non_null(strstr(e.text, "/nonexistent/x"));
    err_clear(&e);
    buf_fini(&b);
    assert_int_equal(bytes_write_file(path, "", 0, &e), 0);
    buf_init(&b, 100);
    assert_int_equal(bytes_read_file(path, 5, &b, &e), 0);
    assert_string_equal(b.data, "");
    buf_fini(&b);
    remove_folder(dir);
}

static void *write_late(void *arg) {
    const int *fd = arg;
    usleep(50000);
    assert_int_equal(write(*fd, "late", 4), 4);
    close(*fd);
    return NULL;
}

// A pipe whose other end is slow is read to its end; one that nobody has open does not keep us waiting.
static void pipes_are_read_but_not_waited_for(void **state) {
    struct err e = {0};
    struct buf b;
    pthread_t writer;
    int ends[2];
    char *dir = folder(), path[300];
    buf_init(&b, 100);
    assert_int_equal(pipe(ends), 0);
    snprintf(path, sizeof path, "/dev/fd/%d", ends[0]);
    assert_int_equal(pthread_create(&writer, NULL, write_late, &ends[1]), 0);
    assert_int_equal(bytes_read_file(path, 100, &b, &e), 0);
    assert_string_equal(b.data, "late");
    assert_int_equal(pthread_join(writer, NULL), 0);
    close(ends[0]);
    snprintf(path, sizeof path, "%s/pipe", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(bytes_read_file(path, 100, &b, &e), 0);
    assert_string_equal(b.data, "late");
    buf_fini(&b);
    remove_folder(dir);
}

static void a_failed_write_leaves_the_old_file(void **state) {
    struct err e = {0};
    struct buf b;
    char *dir = folder(), path[300], below[320];
    snprintf(path, sizeof path, "%s/f", dir);
    buf_init(&b, 100);
    assert_int_equal(bytes_write_file(path, "old", 3, &e), 0);
    assert_int_equal(bytes_write_file(path, "newer", 5, &e), 0);
    assert_int_equal(count_files(dir), 1);
    assert_int_equal(bytes_write_file(dir, "x", 1, &e), -ERR_IO); // a folder is in the way
    err_clear(&e);
    snprintf(below, sizeof below, "%s/g", path);
    assert_true(bytes_write_file(below, "x", 1, &e) < 0);
    err_clear(&e);
    assert_true(bytes_write_file("/nonexistent/x", "x", 1, &e) == -ERR_MISSING);
    err_clear(&e);
    assert_int_equal(bytes_read_file(path, 10, &b, &e), 0);
    assert_string_equal(b.data, "newer");
    assert_int_equal(count_files(dir), 1);
    buf_fini(&b);
    remove_folder(dir);
}

// A file may not grow beyond the process's limit: a write that stops half-way, as on a full disk.
static void a_write_cut_short_is_told(void **state) {
    struct err e = {0};
    struct rlimit before, small;
    char *dir = folder(), path[300];
    char *data = calloc(1, 65536);
    snprintf(path, sizeof path, "%s/f", dir);
    assert_int_equal(bytes_write_file(path, "old", 3, &e), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int rc = bytes_write_file(path, data, 65536, &e);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(rc, -ERR_IO);
    assert_non_null(strstr(e.text, path));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 3);
    assert_int_equal(count_files(dir), 1);
    free(data);
    remove_folder(dir);
}

#define STREAM_BYTES ((size_t)1 << 20)

struct stream {
    int fd;
    size_t got, wrong;
};

static void *drain(void *arg) {
    struct stream *s = arg;
    sigset_t all;
    char piece[5000];
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL); // signals are the writer's
    for (ssize_t n; (n = read(s->fd, piece, sizeof piece)) > 0; s->got += (size_t)n)
        for (ssize_t i = 0; i < n; i++) s->wrong += piece[i] != (char)((s->got + (size_t)i) % 251);
    return NULL;
}

static void nothing(int number) {}

static void signals_cut_no_write_short(void **state) {
    int ends[2];
    char *data = malloc(STREAM_BYTES);
    struct stream s = {.wrong = 0};
    pthread_t reader;
    const struct sigaction act = {.sa_handler = nothing}; // no SA_RESTART
    const struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    for (size_t i = 0; i < STREAM_BYTES; i++) data[i] = (char)(i % 251);
    assert_int_equal(pipe(ends), 0);
    s.fd = ends[0];
    assert_int_equal(sigaction(SIGALRM, &act, NULL), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
    usleep(1000);
    assert_int_equal(pthread_create(&reader, NULL, drain, &s), 0);
    size_t wrote = bytes_write_whole(ends[1], data, STREAM_BYTES);
    assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    close(ends[1]);
    assert_int_equal(pthread_join(reader, NULL), 0);
    close(ends[0]);
    assert_int_equal(wrote, STREAM_BYTES);
    assert_int_equal(s.got, STREAM_BYTES);
    assert_int_equal(s.wrong, 0);
    free(data);
}

static void whole_buffers_at_their_places(void **state) {
    char into[8] = "";
    FILE *f = tmpfile();
    int fd = fileno(f);
    assert_int_equal(bytes_pwrite_whole(fd, "later", 5, 3), 5);
    assert_int_equal(bytes_write_whole(fd, "now", 3), 3);
    assert_int_equal(bytes_pread_whole(fd, into, 8, 0), 8);
    assert_memory_equal(into, "nowlater", 8);
    assert_int_equal(bytes_pread_whole(fd, into, 8, 6), 2); // there is no more
    assert_int_equal(bytes_pread_whole(fd, into, 8, 100), 0);
    fclose(f);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(bytes_pread_whole(ends[0], into, 1, 0), -1);
    assert_int_equal(errno, ESPIPE);
    signal(SIGPIPE, SIG_IGN);
    close(ends[0]);
    assert_int_equal(bytes_write_whole(ends[1], "x", 1), 0);
    assert_int_equal(errno, EPIPE);
    close(ends[1]);
}

static void folders_are_made_with_their_parents(void **state) {
    struct err e = {0};
    char *dir = folder(), path[300], file[320];
    snprintf(path, sizeof path, "%s/a//b/c/", dir);
    assert_int_equal(bytes_make_dirs(path, &e), 0);
    assert_int_equal(bytes_make_dirs(path, &e), 0);
    snprintf(file, sizeof file, "%s/a/file", dir);
    assert_int_equal(bytes_write_file(file, "x", 1, &e), 0);
    snprintf(path, sizeof path, "%s/a/file/b", dir);
    assert_int_equal(bytes_make_dirs(path, &e), -ERR_IO);
    assert_non_null(strstr(e.text, "a/file"));
    err_clear(&e);
    assert_int_equal(bytes_make_dirs("", &e), -ERR_USAGE);
    err_clear(&e);
    snprintf(path, sizeof path, "%s/s3://bucket/a", dir);
    assert_int_equal(bytes_make_dirs(path, &e), -ERR_USAGE);
    unlink(file);
    snprintf(path, sizeof path, "%s/a/b/c", dir);
    rmdir(path);
    snprintf(path, sizeof path, "%s/a/b", dir);
    rmdir(path);
    snprintf(path, sizeof path, "%s/a", dir);
    rmdir(path);
    remove_folder(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arithmetic_tells_of_overflow),
        cmocka_unit_test(a_buffer_stops_at_its_limit),
        cmocka_unit_test(a_buffer_grows_in_many_steps),
        cmocka_unit_test(little_endian_everywhere),
        cmocka_unit_test(numbers_are_whole_strings),
        cmocka_unit_test(doubles_keep_their_bits),
        cmocka_unit_test(utf8_is_checked),
        cmocka_unit_test(files_are_read_within_bounds),
        cmocka_unit_test(pipes_are_read_but_not_waited_for),
        cmocka_unit_test(a_failed_write_leaves_the_old_file),
        cmocka_unit_test(a_write_cut_short_is_told),
        cmocka_unit_test(signals_cut_no_write_short),
        cmocka_unit_test(whole_buffers_at_their_places),
        cmocka_unit_test(folders_are_made_with_their_parents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
