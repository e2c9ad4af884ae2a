// SPDX-License-Identifier: Apache-2.0
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "launcher/proc.h"

static int gate[2]; // held open by whoever is to live

static void *hold(void *unused) {
    char c;
    ssize_t n = read(gate[0], &c, 1);
    _exit(n == 0);
}

static pid_t start(bool in_main, bool in_thread) {
    pid_t pid = fork();
    if (pid) return pid;
    pthread_t thread;
    close(gate[1]);
    if (in_thread) pthread_create(&thread, NULL, hold, NULL);
    if (in_main) hold(NULL);
    if (in_thread) pthread_exit(NULL);
    _exit(0);
}

static void wait_until_zombie(pid_t pid) {
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

static void a_process_lives_until_its_last_thread_ends(void **state) {
    assert_int_equal(pipe(gate), 0);
    pid_t plain = start(true, false), headless = start(false, true), dead = start(false, false);
    wait_until_zombie(dead);
    usleep(100000); // for the main thread to go
    assert_true(proc_alive(plain));
    assert_true(proc_alive(headless));
    assert_false(proc_alive(dead));
    close(gate[1]);
    wait_until_zombie(headless);
    assert_false(proc_alive(headless));
    waitpid(plain, NULL, 0);
    assert_false(proc_alive(plain));
    assert_false(proc_alive(0));
    waitpid(headless, NULL, 0);
    waitpid(dead, NULL, 0);
    close(gate[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_process_lives_until_its_last_thread_ends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
