// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/blackbox.h"
#include "base/bytes.h"

static char dir[64], path[96];

static int make_folder(void **state) {
    snprintf(dir, sizeof dir, "/tmp/orrery-box-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/box", dir);
    return 0;
}

static int remove_folder(void **state) {
    unlink(path);
    return rmdir(dir);
}

static void what_is_written_is_read(void **state) {
    struct err e = {0}, failure = {0};
    struct blackbox *writer, *reader;
    static struct blackbox_page page;
    assert_int_equal(blackbox_create(&writer, path, 2, 4, 3, "train", &e), 0);
    assert_int_equal(blackbox_open(&reader, path, &e), 0);
    blackbox_read(reader, &page);
    assert_int_equal(page.rank, 2);
    assert_int_equal(page.world, 4);
    assert_int_equal(page.attempt, 3);
    assert_int_equal(page.pid, getpid());
    assert_string_equal(page.task, "train");
    assert_true(page.host[0] != 0);
    assert_int_equal(page.checkpoint_step, -1);
    int64_t first_beat = page.heartbeat_ns;
    blackbox_set_phase(writer, PHASE_DATA, "shard-0042.tar");
    blackbox_set_step(writer, 17);
    blackbox_coll_begin(writer, "reduce-scatter gradients", 4200000, 4200000);
    blackbox_coll_wait(writer, "reduce-scatter gradients", 1, 4200000);
    blackbox_page(writer)->loss = 0.25;
    blackbox_event(writer, "saved step %d", 16);
    (void)err_set(&failure, ERR_IO, "disk full");
    blackbox_set_err(writer, &failure);
    blackbox_read(reader, &page);
    assert_int_equal(page.phase, PHASE_DATA);
    assert_string_equal(page.place, "shard-0042.tar");
    assert_int_equal(page.step, 17);
    assert_int_equal(page.coll_seq, 1);
    assert_int_equal(page.coll_done, 0);
    assert_int_equal(page.coll_waiting, 1);
    assert_int_equal(page.colls[1].seq, 1);
    assert_int_equal(page.colls[1].bytes, 4200000);
    assert_string_equal(page.colls[1].name, "reduce-scatter gradients");
    assert_int_equal(page.coll_bytes, 4200000);
    assert_string_equal(page.coll_name, "reduce-scatter gradients");
    assert_true(page.loss == 0.25);
    assert_true(page.heartbeat_ns > first_beat);
    assert_int_equal(page.event_count, 1);
    assert_string_equal(page.events[0].text, "saved step 16");
    assert_int_equal(page.events[0].step, 17);
    assert_int_equal(page.err_code, ERR_IO);
    assert_string_equal(page.err_text, "disk full");
    blackbox_coll_end(writer);
    blackbox_close(writer);
    blackbox_read(reader, &page); // the file outlives its writer
    assert_int_equal(page.coll_done, 1);
    assert_int_equal(page.coll_waiting, 0);
    assert_true(page.coll_wait_ns > 0);
    uint64_t silences = 0;
    for (int b = 0; b < BLACKBOX_BUCKETS; b++) silences += page.silences[BLACKBOX_WAITING][b];
    assert_int_equal(silences, 2); // the error's report, and the end of the wait
    blackbox_close(reader);
    blackbox_close(NULL);
}

static void a_killed_writer_leaves_its_last_words(void **state) {
    struct err e = {0};
    struct blackbox *reader;
    static struct blackbox_page page;
    pid_t child = fork();
    if (child == 0) {
        struct blackbox *b;
        if (blackbox_create(&b, path, 1, 2, 0, "train", &e)) _exit(1);
        blackbox_set_phase(b, PHASE_BACKWARD, "");
        blackbox_set_step(b, 99);
        raise(SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(blackbox_open(&reader, path, &e), 0);
    blackbox_read(reader, &page);
    assert_int_equal(page.step, 99);
    assert_int_equal(page.pid, child);
    assert_string_equal(blackbox_phase_name((enum blackbox_phase)page.phase), "backward");
    blackbox_close(reader);
}

static void the_ring_keeps_the_newest(void **state) {
    struct err e = {0};
    struct blackbox *b;
    static struct blackbox_page page;
    assert_int_equal(blackbox_create(&b, NULL, 0, 1, 0, "train", &e), 0); // without a file
    for (int i = 0; i < BLACKBOX_EVENTS + 10; i++) blackbox_event(b, "event %d", i);
    blackbox_event(b, "%0500d", 7);
    blackbox_read(b, &page);
    assert_int_equal(page.event_count, BLACKBOX_EVENTS + 11);
    assert_string_equal(page.events[(page.event_count - 2) % BLACKBOX_EVENTS].text, "event 265");
    assert_int_equal(strlen(page.events[(page.event_count - 1) % BLACKBOX_EVENTS].text), BLACKBOX_TEXT - 1);
    blackbox_close(b);
}

static void *write_events(void *arg) {
    for (int i = 0; i < 50; i++) blackbox_event(arg, "thread event %d", i);
    return NULL;
}

static void any_thread_may_leave_an_event(void **state) {
    struct err e = {0};
    struct blackbox *b;
    pthread_t threads[4];
    assert_int_equal(blackbox_create(&b, path, 0, 1, 0, "train", &e), 0);
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, write_events, b), 0);
    for (int64_t step = 0; step < 1000; step++) blackbox_set_step(b, step);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    assert_int_equal(blackbox_page(b)->event_count, 200);
    for (int i = 0; i < 200; i++) assert_memory_equal(blackbox_page(b)->events[i].text, "thread event ", 13);
    blackbox_close(b);
}

static void refuse(const void *data, size_t n) {
    struct err e = {0};
    struct blackbox *b;
    assert_int_equal(bytes_write_file(path, data, n, &e), 0);
    assert_int_equal(blackbox_open(&b, path, &e), -ERR_DATA);
    assert_null(b);
}

static void foreign_files_are_refused(void **state) {
    struct err e = {0};
    struct blackbox *b;
    static struct blackbox_page page;
    page = (struct blackbox_page){.magic = BLACKBOX_MAGIC, .version = BLACKBOX_VERSION, .bytes = sizeof page};
    refuse("", 0);
    refuse(&page, sizeof page - 1);
    page.version++;
    refuse(&page, sizeof page);
    page.version--;
    page.magic = 0;
    refuse(&page, sizeof page);
    page.magic = BLACKBOX_MAGIC;
    page.bytes = 4;
    refuse(&page, sizeof page);
    unlink(path);
    assert_int_equal(blackbox_open(&b, path, &e), -ERR_MISSING);
    err_clear(&e);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_true(blackbox_open(&b, path, &e) < 0); // no symlink is followed
    unlink(path);
    err_clear(&e);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(blackbox_open(&b, path, &e), -ERR_DATA); // and no pipe is waited for
}

static void a_forged_page_is_made_harmless(void **state) {
    struct err e = {0};
    struct blackbox *b;
    static struct blackbox_page page;
    memset(&page, 0xff, sizeof page);
    memset(page.host, 'h', sizeof page.host);
    memcpy(page.place, "\033[31m\n", 7);
    page.magic = BLACKBOX_MAGIC;
    page.version = BLACKBOX_VERSION;
    page.bytes = sizeof page;
    assert_int_equal(bytes_write_file(path, &page, sizeof page, &e), 0);
    assert_int_equal(blackbox_open(&b, path, &e), 0);
    blackbox_read(b, &page);
    assert_int_equal(strlen(page.host), sizeof page.host - 1);
    assert_string_equal(page.place, "?[31m?");
    assert_int_equal(page.phase, PHASE_INIT);
    assert_int_equal(page.err_code, ERR_BUG);
    for (int i = 0; i < BLACKBOX_EVENTS; i++) assert_true(strlen(page.events[i].text) < BLACKBOX_TEXT);
    assert_int_equal(truncate(path, 10), 0); // cut under the reader: the last good page stays
    blackbox_read(b, &page);
    assert_int_equal(page.magic, BLACKBOX_MAGIC);
    blackbox_close(b);
    assert_string_equal(blackbox_phase_name((enum blackbox_phase)77), "unknown");
}

static void a_new_box_does_not_touch_the_old_reader(void **state) {
    struct err e = {0};
    struct blackbox *first, *second, *reader;
    static struct blackbox_page page;
    unlink(path);
    assert_int_equal(blackbox_create(&first, path, 0, 1, 1, "train", &e), 0);
    assert_int_equal(blackbox_open(&reader, path, &e), 0);
    assert_int_equal(blackbox_create(&second, path, 0, 1, 2, "train", &e), 0);
    blackbox_read(reader, &page);
    assert_int_equal(page.attempt, 1);
    blackbox_close(reader);
    assert_int_equal(blackbox_open(&reader, path, &e), 0);
    blackbox_read(reader, &page);
    assert_int_equal(page.attempt, 2);
    blackbox_close(reader);
    blackbox_close(second);
    blackbox_close(first);
    assert_true(blackbox_create(&first, "/nonexistent/box", 0, 1, 0, "", &e) == -ERR_MISSING);
    assert_null(first);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(a_killed_writer_leaves_its_last_words),
        cmocka_unit_test(the_ring_keeps_the_newest),
        cmocka_unit_test(any_thread_may_leave_an_event),
        cmocka_unit_test(foreign_files_are_refused),
        cmocka_unit_test(a_forged_page_is_made_harmless),
        cmocka_unit_test(a_new_box_does_not_touch_the_old_reader),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
