// SPDX-License-Identifier: Apache-2.0
// Three runs save the same step into the same place at the same time, round after round, one of them dropping
// old checkpoints all the while: exactly one commits, the others are told by which save, what loads is the
// winner's, and nobody's files are left but its own. URL of the store as argument: a folder in /tmp without
// one.
#include "ckpt_pair.h"

#define RUNS   3
#define ROUNDS 30

// 0: committed; 1: another has.
static int save_as(struct store *s, int64_t step, uint32_t owner) {
    struct err e = {ERR_OK};
    struct buf part;
    char id[CKPT_ID_BYTES];
    ckpt_new_id(id, step, owner);
    buf_init(&part, 1 << 24);
    if (ckpt_toy_write(s, id, 0, 1, step, &part, &e)) pair_die("write", &e);
    if (owner == 1 && ckpt_retain(s, PAIR_KEEP, 9, &e)) pair_die("retain", &e);
    const char *const parts[] = {part.data};
    int rc = ckpt_toy_commit(s, id, step, parts, 1, &e);
    buf_fini(&part);
    if (!rc) return 0;
    if (e.code != ERR_CONFLICT || !strstr(e.text, "already saved, by save ")) pair_die("commit", &e);
    return 1;
}

// A new process image: what libraries keep does not survive a fork. It starts when the parent closes the
// pipe, so that all start at once.
static pid_t start(const char *url, int64_t step, uint32_t owner, const int go[2]) {
    char number[24], name[24];
    pid_t pid = fork();
    if (pid) return pid;
    snprintf(number, sizeof number, "%lld", (long long)step);
    snprintf(name, sizeof name, "%u", owner);
    close(go[1]);
    if (dup2(go[0], 0) == 0) execl("/proc/self/exe", "ckpt_race", "save", url, number, name, (char *)NULL);
    _exit(9);
}

static int saver(char **argv) {
    char byte;
    int64_t step, owner;
    if (!bytes_parse_i64(argv[3], &step) || !bytes_parse_i64(argv[4], &owner)) return 9;
    struct store *s = pair_open_store(argv[2]);
    if (read(0, &byte, 1) != 0) return 9;
    int rc = save_as(s, step, (uint32_t)owner);
    store_close(s);
    return rc;
}

static int round_of(const char *url, int64_t step) {
    int go[2], won = 0, status;
    pid_t pids[RUNS];
    if (pipe(go)) pair_die("pipe", NULL);
    for (int i = 0; i < RUNS; i++) pids[i] = start(url, step, (uint32_t)i + 1, go);
    close(go[0]);
    close(go[1]);
    for (int i = 0; i < RUNS; i++) {
        if (waitpid(pids[i], &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) > 1)
            return pair_fail("a run ended badly", i, status);
        won += WEXITSTATUS(status) == 0;
    }
    return won == 1 ? 0 : pair_fail("not exactly one run committed", won, step);
}

int main(int argc, char **argv) {
    char folder[] = "/tmp/orrery-ckpt-race-XXXXXX";
    struct err e = {ERR_OK};
    int64_t step = 0;
    int rc = 0;
    if (argc == 5) return saver(argv);
    if (argc < 2 && !mkdtemp(folder)) pair_die("mkdtemp", NULL);
    const char *url = argc < 2 ? folder : argv[1];
    struct store *s = pair_open_store(url);
    for (int64_t i = 1; i <= ROUNDS && !rc; i++) {
        rc = round_of(url, i);
        if (!rc) rc = pair_check_newest(s, i, &step);
        if (!rc && argc < 2) rc = pair_check_orphans(s, folder);
    }
    size_t left;
    if (!rc && (ckpt_clean(s, &left, &e) || left))
        rc = pair_fail("files of losers were left", (int64_t)left, step);
    store_close(s);
    printf("%d runs, %lld rounds: one winner each\n", RUNS, (long long)step);
    pid_t pid = rc || argc > 1 ? 0 : fork();
    if (!rc && argc < 2 && !pid) execlp("rm", "rm", "-rf", folder, (char *)NULL);
    if (pid > 0) waitpid(pid, NULL, 0);
    return rc;
}
