// SPDX-License-Identifier: Apache-2.0
#include "launcher/debug.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/process.h"
#include "launcher/proc.h"

#define RANK_MOST 1048575
#define TMUX_MS   5000

static const struct debug_tool tools[] = {
    {"gdb", true, {NULL}, "apt-get install gdb"},
    {"cuda-gdb", true, {NULL}, "it comes with the CUDA toolkit"},
    {"valgrind", false, {"valgrind", NULL}, "apt-get install valgrind"},
    {"compute-sanitizer", false, {"compute-sanitizer", NULL}, "it comes with the CUDA toolkit"},
};
#define N_TOOLS (sizeof tools / sizeof *tools)

static const struct debug_tool *find_tool(const char *name) {
    for (size_t i = 0; i < N_TOOLS; i++)
        if (!strcmp(tools[i].name, name)) return &tools[i];
    return NULL;
}

static int split(struct debug *d, const char *text, struct err *e) {
    char number[16];
    int64_t rank;
    size_t n = strcspn(text, "=");
    snprintf(number, sizeof number, "%.*s", (int)(n < sizeof number ? n : sizeof number - 1), text);
    d->tool = find_tool(text[n] ? text + n + 1 : "gdb");
    bool fine =
        n < sizeof number && bytes_parse_i64(number, &rank) && rank >= 0 && rank <= RANK_MOST && d->tool;
    if (!fine)
        return err_set(e, ERR_USAGE,
                       "--debug %.60s: write a rank, or a rank and a tool: 1, 1=gdb, 1=cuda-gdb, 1=valgrind, "
                       "1=compute-sanitizer",
                       text);
    d->rank = (int)rank;
    return 0;
}

int debug_parse(struct debug *d, const char *text, struct err *e) {
    char path[4096];
    d->begun = 0;
    d->tmux[0] = 0;
    int rc = split(d, text, e);
    if (!rc && !proc_find(d->tool->name, path, sizeof path))
        rc = err_set(e, ERR_MISSING, "--debug: no program '%s' in PATH: %s", d->tool->name, d->tool->package);
    return rc;
}

int debug_wrap(int rank, char *const *argv, struct strv *out, struct err *e) {
    struct debug d;
    const char *text = getenv(DEBUG_ENV);
    int rc = 0;
    if (text && *text) {
        rc = split(&d, text, e);
        for (const char *const *word = d.tool->words; !rc && d.rank == rank && *word; word++)
            rc = strv_add(out, *word, e);
    }
    for (; *argv && !rc; argv++) rc = strv_add(out, *argv, e);
    return rc;
}

// ---- attaching

// A command of tmux's and the first word of its answer; false when it does not come about.
static bool ask_tmux(char *const *argv, char *answer, size_t n) {
    struct buf said;
    struct err ignored = {0};
    int status = 1;
    buf_init(&said, 65536);
    int rc = proc_capture(argv, TMUX_MS, &said, &said, &status, &ignored);
    snprintf(answer, n, "%.*s", said.len ? (int)strcspn(said.data, " \n") : 0, said.len ? said.data : "");
    buf_fini(&said);
    return !rc && !status;
}

static bool in_tmux(struct debug *d, pid_t pid, char *where, size_t n) {
    char path[4096], name[64], number[16], id[sizeof d->tmux];
    bool inside = getenv("TMUX") != NULL;
    if (!proc_find("tmux", path, sizeof path)) return false;
    debug_end(d); // of an attempt before
    snprintf(number, sizeof number, "%d", (int)pid);
    snprintf(name, sizeof name, inside ? "rank-%d" : "orrery-%d-rank-%d", inside ? d->rank : (int)pid,
             d->rank);
    char *argv[] = {"tmux",
                    inside ? "new-window" : "new-session",
                    "-d",
                    "-P",
                    "-F",
                    inside ? "#{window_id}" : "#{session_id}",
                    inside ? "-n" : "-s",
                    name,
                    (char *)(uintptr_t)d->tool->name,
                    "-q",
                    "-p",
                    number,
                    NULL};
    if (!ask_tmux(argv, id, sizeof id)) return false;
    memcpy(d->tmux, id, sizeof id);
    snprintf(where, n, inside ? "in this tmux, window %s" : "in tmux: tmux attach -t %s", name);
    return true;
}

void debug_end(struct debug *d) {
    char answer[16];
    bool window = d->tmux[0] == '@';
    if (!d->tmux[0]) return;
    char *argv[] = {"tmux", window ? "kill-window" : "kill-session", "-t", d->tmux, NULL};
    // It may be gone: whoever quits the debugger closes it.
    (void)ask_tmux(argv, answer, sizeof answer);
    d->tmux[0] = 0;
}

bool debug_holds(const struct debug *d, bool far) {
    if (!d->tool->attaches || d->begun <= 0) return false;
    return far || process_is_traced(d->begun, false);
}

static int free_port(void) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && !bind(fd, (struct sockaddr *)&in, sizeof in) &&
              !getsockname(fd, (struct sockaddr *)&in, &n);
    if (fd >= 0) close(fd);
    return ok ? ntohs(in.sin_port) : 0;
}

static bool on_port(const struct debug *d, pid_t pid, char *where, size_t n) {
    const char *server = !strcmp(d->tool->name, "gdb") ? "gdbserver" : "cuda-gdbserver";
    char path[4096], address[32], number[16];
    struct err ignored = {0};
    pid_t child;
    int port = free_port();
    if (!port || !proc_find(server, path, sizeof path)) return false;
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    snprintf(number, sizeof number, "%d", (int)pid);
    char *argv[] = {(char *)(uintptr_t)server, "--once", "--attach", address, number, NULL};
    struct proc_spec spec = {
        .argv = argv, .out = -1, .err = -1, .silent = true, .own_group = true, .death_signal = SIGKILL};
    if (proc_start(&spec, &child, &ignored)) return false;
    snprintf(where, n, "on a port: %s -ex 'target remote %s'", d->tool->name, address);
    return true;
}

void debug_attach(struct debug *d, pid_t pid, const char *host, bool far, const struct log *log) {
    char where[256];
    if (pid <= 0 || d->begun == pid) return;
    d->begun = pid;
    if (!d->tool->attaches) {
        log_info(log, "rank %d (host %s, pid %d) runs under %s; what it says is in the rank's log", d->rank,
                 host, (int)pid, d->tool->name);
        return;
    }
    if (far || (!in_tmux(d, pid, where, sizeof where) && !on_port(d, pid, where, sizeof where)))
        snprintf(where, sizeof where, "on host %.100s: %s -p %d", host, d->tool->name, (int)pid);
    log_info(log, "rank %d (host %s, pid %d) waits for %s; nothing is timed meanwhile. It is %s", d->rank,
             host, (int)pid, d->tool->name, where);
}
