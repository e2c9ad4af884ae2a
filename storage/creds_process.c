// SPDX-License-Identifier: Apache-2.0
// credential_process: a program that prints credentials as JSON. Started without a shell, with no credentials
// of ours in its environment; what it says on stderr is thrown away, for it may hold secrets.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "storage/creds_source.h"

#define WORDS_MAX 64
#define LOOK_MS   5 // between two looks whether it has ended

// ---- words.

struct split {
    const char *from;
    char *to;
};

// One word, quotes and backslashes undone. NULL: an open quote.
static char *next_word(struct split *s) {
    char *word = s->to, quote = 0;
    for (; *s->from && (quote || !strchr(" \t", *s->from)); s->from++) {
        char c = *s->from;
        if (quote && c == quote)
            quote = 0;
        else if (!quote && (c == '"' || c == '\''))
            quote = c;
        else if (c == '\\' && quote != '\'' && s->from[1])
            *s->to++ = *++s->from;
        else
            *s->to++ = c;
    }
    *s->to++ = 0;
    return quote ? NULL : word;
}

char **creds_split(const char *command) {
    char **words = calloc(1, (WORDS_MAX + 1) * sizeof *words + 2 * strlen(command) + 2);
    struct split s = {.from = command};
    int n = 0;
    if (!words) return NULL;
    s.to = (char *)(words + WORDS_MAX + 1);
    for (;;) {
        s.from += strspn(s.from, " \t");
        if (!*s.from) break;
        words[n] = n < WORDS_MAX ? next_word(&s) : NULL;
        if (!words[n++]) goto bad;
    }
    if (n) return words;
bad:
    free(words);
    return NULL;
}

// ---- the child.

// This process's environment without our own credentials.
static char **clean_environment(void) {
    static const char *const secrets[] = {"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=",
                                          "AWS_SESSION_TOKEN=", "AWS_CONTAINER_AUTHORIZATION_TOKEN="};
    size_t n = 0, kept = 0;
    while (environ[n]) n++;
    char **out = calloc(n + 1, sizeof *out);
    for (size_t i = 0; i < n && out; i++) {
        bool secret = false;
        for (size_t k = 0; k < sizeof secrets / sizeof *secrets; k++)
            secret |= !strncmp(environ[i], secrets[k], strlen(secrets[k]));
        if (!secret) out[kept++] = environ[i];
    }
    return out;
}

static int spawn(char *const *words, int out, pid_t *pid) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    char **env = clean_environment();
    if (!env) return ENOMEM;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP); // so that its children can be ended with it
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out, 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    int failed = posix_spawnp(pid, words[0], &actions, &attributes, words, env);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    free(env);
    return failed;
}

static int too_slow(struct err *e) {
    return err_set(e, ERR_TIMEOUT, "it does not end in time; run it by hand to see why");
}

// Until its end, the bound or the deadline.
static int read_output(int fd, int64_t end_ns, struct buf *out, struct err *e) {
    int rc = buf_reserve(out, CREDS_TEXT_MAX, e);
    while (!rc) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = (end_ns - clock_monotonic_ns()) / 1000000;
        if (left <= 0) return too_slow(e);
        if (poll(&p, 1, (int)left) <= 0) continue;
        ssize_t n = read(fd, out->data + out->len, CREDS_TEXT_MAX - out->len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_errno(e, errno, "its output");
        if (!n) break;
        out->len += (size_t)n;
        out->data[out->len] = 0;
        if (out->len == CREDS_TEXT_MAX)
            rc = err_set(e, ERR_DATA, "more than %zu bytes of output", CREDS_TEXT_MAX);
    }
    return rc;
}

// A program may close its output, and stay.
static int wait_end(pid_t pid, int64_t end_ns, int *status, struct err *e) {
    pid_t ended;
    while (!(ended = waitpid(pid, status, WNOHANG)) || (ended < 0 && errno == EINTR)) {
        if (clock_monotonic_ns() >= end_ns) return too_slow(e);
        clock_sleep_ms(LOOK_MS);
    }
    return 0;
}

static void end_by_force(pid_t pid) {
    (void)kill(-pid, SIGKILL);
    (void)kill(pid, SIGKILL); // it may have left its group
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
}

static int run(char *const *words, int64_t deadline_ms, struct buf *out, struct err *e) {
    int64_t end_ns = clock_monotonic_ns() + deadline_ms * 1000000;
    int fds[2], status = 0, failed;
    pid_t pid = 0;
    if (pipe2(fds, O_CLOEXEC)) return err_errno(e, errno, "no pipe");
    failed = spawn(words, fds[1], &pid);
    close(fds[1]);
    int rc = failed ? err_errno(e, failed, "it cannot be started") : read_output(fds[0], end_ns, out, e);
    close(fds[0]);
    if (failed) return rc;
    if (!rc) rc = wait_end(pid, end_ns, &status, e);
    if (rc) end_by_force(pid);
    if (!rc && status)
        rc = err_set(e, ERR_DENIED, "it ended with status %d", WIFEXITED(status) ? WEXITSTATUS(status) : 128);
    return rc;
}

int creds_from_process(const char *command, const char *source, int64_t deadline_ms, struct creds_set *out,
                       struct err *e) {
    struct buf text;
    struct err why = {0};
    char **words = creds_split(command);
    if (!words)
        return err_set(e, ERR_CONFIG, "%s: credential_process is no command: an open quote, or empty",
                       source);
    buf_init(&text, CREDS_TEXT_MAX + 1);
    int rc = run(words, deadline_ms, &text, &why);
    if (!rc) rc = creds_from_json(text.data, source, out, &why);
    if (rc) rc = err_set(e, ERR_DENIED, "%s: credential_process: %s", source, why.text);
    creds_wipe(&text);
    free(words);
    return rc;
}
