// SPDX-License-Identifier: Apache-2.0
#include "launcher/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/process.h"

#define CHILDREN_BYTES 65536

extern char **environ;

bool proc_find(const char *name, char *out, size_t out_bytes) {
    const char *path = getenv("PATH");
    if (strchr(name, '/')) {
        snprintf(out, out_bytes, "%s", name);
        return access(out, X_OK) == 0;
    }
    for (const char *at = path ? path : "/usr/bin:/bin"; *at; at += *at == ':') {
        size_t n = strcspn(at, ":");
        struct stat st;
        int len = snprintf(out, out_bytes, "%.*s/%s", (int)n, at, name);
        if (n && len < (int)out_bytes && access(out, X_OK) == 0 && !stat(out, &st) && S_ISREG(st.st_mode))
            return true;
        at += n;
    }
    return false;
}

// Between fork and exec: async-signal-safe calls only. Reports errno through `tell`.
static _Noreturn void become(const struct proc_spec *spec, const char *path, pid_t parent, int tell) {
    sigset_t none;
    int null_fd = open("/dev/null", O_RDWR);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (spec->own_group) setpgid(0, 0);
    if (spec->death_signal) prctl(PR_SET_PDEATHSIG, spec->death_signal);
    if (spec->in > 0)
        dup2(spec->in, 0);
    else if (null_fd >= 0)
        dup2(null_fd, 0);
    if (null_fd >= 0 && spec->silent) dup2(null_fd, 1);
    if (null_fd >= 0 && spec->silent) dup2(null_fd, 2);
    if (spec->out >= 0) dup2(spec->out, 1);
    if (spec->err >= 0) dup2(spec->err, 2);
    if (null_fd > 2) close(null_fd);
    if (!spec->death_signal || getppid() == parent) execve(path, spec->argv, spec->env ? spec->env : environ);
    int code = errno;
    if (write(tell, &code, sizeof code) < 0) _exit(126);
    _exit(127);
}

int proc_start(const struct proc_spec *spec, pid_t *out, struct err *e) {
    char path[4096];
    int tell[2], code = 0;
    pid_t parent = getpid();
    if (!proc_find(spec->argv[0], path, sizeof path))
        return err_set(e, ERR_MISSING, "no program '%s' in PATH", spec->argv[0]);
    if (pipe2(tell, O_CLOEXEC)) return err_errno(e, errno, "cannot make a pipe");
    pid_t pid = fork();
    if (pid == 0) become(spec, path, parent, tell[1]);
    int saved_errno = errno;
    close(tell[1]);
    if (pid < 0) {
        close(tell[0]);
        return err_errno(e, saved_errno, "cannot start '%s'", path);
    }
    ssize_t n;
    do n = read(tell[0], &code, sizeof code);
    while (n < 0 && errno == EINTR);
    close(tell[0]);
    if (n != sizeof code) {
        *out = pid;
        return 0;
    }
    waitpid(pid, NULL, 0);
    return err_errno(e, code, "cannot execute '%s'", path);
}

// Exit code, or 128 + signal.
static int status_of(int wait_status) {
    return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

// Reads what is there; closes and forgets the descriptor at its end.
static void drain(struct pollfd *p, struct buf *into) {
    char piece[4096];
    struct err full = {0};
    ssize_t n = read(p->fd, piece, sizeof piece);
    if (n > 0 && into && buf_append(into, piece, (size_t)n, &full))
        err_clear(&full); // what does not fit is dropped
    if (n > 0 || (n < 0 && errno == EINTR)) return;
    close(p->fd);
    p->fd = -1;
}

static bool read_both(struct pollfd fds[2], struct buf *out, struct buf *err, int64_t until_ns) {
    while (fds[0].fd >= 0 || fds[1].fd >= 0) {
        int64_t left_ms = (until_ns - clock_monotonic_ns()) / 1000000;
        if (left_ms <= 0) return false;
        if (poll(fds, 2, (int)left_ms) < 0 && errno != EINTR) return false;
        if (fds[0].fd >= 0 && fds[0].revents) drain(&fds[0], out);
        if (fds[1].fd >= 0 && fds[1].revents) drain(&fds[1], err);
    }
    return true;
}

static void close_all(const int *fds, int n) {
    for (int i = 0; i < n; i++)
        if (fds[i] >= 0) close(fds[i]);
}

int proc_capture(char *const *argv, int deadline_ms, struct buf *out, struct buf *err, int *status,
                 struct err *e) {
    return proc_capture_env(argv, NULL, deadline_ms, out, err, status, e);
}

int proc_capture_env(char *const *argv, char *const *env, int deadline_ms, struct buf *out, struct buf *err,
                     int *status, struct err *e) {
    int fds[4] = {-1, -1, -1, -1}, wait_status = 0;
    pid_t pid;
    int64_t until_ns = clock_monotonic_ns() + (int64_t)deadline_ms * 1000000;
    if ((out && pipe2(fds, O_CLOEXEC)) || (err && pipe2(fds + 2, O_CLOEXEC))) {
        int saved_errno = errno;
        close_all(fds, 4);
        return err_errno(e, saved_errno, "cannot make a pipe");
    }
    struct proc_spec spec = {.argv = argv, .env = env, .out = fds[1], .err = fds[3], .death_signal = SIGKILL};
    int rc = proc_start(&spec, &pid, e);
    close_all(fds + 1, 1);
    close_all(fds + 3, 1);
    if (rc) {
        close_all(fds, 1);
        close_all(fds + 2, 1);
        return rc;
    }
    struct pollfd both[2] = {{fds[0], POLLIN, 0}, {fds[2], POLLIN, 0}};
    bool in_time = read_both(both, out, err, until_ns);
    if (!in_time) kill(pid, SIGKILL);
    if (both[0].fd >= 0) close(both[0].fd);
    if (both[1].fd >= 0) close(both[1].fd);
    while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR) {
    }
    if (!in_time) return err_set(e, ERR_TIMEOUT, "'%s' did not end within %d ms", argv[0], deadline_ms);
    *status = status_of(wait_status);
    return 0;
}

int proc_sibling(const char *name, const char *env_name, char *out, size_t out_bytes, struct err *e) {
    char self[4096];
    const char *override = env_name ? getenv(env_name) : NULL;
    if (override && *override) {
        if ((size_t)snprintf(out, out_bytes, "%s", override) >= out_bytes || access(out, X_OK) != 0)
            return err_set(e, ERR_MISSING, "%s=%s is no program", env_name, override);
        return 0;
    }
    int rc = process_path(self, sizeof self, e);
    if (rc) return rc;
    char *slash = strrchr(self, '/');
    if (slash) *slash = 0;
    if ((size_t)snprintf(out, out_bytes, "%s/%s", self, name) >= out_bytes)
        return err_set(e, ERR_MISSING, "the path of %s is too long", name);
    if (access(out, X_OK) != 0)
        return err_set(e, ERR_MISSING, "no program %s; build it: ninja -C build orrery-rank", out);
    return 0;
}

bool proc_alive(pid_t pid) {
    char path[64];
    struct buf text;
    struct err ignored = {0};
    bool alive = false;
    if (pid <= 0) return false;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    buf_init(&text, 4096);
    if (!bytes_read_file(path, 4096, &text, &ignored)) {
        const char *rest = strrchr(text.data, ')');
        char state = 'X';
        long threads = 0;
        int known =
            rest ? sscanf(rest + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %ld",
                          &state, &threads)
                 : 0;
        // A main thread that has ended is a zombie while others still go: they hold the process's memory.
        alive = known == 2 && state != 'X' && (state != 'Z' || threads > 1);
    }
    buf_fini(&text);
    return alive;
}

const char *proc_signal_name(int signal_number) {
    static const char *const names[] = {
        [SIGHUP] = "SIGHUP",   [SIGINT] = "SIGINT",   [SIGQUIT] = "SIGQUIT", [SIGILL] = "SIGILL",
        [SIGTRAP] = "SIGTRAP", [SIGABRT] = "SIGABRT", [SIGBUS] = "SIGBUS",   [SIGFPE] = "SIGFPE",
        [SIGKILL] = "SIGKILL", [SIGUSR1] = "SIGUSR1", [SIGSEGV] = "SIGSEGV", [SIGUSR2] = "SIGUSR2",
        [SIGPIPE] = "SIGPIPE", [SIGALRM] = "SIGALRM", [SIGTERM] = "SIGTERM", [SIGXCPU] = "SIGXCPU",
        [SIGXFSZ] = "SIGXFSZ", [SIGSYS] = "SIGSYS",
    };
    if (signal_number <= 0 || (size_t)signal_number >= sizeof names / sizeof *names || !names[signal_number])
        return "a signal";
    return names[signal_number];
}

void proc_kill_children(pid_t but) {
    char path[64];
    struct buf text;
    struct err ignored = {0};
    buf_init(&text, CHILDREN_BYTES);
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    if (!bytes_read_file(path, CHILDREN_BYTES, &text, &ignored)) {
        for (char *at = text.data; at && *at;) {
            char *end;
            long pid = strtol(at, &end, 10);
            if (end == at) break;
            if (pid > 1 && pid != but) kill((pid_t)pid, SIGKILL);
            at = end + strspn(end, " ");
        }
    }
    buf_fini(&text);
}
