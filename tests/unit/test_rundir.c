// SPDX-License-Identifier: Apache-2.0
// The run folder and the job's private folder, with hostile contents; and what a changed config means for a
// resume.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "launcher/boxdir.h"
#include "launcher/resume.h"
#include "launcher/rundir.h"
#include "launcher/why.h"

static int names_left = -1; // before readdir fails; -1: it does not

struct dirent *__real_readdir(DIR *d);
struct dirent *__wrap_readdir(DIR *d);

struct dirent *__wrap_readdir(DIR *d) {
    if (names_left < 0 || names_left-- > 0) return __real_readdir(d);
    names_left = -1;
    errno = EIO;
    return NULL;
}

static int looker_fd = -1; // holds a lock until somebody waits; -1: none

void __wrap_clock_sleep_ms(int64_t ms);
void __real_clock_sleep_ms(int64_t ms);

void __wrap_clock_sleep_ms(int64_t ms) {
    if (looker_fd >= 0) close(looker_fd);
    looker_fd = -1;
    __real_clock_sleep_ms(ms);
}

struct place {
    char folder[64];
    struct rundir run;
};

static int open_place(void **state) {
    struct place *p = calloc(1, sizeof *p);
    struct err e = {0};
    char path[96];
    snprintf(p->folder, sizeof p->folder, "/tmp/orrery-test-rundir-XXXXXX");
    if (!mkdtemp(p->folder)) return -1;
    snprintf(path, sizeof path, "%s/a/b", p->folder);
    *state = p;
    return rundir_open(&p->run, path, true, &e);
}

static int close_place(void **state) {
    struct place *p = *state;
    rundir_close(&p->run);
    boxdir_remove_tree(p->folder);
    free(p);
    return 0;
}

static void write_text(const struct rundir *run, const char *name, const char *text) {
    char path[RUNDIR_PATH_BYTES + 64];
    struct err e = {0};
    assert_int_equal(rundir_join(run, name, path, sizeof path, &e), 0);
    assert_int_equal(bytes_write_file(path, text, strlen(text), &e), 0);
}

static void plant_link(const struct rundir *run, const char *name, const char *target) {
    char path[RUNDIR_PATH_BYTES + 64];
    struct err e = {0};
    assert_int_equal(rundir_join(run, name, path, sizeof path, &e), 0);
    assert_int_equal(symlink(target, path), 0);
}

// The disk takes the first bytes of the line: the reason is told, not what errno held before.
static void a_lock_written_in_part_is_told(void **state) {
    struct place *p = *state;
    struct err e = {0};
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 16;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    errno = 0;
    int rc = rundir_lock(&p->run, &e);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(rc, -ERR_IO);
    assert_non_null(strstr(e.text, strerror(EFBIG)));
}

static void planted_links_are_refused(void **state) {
    struct place *p = *state;
    char out[RUNDIR_PATH_BYTES + 64];
    int fd;
    static const char *const files[] = {"events.jsonl", "lock"};
    plant_link(&p->run, "logs", p->folder);
    struct err e = {0};
    assert_int_not_equal(rundir_make(&p->run, "logs/attempt-1", out, sizeof out, &e), 0);
    assert_non_null(strstr(e.text, "symbolic link"));
    for (size_t i = 0; i < 2; i++) {
        struct err bad = {0};
        plant_link(&p->run, files[i], "/tmp/orrery-test-no-such-victim");
        assert_int_not_equal(rundir_append(&p->run, files[i], &fd, &bad), 0);
        assert_int_equal(bad.code, ERR_DATA);
    }
    err_clear(&e);
    assert_int_not_equal(rundir_lock(&p->run, &e), 0);
    assert_int_equal(access("/tmp/orrery-test-no-such-victim", F_OK), -1);
}

static void bad_folders_are_refused(void **state) {
    struct place *p = *state;
    struct rundir run;
    struct err e = {0};
    char path[RUNDIR_PATH_BYTES + 64];
    write_text(&p->run, "file", "x");
    assert_int_not_equal(rundir_open(&run, "", true, &e), 0);
    assert_int_equal(e.code, ERR_CONFIG);
    err_clear(&e);
    assert_int_not_equal(rundir_open(&run, "/", true, &e), 0);
    err_clear(&e);
    assert_int_equal(rundir_open(&run, "s3://bucket/run", true, &e), -ERR_CONFIG);
    assert_non_null(strstr(e.text, "checkpoint.url=s3://bucket/run"));
    assert_int_equal(access("s3:", F_OK), -1);
    err_clear(&e);
    assert_int_not_equal(rundir_open(&run, "/tmp/orrery-test-no-such-folder", false, &e), 0);
    assert_int_equal(e.code, ERR_MISSING);
    err_clear(&e);
    assert_int_equal(rundir_join(&p->run, "file", path, sizeof path, &e), 0);
    assert_int_not_equal(rundir_open(&run, path, true, &e), 0);
}

static void a_second_supervisor_is_told_who_holds_the_run(void **state) {
    struct place *p = *state;
    struct rundir second;
    struct err e = {0};
    char mine[32];
    assert_int_equal(rundir_lock(&p->run, &e), 0);
    assert_int_equal(rundir_open(&second, p->run.path, false, &e), 0);
    assert_int_not_equal(rundir_lock(&second, &e), 0);
    assert_int_equal(e.code, ERR_CONFLICT);
    snprintf(mine, sizeof mine, "process %d on host", (int)getpid());
    assert_non_null(strstr(e.text, mine));
    // A lock that says nothing, or something hostile, gives no advice to kill.
    static const char *const forged[] = {"", "hi\n", "{\"pid\": 0, \"host\": \"h\"}",
                                         "{\"pid\": -1, \"host\": \"h\"}", "{\"pid\": 7}"};
    for (size_t i = 0; i < sizeof forged / sizeof *forged; i++) {
        assert_int_equal(ftruncate(p->run.lock_fd, 0), 0);
        assert_int_equal(pwrite(p->run.lock_fd, forged[i], strlen(forged[i]), 0), (ssize_t)strlen(forged[i]));
        err_clear(&e);
        assert_int_equal(rundir_lock(&second, &e), -ERR_CONFLICT);
        assert_true(strstr(e.text, "fuser") && !strstr(e.text, "kill"));
    }
    const char *escape = "{\"pid\": 7, \"host\": \"h\\u001b[2J\", \"since\": \"now\"}";
    assert_int_equal(pwrite(p->run.lock_fd, escape, strlen(escape), 0), (ssize_t)strlen(escape));
    err_clear(&e);
    assert_int_equal(rundir_lock(&second, &e), -ERR_CONFLICT);
    assert_true(strstr(e.text, "host h?[2J") && !strchr(e.text, '\033'));
    rundir_close(&p->run);
    err_clear(&e);
    assert_int_equal(rundir_lock(&second, &e), 0);
    rundir_close(&second);
}

// orrery top, logs and why ask whether a run lives by a lock of their own, which lasts a moment.
static void who_only_looks_holds_nothing_up(void **state) {
    struct place *p = *state;
    struct err e = {0};
    char path[RUNDIR_PATH_BYTES + 64];
    write_text(&p->run, "lock", "{\"pid\": 7, \"host\": \"elsewhere\", \"since\": \"then\"}");
    assert_int_equal(rundir_join(&p->run, "lock", path, sizeof path, &e), 0);
    looker_fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(flock(looker_fd, LOCK_SH | LOCK_NB), 0);
    assert_int_equal(rundir_lock(&p->run, &e), 0);
    assert_int_equal(looker_fd, -1);
}

static void attempts_are_counted_over_commands(void **state) {
    struct place *p = *state;
    char out[RUNDIR_PATH_BYTES + 64];
    struct err e = {0};
    assert_int_equal(rundir_last_attempt(&p->run, "attempt", &e), 0);
    assert_int_equal(rundir_make(&p->run, "logs/attempt-9", out, sizeof out, &e), 0);
    assert_int_equal(rundir_make(&p->run, "logs/attempt-10", out, sizeof out, &e), 0);
    assert_int_equal(rundir_make(&p->run, "logs/attempt-99999999999999999999", out, sizeof out, &e), 0);
    assert_int_equal(rundir_make(&p->run, "logs/evaluate-12", out, sizeof out, &e), 0);
    assert_int_equal(rundir_last_attempt(&p->run, "attempt", &e), 10);
    assert_int_equal(rundir_last_attempt(&p->run, "evaluate", &e), 12);
}

static void a_record_is_read_back_and_a_hostile_one_survived(void **state) {
    struct place *p = *state;
    struct rundir_record out,
        in = {.id = "x-1", .state = "saved", .task = "train", .pid = 7, .ranks = 3, .attempt = 2};
    struct err e = {0};
    assert_int_not_equal(rundir_read_record(&p->run, &out, &e), 0);
    assert_int_equal(e.code, ERR_MISSING);
    err_clear(&e);
    assert_int_equal(rundir_write_record(&p->run, &in, &e), 0);
    assert_int_equal(rundir_read_record(&p->run, &out, &e), 0);
    assert_string_equal(out.state, "saved");
    assert_int_equal(out.ranks, 3);
    write_text(&p->run, "run.json",
               "{\"id\": \"a\\u001b[2J\", \"ranks\": \"many\", \"pid\": {}, \"boxes\": \"/etc\"}");
    assert_int_equal(rundir_read_record(&p->run, &out, &e), 0);
    assert_null(strchr(out.id, '\033'));
    assert_int_equal(out.ranks, 0);
    assert_false(boxdir_is_ours(out.box_path));
    // A pipe does not keep anybody waiting.
    char path[RUNDIR_PATH_BYTES + 64];
    assert_int_equal(rundir_join(&p->run, "run.json", path, sizeof path, &e), 0);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_not_equal(rundir_read_record(&p->run, &out, &e), 0);
    err_clear(&e);
    write_text(&p->run, "run.json", "[[[[");
    assert_int_not_equal(rundir_read_record(&p->run, &out, &e), 0);
    assert_int_equal(e.code, ERR_DATA);
}

static void why_takes_no_forged_box(void **state) {
    struct place *p = *state;
    struct rundir_record record = {.id = "x-1", .state = "failed", .ranks = 2};
    struct err e = {0};
    struct blackbox *box = NULL;
    char path[RUNDIR_PATH_BYTES + 64];
    static struct why w;
    assert_int_equal(rundir_write_record(&p->run, &record, &e), 0);
    assert_int_equal(rundir_make(&p->run, "blackbox", path, sizeof path, &e), 0);
    assert_int_equal(why_read(&w, &p->run, &e), 0);
    assert_int_equal(w.n, 0);
    why_fini(&w);
    assert_int_equal(rundir_join(&p->run, "blackbox/rank-0.box", path, sizeof path, &e), 0);
    assert_int_equal(blackbox_create(&box, path, 5, 6, 1, "train", &e), 0);
    blackbox_close(box);
    box = NULL;
    // The other rank's is read all the same.
    assert_int_equal(rundir_join(&p->run, "blackbox/rank-1.box", path, sizeof path, &e), 0);
    assert_int_equal(blackbox_create(&box, path, 1, 2, 1, "train", &e), 0);
    blackbox_close(box);
    assert_int_equal(why_read(&w, &p->run, &e), 0);
    assert_true(w.n == 1 && w.pages[0].rank == 1);
    assert_non_null(strstr(w.unread, "says that it is of rank 5"));
    why_fini(&w);
    assert_int_equal(rundir_join(&p->run, "blackbox/rank-0.box", path, sizeof path, &e), 0);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(why_read(&w, &p->run, &e), 0);
    assert_true(w.n == 1 && strstr(w.unread, "no black box"));
    why_fini(&w);
    unlink(path);
    plant_link(&p->run, "blackbox/rank-0.box", "/etc/passwd");
    assert_int_equal(why_read(&w, &p->run, &e), 0);
    assert_true(w.n == 1 && strstr(w.unread, "symbolic link"));
    why_fini(&w);
}

// A disk that lost power may hold NULs where lines were written.
static void why_reads_what_follows_nul_bytes(void **state) {
    struct place *p = *state;
    struct rundir_record record = {.id = "x-1", .state = "failed", .ranks = 1};
    struct err e = {0};
    char path[RUNDIR_PATH_BYTES + 64];
    static const char events[] = "{\"event\": \"attempt-start\"}\n\0\0\0\0\n"
                                 "{\"event\": \"verdict\", \"kind\": \"crash\", \"cause\": \"it fell\"}\n";
    static struct why w;
    assert_int_equal(rundir_write_record(&p->run, &record, &e), 0);
    assert_int_equal(rundir_join(&p->run, "events.jsonl", path, sizeof path, &e), 0);
    assert_int_equal(bytes_write_file(path, events, sizeof events - 1, &e), 0);
    assert_int_equal(why_read(&w, &p->run, &e), 0);
    assert_true(w.has_verdict);
    assert_string_equal(w.verdict.cause, "it fell");
    why_fini(&w);
}

// Where a rank's box is not there, the others keep their numbers.
static void why_names_who_waits(void **state) {
    struct place *p = *state;
    struct rundir_record record = {.id = "x-1", .state = "failed", .ranks = 4};
    struct err e = {0};
    char path[RUNDIR_PATH_BYTES + 64], name[32];
    static struct why w;
    assert_int_equal(rundir_write_record(&p->run, &record, &e), 0);
    assert_int_equal(rundir_make(&p->run, "blackbox", path, sizeof path, &e), 0);
    for (int r = 1; r < 4; r++) {
        struct blackbox *box = NULL;
        snprintf(name, sizeof name, "blackbox/rank-%d.box", r);
        assert_int_equal(rundir_join(&p->run, name, path, sizeof path, &e), 0);
        assert_int_equal(blackbox_create(&box, path, r, 4, 1, "train", &e), 0);
        if (r != 2) blackbox_coll_begin(box, "agree", 8, 8);
        if (r != 2) blackbox_coll_wait(box, "agree", 1, 8);
        blackbox_close(box);
    }
    assert_int_equal(why_read(&w, &p->run, &e), 0);
    if (!strstr(w.comparison, "ranks 1, 3 wait in agree (collective 1); behind is rank 2:"))
        fail_msg("%s", w.comparison);
    why_fini(&w);
}

// ---- boxdir

static void count_folder(void *arg, const char *path, bool alive) {
    struct boxdir *wanted = arg;
    if (!strcmp(path, wanted->path)) wanted->alive_fd = alive ? 1 : 0;
}

// Else an attempt would write over another's logs, and old boxes would be taken for new ones.
static void a_folder_that_cannot_be_read_is_an_error(void **state) {
    struct place *p = *state;
    char out[RUNDIR_PATH_BYTES + 64];
    struct err e = {0};
    struct boxdir seen = {.alive_fd = -1};
    assert_int_equal(rundir_make(&p->run, "logs/attempt-9", out, sizeof out, &e), 0);
    names_left = 2;
    assert_int_equal(rundir_last_attempt(&p->run, "attempt", &e), -ERR_IO);
    err_clear(&e);
    names_left = 1;
    assert_int_equal(boxdir_clear_boxes(out, &e), -ERR_IO);
    err_clear(&e);
    names_left = 1;
    assert_int_equal(boxdir_save_boxes(out, p->run.path, &e), -ERR_IO);
    err_clear(&e);
    names_left = 1;
    assert_int_equal(boxdir_each(count_folder, &seen, &e), -ERR_IO);
}

static void a_private_folder_comes_and_goes(void **state) {
    struct boxdir d, seen = {.alive_fd = -1}, next;
    struct err e = {0};
    struct stat st;
    char dead[BOXDIR_PATH_BYTES];
    assert_int_equal(boxdir_make(&d, &e), 0);
    assert_int_equal(stat(d.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    memcpy(seen.path, d.path, sizeof d.path);
    assert_int_equal(boxdir_each(count_folder, &seen, &e), 0);
    assert_int_equal(seen.alive_fd, 1);
    // Its job dies without a word: the next one cleans up.
    memcpy(dead, d.path, sizeof dead);
    close(d.alive_fd);
    assert_int_equal(boxdir_make(&next, &e), 0);
    assert_int_equal(stat(dead, &st), -1);
    boxdir_remove(&next);
    assert_int_equal(stat(next.path[0] ? next.path : dead, &st), -1);
}

static void removal_follows_no_link(void **state) {
    struct place *p = *state;
    char path[160], keep[160];
    struct err e = {0};
    struct boxdir d;
    snprintf(keep, sizeof keep, "%s/keep", p->folder);
    assert_int_equal(bytes_write_file(keep, "x", 1, &e), 0);
    assert_int_equal(boxdir_make(&d, &e), 0);
    snprintf(path, sizeof path, "%s/link", d.path);
    assert_int_equal(symlink(p->folder, path), 0);
    boxdir_remove(&d);
    assert_int_equal(access(keep, F_OK), 0);
}

// ---- a changed config

static int check_change(struct place *p, const char *override, bool force, struct err *e) {
    struct config_file *now = NULL;
    struct buf changes;
    buf_init(&changes, 65536);
    assert_int_equal(config_load(&now, NULL, &override, override ? 1 : 0, e), 0);
    int rc = resume_check_config(config_values(now), &p->run, force, &changes, e);
    if (!rc && override) {
        bool told = changes.data && strstr(changes.data, " -> ");
        assert_true(told == (strncmp(override, "checkpoint.", 11) != 0));
    }
    buf_fini(&changes);
    config_close(now);
    return rc;
}

static void model_keys_are_refused_run_keys_are_not(void **state) {
    struct place *p = *state;
    struct err e = {0};
    write_text(&p->run, "config.yaml", "model:\n  width: 96\n");
    assert_int_equal(check_change(p, NULL, false, &e), 0);
    assert_int_equal(check_change(p, "optim.lr=0.001", false, &e), 0);
    assert_int_equal(check_change(p, "checkpoint.every=7", false, &e), 0);
    assert_int_not_equal(check_change(p, "model.width=128", true, &e), 0);
    assert_int_equal(e.code, ERR_CONFIG);
    assert_non_null(strstr(e.text, "model.width (96 -> 128)"));
    err_clear(&e);
    assert_int_not_equal(check_change(p, "run.seed=9", false, &e), 0);
    assert_non_null(strstr(e.text, "run.seed"));
    err_clear(&e);
    assert_int_equal(check_change(p, "run.seed=9", true, &e), 0);
}

static void no_checkpoints_in_a_folder_that_is_not_there(void **state) {
    struct place *p = *state;
    struct config_file *file = NULL;
    struct resume resume;
    struct err e = {0};
    char path[RUNDIR_PATH_BYTES + 64];
    assert_int_equal(config_load(&file, NULL, NULL, 0, &e), 0);
    assert_int_equal(resume_find(config_values(file), &p->run, &resume, &e), 0);
    assert_int_equal(resume.step, -1);
    assert_int_equal(rundir_join(&p->run, "ckpt", path, sizeof path, &e), 0);
    assert_int_equal(access(path, F_OK), -1);
    config_close(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, open_place, close_place)
        T(a_lock_written_in_part_is_told),
        T(planted_links_are_refused),
        T(a_folder_that_cannot_be_read_is_an_error),
        T(bad_folders_are_refused),
        T(a_second_supervisor_is_told_who_holds_the_run),
        T(who_only_looks_holds_nothing_up),
        T(attempts_are_counted_over_commands),
        T(a_record_is_read_back_and_a_hostile_one_survived),
        T(why_takes_no_forged_box),
        T(why_names_who_waits),
        T(why_reads_what_follows_nul_bytes),
        T(a_private_folder_comes_and_goes),
        T(removal_follows_no_link),
        T(model_keys_are_refused_run_keys_are_not),
        T(no_checkpoints_in_a_folder_that_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
