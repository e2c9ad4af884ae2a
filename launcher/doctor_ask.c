// SPDX-License-Identifier: Apache-2.0
#include "launcher/doctor_ask.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "launcher/proc.h"
#include "launcher/strv.h"

int doctor_ask_start(struct doctor_ask *p, const char *agent, const char *command, struct err *e) {
    int in[2] = {-1, -1}, out[2] = {-1, -1};
    struct strv argv = {0};
    int rc = 0;
    // Nobody is there to type a password.
    if (!strcmp(agent, "ssh")) agent = "ssh -o BatchMode=yes -o ConnectTimeout=5";
    for (const char *at = agent; *at && !rc;) { // "ssh -p 2222"
        size_t n = strcspn(at, " ");
        if (n) rc = strv_addf(&argv, e, "%.*s", (int)n, at);
        at += n + (at[n] == ' ');
    }
    if (!rc) rc = strv_add(&argv, p->name, e);
    if (!rc) rc = strv_add(&argv, command, e);
    if (!rc && (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)))
        rc = err_errno(e, errno, "cannot make a pipe");
    struct proc_spec spec = {.argv = argv.items,
                             .in = in[0],
                             .out = out[1],
                             .err = out[1],
                             .own_group = true,
                             .death_signal = SIGKILL};
    if (!rc) rc = proc_start(&spec, &p->pid, e);
    if (in[0] >= 0) close(in[0]);
    if (out[1] >= 0) close(out[1]);
    p->in = in[1];
    p->out = out[0];
    strv_fini(&argv);
    return rc;
}

static void hang_up(struct doctor_ask *p) {
    if (p->in >= 0) close(p->in);
    if (p->out >= 0) close(p->out);
    p->in = p->out = -1;
}

void doctor_ask_end(struct doctor_ask *p) {
    hang_up(p);
    for (int ms = 0; p->pid > 0 && ms < 500; ms += 10) {
        if (waitpid(p->pid, NULL, WNOHANG) == p->pid) p->pid = 0;
        if (p->pid > 0) clock_sleep_ms(10);
    }
    if (p->pid > 0) {
        kill(-p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
    }
    json_destroy(p->facts);
    buf_fini(&p->heard);
}

bool doctor_ask(struct doctor_ask *p, const char *text, size_t n) {
    if (p->in < 0) return false;
    if (bytes_write_whole(p->in, text, n) == n) return true;
    close(p->in);
    p->in = -1;
    return false;
}

// Takes the first whole line out of what was heard; an answer begins with '{', all else is kept as its words.
static bool take_answer(struct doctor_ask *p, struct json **doc) {
    for (;;) {
        char *end = p->heard.len ? memchr(p->heard.data, '\n', p->heard.len) : NULL;
        if (!end) return false;
        size_t n = (size_t)(end - p->heard.data);
        bool answer = p->heard.data[0] == '{' && !json_parse(doc, p->heard.data, n, "a probe's answer", NULL);
        if (!answer && n) snprintf(p->said, sizeof p->said, "%.*s", (int)n, p->heard.data);
        memmove(p->heard.data, end + 1, p->heard.len - n - 1);
        p->heard.len -= n + 1;
        p->heard.data[p->heard.len] = 0;
        if (answer) return true;
    }
}

struct json *doctor_ask_answer(struct doctor_ask *p, int64_t until_ns) {
    char piece[4096];
    struct json *doc = NULL;
    struct err full = {0};
    while (!take_answer(p, &doc)) {
        int64_t left_ms = (until_ns - clock_monotonic_ns()) / 1000000;
        struct pollfd fd = {p->out, POLLIN, 0};
        if (p->out < 0 || left_ms <= 0 || (poll(&fd, 1, (int)left_ms) < 0 && errno != EINTR)) return NULL;
        if (!fd.revents) continue;
        ssize_t n = read(p->out, piece, sizeof piece);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0 || buf_append(&p->heard, piece, (size_t)n, &full)) {
            // What it said without a newline counts too.
            if (p->heard.len && p->heard.data[0] != '{')
                snprintf(p->said, sizeof p->said, "%s", p->heard.data);
            return NULL;
        }
    }
    return doc;
}
