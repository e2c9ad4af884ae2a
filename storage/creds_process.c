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

#define DEADLINE_MS 30000
#define WORDS_MAX   64

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

// Until its end, the bound or the deadline.
static int read_output(int fd, struct buf *out, struct err *e) {
    int64_t end = clock_monotonic_ns() + (int64_t)DEADLINE_MS * 1000000;
    int rc = buf_reserve(out, CREDS_TEXT_MAX, e);
    while (!rc) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = (end - clock_monotonic_ns()) / 1000000;
        if (left <= 0) return err_set(e, ERR_TIMEOUT, "it does not end within %d s", DEADLINE_MS / 1000);
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

static int run(char *const *words, struct buf *out, struct err *e) {
    int fds[2], status = 0, failed;
    pid_t pid = 0;
    if (pipe2(fds, O_CLOEXEC)) return err_errno(e, errno, "no pipe");
    failed = spawn(words, fds[1], &pid);
    close(fds[1]);
    int rc = failed ? err_errno(e, failed, "it cannot be started") : read_output(fds[0], out, e);
    close(fds[0]);
    if (failed) return rc;
    if (rc) (void)kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!rc && status)
        rc = err_set(e, ERR_DENIED, "it ended with status %d", WIFEXITED(status) ? WEXITSTATUS(status) : 128);
    return rc;
}

int creds_from_process(const char *command, const char *source, struct creds_set *out, struct err *e) {
    struct buf text;
    struct err why = {0};
    char **words = creds_split(command);
    if (!words)
        return err_set(e, ERR_CONFIG, "%s: credential_process is no command: an open quote, or empty",
                       source);
    buf_init(&text, CREDS_TEXT_MAX + 1);
    int rc = run(words, &text, &why);
    if (!rc) rc = creds_from_json(text.data, source, out, &why);
    if (rc) rc = err_set(e, ERR_DENIED, "%s: credential_process: %s", source, why.text);
    creds_wipe(&text);
    free(words);
    return rc;
}
