// SPDX-License-Identifier: Apache-2.0
// Whom the keeper ends when its supervisor vanishes, and whom it does not.
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "launcher/boxdir.h"
#include "launcher/keeper.h"

struct scene {
    struct boxdir boxes;
    struct keeper keeper;
    pid_t former, present; // processes of an attempt before, of the one under way
};

static pid_t start_sleeper(void) {
    pid_t pid = fork();
    if (pid == 0) {
        setpgid(0, 0);
        sleep(60);
        _exit(0);
    }
    setpgid(pid, pid);
    return pid;
}

static int open_scene(struct scene *s) {
    struct err e = {0};
    s->former = start_sleeper();
    s->present = start_sleeper();
    int rc = boxdir_make(&s->boxes, &e);
    const struct keeper_duty duty = {.box_path = s->boxes.path, .locks = {s->boxes.alive_fd, -1}};
    return rc ? rc : keeper_start(&s->keeper, &duty, &e);
}

// As when the supervisor is killed: the keeper's pipe ends without a word.
static void vanish(struct scene *s) {
    close(s->keeper.fd);
    assert_int_equal(waitpid(s->keeper.pid, NULL, 0), s->keeper.pid);
}

// By which signal the process has ended; 0 if it lives, after a look of so many milliseconds.
static int ended_by(pid_t pid, int ms) {
    int status = 0, turns = 0;
    pid_t ended;
    while ((ended = waitpid(pid, &status, WNOHANG)) == 0 && turns++ < ms) usleep(1000);
    return ended == pid && WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void end(struct scene *s) {
    kill(s->former, SIGKILL);
    kill(s->present, SIGKILL);
    waitpid(s->former, NULL, 0);
    waitpid(s->present, NULL, 0);
    boxdir_remove(&s->boxes);
}

static void only_the_attempt_under_way_is_ended(void **state) {
    struct scene s = {.keeper = {.fd = -1}};
    assert_int_equal(open_scene(&s), 0);
    keeper_tell(&s.keeper, s.former);
    keeper_forget(&s.keeper);
    keeper_tell(&s.keeper, s.present);
    vanish(&s);
    int present = ended_by(s.present, 5000), former = ended_by(s.former, 0);
    end(&s);
    assert_int_equal(present, SIGKILL);
    assert_int_equal(former, 0);
}

static void nobody_is_ended_when_all_is_done(void **state) {
    struct scene s = {.keeper = {.fd = -1}};
    assert_int_equal(open_scene(&s), 0);
    keeper_tell(&s.keeper, s.present);
    keeper_stop(&s.keeper);
    int present = ended_by(s.present, 0);
    end(&s);
    assert_int_equal(present, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_attempt_under_way_is_ended),
        cmocka_unit_test(nobody_is_ended_when_all_is_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
