// SPDX-License-Identifier: Apache-2.0
#include "launcher/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/process.h"
#include "launcher/boxdir.h"
#include "launcher/debug.h"
#include "launcher/farbox.h"
#include "launcher/proc.h"
#include "launcher/ranklog.h"
#include "launcher/strv.h"
#include "launcher/wire.h"

#define LOG_MB_DEFAULT 16
#define KNOCKS         5   // more, when the supervisor does not let us in
#define KNOCK_MS       100 // before the first of them, then twice as long each time
#define FAR_LOOK_MS    200 // between two looks at a black box that is sent
#define NEAR_LOOK_MS   1000
#define LINGER_MS      20000 // longest wait for the supervisor's word after the rank's end

struct guard {
    struct wire wire;
    struct ranklog log;
    int32_t rank, world;
    pid_t parent, child; // child: 0 once reaped
    int pipe_fd;         // the rank's stdout and stderr; -1: closed
    int signal_fd;
    bool over;        // nothing left to do
    int64_t ended_ns; // when the rank was reaped; 0: it runs
    char host[WIRE_HOST_BYTES];
    // On another machine than the supervisor:
    int64_t far_ms;    // longest silence of the supervisor; 0: it is on this machine
    int64_t silent_ms; // ... as we saw it
    int64_t looked_ns;
    struct boxdir boxes;
    struct farbox farbox;
};

static const char *need_env(const char *name, struct err *e) {
    const char *value = getenv(name);
    if (!value || !*value)
        err_set(e, ERR_USAGE, "%s is not set: 'orrery guard' is started by 'orrery run', not by hand", name);
    return value && *value ? value : NULL;
}

// The first of `names` that is set, as a number; -1 when none is.
static int64_t env_number(const char *const *names) {
    int64_t value;
    for (; *names; names++) {
        const char *text = getenv(*names);
        if (text && bytes_parse_i64(text, &value) && value >= 0 && value <= 1 << 20) return value;
    }
    return -1;
}

// A launch that went wrong must not become a silent world of one rank.
static int find_place(struct guard *g, struct err *e) {
    static const char *const rank_names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", NULL};
    static const char *const world_names[] = {"OMPI_COMM_WORLD_SIZE", NULL};
    static const char *const expected_names[] = {GUARD_WORLD, NULL};
    int64_t rank = env_number(rank_names), world = env_number(world_names),
            expected = env_number(expected_names);
    if (expected < 1)
        return need_env(GUARD_WORLD, e) ? err_set(e, ERR_USAGE, "%s is no number", GUARD_WORLD) : -ERR_USAGE;
    if (rank < 0 && expected == 1) rank = 0;
    if (rank < 0) return err_set(e, ERR_USAGE, "no rank in the environment: was this started by mpirun?");
    if (world < 0) world = expected;
    if (world != expected || rank >= world)
        return err_set(e, ERR_CONFIG, "mpirun made rank %lld of %lld, but %lld ranks were asked for",
                       (long long)rank, (long long)world, (long long)expected);
    g->rank = (int32_t)rank;
    g->world = (int32_t)world;
    return 0;
}

static void tell(struct guard *g, const struct wire_message *m) {
    struct err lost = {0};
    if (wire_send(&g->wire, m, &lost)) g->over = true;
}

static struct wire_message *message(struct guard *g, struct wire_message *m, enum wire_type type) {
    memset(m, 0, sizeof *m);
    m->type = type;
    m->rank = g->rank;
    m->world = g->world;
    m->pid = getpid();
    memcpy(m->host, g->host, sizeof m->host);
    return m;
}

static int knock(struct guard *g, const char *address, const char *token, struct err *e) {
    struct wire_message m;
    int fd;
    int rc = wire_connect(address, &fd, e);
    if (rc) return rc;
    wire_init(&g->wire, fd);
    message(g, &m, WIRE_HELLO);
    snprintf(m.token, sizeof m.token, "%s", token);
    rc = wire_send(&g->wire, &m, e);
    if (rc) wire_fini(&g->wire);
    return rc;
}

// Where very many guards come at once, or the supervisor is slow, the kernel may turn one away.
static int say_hello(struct guard *g, struct err *e) {
    const char *address = need_env(GUARD_CONTROL, e), *token = need_env(GUARD_TOKEN, e);
    if (!address || !token) return -(int)e->code;
    int rc = knock(g, address, token, e);
    for (int i = 0; rc && i < KNOCKS && err_class_of(e->code) == ERR_CLASS_RETRY; i++) {
        struct pollfd signals = {g->signal_fd, POLLIN, 0};
        poll(&signals, 1, KNOCK_MS << i);
        if (getppid() != g->parent) return rc;
        err_clear(e);
        rc = knock(g, address, token, e);
    }
    return rc;
}

static int open_log(struct guard *g, struct err *e) {
    static const char *const names[] = {GUARD_LOG_MB, NULL};
    const char *folder = need_env(GUARD_LOGS, e);
    char path[4096];
    int64_t megabytes = env_number(names);
    if (!folder) return -(int)e->code;
    snprintf(path, sizeof path, "%s/rank-%d.log", folder, g->rank);
    return ranklog_open(&g->log, path, (megabytes > 0 ? megabytes : LOG_MB_DEFAULT) << 20, e);
}

static int watch_signals(struct guard *g, struct err *e) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    g->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (g->signal_fd < 0) return err_errno(e, errno, "cannot watch signals");
    // SIGHUP and not SIGKILL: mpirun may have forked us from a thread that ends; handle_signal looks closer.
    prctl(PR_SET_PDEATHSIG, SIGHUP);
    return getppid() == g->parent ? 0 : err_set(e, ERR_PEER, "the launcher is gone");
}

// The private folder of a guard that the supervisor's does not reach.
static int open_far(struct guard *g, struct err *e) {
    static const char *const names[] = {GUARD_FAR_MS, NULL};
    g->far_ms = env_number(names);
    if (g->far_ms <= 0) {
        g->far_ms = 0;
        return 0;
    }
    int rc = boxdir_make(&g->boxes, e);
    snprintf(g->farbox.path, sizeof g->farbox.path, "%s/rank-%d.box", g->boxes.path, g->rank);
    g->looked_ns = clock_monotonic_ns();
    return rc;
}

static int rank_environment(struct guard *g, struct strv *env, struct err *e) {
    const char *boxes = g->far_ms ? g->boxes.path : getenv(GUARD_BOXES);
    extern char **environ;
    int rc = 0;
    for (char **at = environ; *at && !rc; at++)
        if (strncmp(*at, GUARD_TOKEN "=", sizeof GUARD_TOKEN) != 0) rc = strv_add(env, *at, e);
    if (!rc) rc = strv_set(env, e, "ORRERY_RANK", "%d", g->rank);
    if (!rc && boxes && *boxes) rc = strv_set(env, e, "ORRERY_BLACKBOX", "%s/rank-%d.box", boxes, g->rank);
    return rc;
}

static int start_rank(struct guard *g, char *const *argv, struct err *e) {
    struct strv env = {0}, words = {0};
    struct wire_message m;
    int ends[2];
    int rc = rank_environment(g, &env, e);
    if (!rc) rc = debug_wrap(g->rank, argv, &words, e);
    if (!rc && pipe2(ends, O_CLOEXEC)) rc = err_errno(e, errno, "cannot make a pipe");
    if (rc) goto out;
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    struct proc_spec spec = {.argv = words.items,
                             .env = env.items,
                             .out = ends[1],
                             .err = ends[1],
                             .own_group = true,
                             .death_signal = SIGKILL};
    rc = proc_start(&spec, &g->child, e);
    close(ends[1]);
    g->pipe_fd = ends[0];
    if (rc) goto out;
    message(g, &m, WIRE_STARTED);
    m.pid = g->child;
    tell(g, &m);
out:
    strv_fini(&env);
    strv_fini(&words);
    return rc;
}

// Bounded, so that a rank that never stops writing cannot keep the guard from its other duties.
static void read_output(struct guard *g) {
    char piece[65536];
    for (int i = 0; i < 16 && g->pipe_fd >= 0; i++) {
        ssize_t n = read(g->pipe_fd, piece, sizeof piece);
        if (n > 0) ranklog_write(&g->log, piece, (size_t)n);
        if (n > 0 || (n < 0 && errno == EINTR)) continue;
        if (n < 0 && errno == EAGAIN) return;
        close(g->pipe_fd);
        g->pipe_fd = -1;
    }
}

static void kill_rank(struct guard *g) {
    if (g->child > 0) kill(-g->child, SIGKILL);
    if (g->child > 0) kill(g->child, SIGKILL);
}

static void send_box(struct guard *g) {
    struct wire_message m;
    if (!g->far_ms) return;
    farbox_look(&g->farbox);
    message(g, &m, WIRE_BOX);
    while (!g->over && farbox_next(&g->farbox, &m)) {
        m.clock_ns = clock_monotonic_ns();
        tell(g, &m);
    }
}

// Now and then: the box, and whether the supervisor is still heard. Only silence that we saw counts.
static void look_far(struct guard *g) {
    int64_t now = clock_monotonic_ns(), passed_ms = (now - g->looked_ns) / 1000000;
    if (!g->far_ms || passed_ms < FAR_LOOK_MS) return;
    g->looked_ns = now;
    g->silent_ms += passed_ms < NEAR_LOOK_MS ? passed_ms : NEAR_LOOK_MS;
    if (g->silent_ms > g->far_ms) g->over = true;
    if (g->child > 0) send_box(g);
}

static void report_end(struct guard *g, int status) {
    struct wire_message m;
    send_box(g);
    message(g, &m, WIRE_ENDED);
    m.pid = g->child;
    m.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    m.code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    read_output(g);
    ranklog_tail(&g->log, m.text, sizeof m.text);
    tell(g, &m);
    g->child = 0;
    g->ended_ns = clock_monotonic_ns();
}

static void report_halt(struct guard *g, int status) {
    struct wire_message m;
    message(g, &m, WIFSTOPPED(status) ? WIRE_HALTED : WIRE_RESUMED);
    m.pid = g->child;
    m.signal = WIFSTOPPED(status) ? WSTOPSIG(status) : 0;
    tell(g, &m);
}

static void reap(struct guard *g) {
    const int changes = WEXITED | WSTOPPED | WCONTINUED | WNOHANG | WNOWAIT;
    siginfo_t info;
    int status;
    while (g->child > 0) {
        memset(&info, 0, sizeof info);
        if (waitid(P_PID, (id_t)g->child, &info, changes) || !info.si_pid) return;
        bool ended = info.si_code == CLD_EXITED || info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED;
        // What the rank may have started, while its zombie still keeps the group's number from being reused.
        if (ended) kill(-g->child, SIGKILL);
        if (waitpid(g->child, &status, WNOHANG | WUNTRACED | WCONTINUED) <= 0) return;
        if (ended)
            report_end(g, status);
        else
            report_halt(g, status);
    }
}

static void handle_signals(struct guard *g) {
    struct signalfd_siginfo info;
    while (read(g->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            reap(g);
        else if (info.ssi_signo == SIGHUP)
            g->over = g->over || getppid() != g->parent;
        else if (g->child > 0)
            kill(g->child, SIGTERM); // a scheduler's or mpirun's wish to stop: the rank saves
    }
}

static void obey(struct guard *g) {
    struct wire_message m;
    struct err e = {0};
    bool have = true;
    bool gone = wire_receive(&g->wire, &e) != 0;
    err_clear(&e);
    g->silent_ms = 0;
    while (have && !g->over) {
        if (wire_next(&g->wire, &m, &have, &e)) gone = true;
        if (gone && !have) g->over = true;
        if (!have) return;
        if (m.type == WIRE_PING) {
            m.type = WIRE_PONG;
            m.rank = g->rank;
            tell(g, &m);
        }
        if (m.type == WIRE_SAVE && g->child > 0) kill(g->child, SIGTERM);
        if (m.type == WIRE_KILL || (m.type == WIRE_BYE && g->child <= 0)) g->over = true;
    }
}

static void serve(struct guard *g) {
    while (!g->over) {
        struct pollfd fds[3] = {{g->wire.fd, POLLIN, 0}, {g->signal_fd, POLLIN, 0}, {g->pipe_fd, POLLIN, 0}};
        if (poll(fds, 3, g->far_ms ? FAR_LOOK_MS : NEAR_LOOK_MS) < 0 && errno != EINTR) break;
        if (fds[2].revents) read_output(g);
        if (fds[1].revents) handle_signals(g);
        if (fds[0].revents) obey(g);
        look_far(g);
        bool waited = g->ended_ns && clock_monotonic_ns() - g->ended_ns > (int64_t)LINGER_MS * 1000000;
        if (waited || getppid() != g->parent) g->over = true;
    }
}

static void end_rank(struct guard *g) {
    int status;
    kill_rank(g);
    while (g->child > 0 && waitpid(g->child, &status, 0) < 0 && errno == EINTR) {
    }
    if (g->pipe_fd >= 0) read_output(g);
    if (g->pipe_fd >= 0) close(g->pipe_fd);
}

int guard_run(char *const *argv, struct err *e) {
    struct guard g = {.wire = {.fd = -1},
                      .log = {.fd = -1},
                      .pipe_fd = -1,
                      .signal_fd = -1,
                      .parent = getppid(),
                      .boxes = {.alive_fd = -1}};
    int rc = find_place(&g, e);
    const char *node = getenv("SLURMD_NODENAME"); // Slurm's name for this host, which its lists have
    if (node && *node)
        snprintf(g.host, sizeof g.host, "%s", node);
    else
        process_host(g.host, sizeof g.host, "unknown");
    if (!rc) rc = watch_signals(&g, e);
    if (!rc) rc = say_hello(&g, e);
    if (!rc) rc = open_log(&g, e);
    if (!rc) rc = open_far(&g, e);
    if (!rc) rc = start_rank(&g, argv, e);
    if (!rc) {
        serve(&g);
        end_rank(&g);
    } else if (g.wire.fd >= 0) {
        struct wire_message m;
        message(&g, &m, WIRE_ENDED);
        m.code = err_exit_code(e->code);
        snprintf(m.text, sizeof m.text, "guard: %s\n", e->text);
        tell(&g, &m);
    }
    farbox_fini(&g.farbox);
    boxdir_remove(&g.boxes);
    ranklog_close(&g.log);
    wire_fini(&g.wire);
    if (g.signal_fd >= 0) close(g.signal_fd);
    return rc;
}
