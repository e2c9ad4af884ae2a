// SPDX-License-Identifier: Apache-2.0
// One host's end of `orrery doctor --hosts`. It is told, line by line on stdin: "config BYTES" and the
// config, "time", "peer NAME PORT TOKEN" for each other host, "go"; it answers each but "peer" with one line
// of JSON on stdout. A child answers connections with a token of its own, so that a peer knows whom it has
// reached.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/process.h"
#include "launcher/doctor_impl.h"
#include "launcher/netif.h"
#include "launcher/proc.h"
#include "launcher/wire.h"
#include "storage/hash.h"

#define LIFE_S       60
#define CONNECT_MS   3000
#define CONFIG_MAX   (1 << 20)
#define PROGRAM_MAX  ((size_t)256 << 20)
#define ANSWER_BYTES ((size_t)DOCTOR_LINE_BYTES)

struct peer {
    char name[HOSTS_NAME_BYTES], token[DOCTOR_TOKEN_BYTES + 1], got[DOCTOR_TOKEN_BYTES + 1];
    char address[INET_ADDRSTRLEN], interface[32];
    char why[160];    // empty: reached
    const char *kind; // of the failure, for the cure: "name", "loopback", "timeout", "refused", "other"
    int port, fd;
    size_t have;
    bool connected, done;
};

struct probe {
    struct config_file *file; // NULL: none was sent
    char token[WIRE_TOKEN_BYTES + 1];
    int port;
    pid_t listener;
    struct peer *peers;
    size_t n;
};

// ---- being reached

static _Noreturn void answer_for_ever(int listener, const char *token) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) continue;
        if (send(fd, token, DOCTOR_TOKEN_BYTES, MSG_NOSIGNAL) < 0 && errno == ENOMEM) _exit(0);
        close(fd);
    }
}

static int start_listener(struct probe *p, struct err *e) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_ANY)}};
    socklen_t n = sizeof in;
    int rc = wire_new_token(p->token, e);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (rc) return rc;
    bool ok = fd >= 0 && !bind(fd, (struct sockaddr *)&in, sizeof in) && !listen(fd, 64) &&
              !getsockname(fd, (struct sockaddr *)&in, &n);
    if (ok) p->port = ntohs(in.sin_port);
    if (ok) p->listener = fork();
    if (ok && p->listener == 0) answer_for_ever(fd, p->token);
    if (!ok || p->listener < 0) rc = err_errno(e, errno, "cannot listen on a port");
    if (fd >= 0) close(fd);
    return rc;
}

// ---- what this host is

static void put_finding(void *arg, const struct doctor_finding *f) {
    struct json_writer *w = arg;
    json_put_object(w, NULL);
    json_put_string(w, "check", f->name);
    json_put_int(w, "grade", f->grade);
    json_put_int(w, "code", f->code);
    json_put_string(w, "finding", f->text);
    json_put_string(w, "cure", f->cure);
    json_close(w, '}');
}

// Two builds of one version differ in their bytes.
static void put_program(struct json_writer *w) {
    char path[4096], text[16] = "";
    struct buf bytes;
    struct err none = {0};
    buf_init(&bytes, PROGRAM_MAX);
    if (!proc_sibling("orrery-rank", "ORRERY_RANK_PROGRAM", path, sizeof path, &none) &&
        !bytes_read_file(path, PROGRAM_MAX, &bytes, &none))
        snprintf(text, sizeof text, "%08x", hash_crc32c(0, bytes.data, bytes.len));
    json_put_string(w, "rank_crc32c", text);
    buf_fini(&bytes);
}

static int say(struct buf *text, struct json_writer *w, struct err *e) {
    int rc = json_end(w, e);
    if (rc) return rc;
    puts(text->data);
    return fflush(stdout) ? err_errno(e, errno, "cannot answer") : 0;
}

static int tell_facts(const struct probe *p, struct err *e) {
    char host[256];
    struct buf text;
    struct json_writer w;
    buf_init(&text, ANSWER_BYTES);
    json_begin(&w, &text);
    json_put_object(&w, NULL);
    json_put_string(&w, "orrery", ORRERY_VERSION);
    json_put_string(&w, "host", process_host(host, sizeof host, "?"));
    json_put_int(&w, "port", p->port);
    json_put_string(&w, "token", p->token);
    put_program(&w);
    json_put_array(&w, "findings");
    doctor_run(p->file ? config_values(p->file) : NULL, true, put_finding, &w);
    json_close(&w, ']');
    json_close(&w, '}');
    int rc = say(&text, &w, e);
    buf_fini(&text);
    return rc;
}

static int tell_time(struct err *e) {
    printf("{\"time_ns\": %" PRId64 "}\n", clock_utc_ns());
    return fflush(stdout) ? err_errno(e, errno, "cannot answer") : 0;
}

// ---- reaching others

static void fail(struct peer *p, const char *kind, const char *why) {
    p->kind = kind;
    snprintf(p->why, sizeof p->why, "%s", why);
    p->done = true;
}

static void begin(struct peer *p) {
    struct netif way;
    struct err e = {0};
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    char port[16];
    p->fd = -1;
    snprintf(port, sizeof port, "%d", p->port);
    int code = getaddrinfo(p->name, port, &hints, &found);
    if (code || !found) {
        fail(p, "name", code ? gai_strerror(code) : "no address");
        return;
    }
    struct sockaddr_in in;
    memcpy(&in, found->ai_addr, sizeof in);
    freeaddrinfo(found);
    inet_ntop(AF_INET, &in.sin_addr, p->address, sizeof p->address);
    if (!netif_choose(&way, NULL, p->name, &e)) snprintf(p->interface, sizeof p->interface, "%s", way.name);
    if (ntohl(in.sin_addr.s_addr) >> 24 == 127) {
        fail(p, "loopback", "its name means this host itself");
        return;
    }
    p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (p->fd < 0 || (connect(p->fd, (struct sockaddr *)&in, sizeof in) && errno != EINPROGRESS))
        fail(p, errno == ECONNREFUSED ? "refused" : "other", strerror(errno));
}

static void advance(struct peer *p) {
    int code = 0;
    socklen_t n = sizeof code;
    if (!p->connected && (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &code, &n) || code)) {
        fail(p, code == ECONNREFUSED ? "refused" : code == ETIMEDOUT ? "timeout" : "other", strerror(code));
        return;
    }
    p->connected = true;
    ssize_t got = read(p->fd, p->got + p->have, DOCTOR_TOKEN_BYTES - p->have);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got > 0) p->have += (size_t)got;
    if (got > 0 && p->have < DOCTOR_TOKEN_BYTES) return;
    p->done = true;
    if (strcmp(p->got, p->token) != 0) fail(p, "stranger", "something else answers there");
}

static void connect_all(struct probe *p) {
    int64_t until_ns = clock_monotonic_ns() + (int64_t)CONNECT_MS * 1000000;
    struct pollfd *fds = calloc(p->n + 1, sizeof *fds);
    for (size_t i = 0; i < p->n; i++) begin(&p->peers[i]);
    for (size_t open = 1; fds && open && clock_monotonic_ns() < until_ns;) {
        open = 0;
        for (size_t i = 0; i < p->n; i++) {
            const struct peer *q = &p->peers[i];
            fds[i] = (struct pollfd){q->done ? -1 : q->fd, q->connected ? POLLIN : POLLOUT, 0};
            open += !q->done;
        }
        if (open && poll(fds, p->n, 100) < 0 && errno != EINTR) break;
        for (size_t i = 0; open && i < p->n; i++)
            if (!p->peers[i].done && fds[i].revents) advance(&p->peers[i]);
    }
    for (size_t i = 0; i < p->n; i++) {
        if (!p->peers[i].done) fail(&p->peers[i], "timeout", "no answer");
        if (p->peers[i].fd >= 0) close(p->peers[i].fd);
    }
    free(fds);
}

static int tell_peers(struct probe *p, struct err *e) {
    struct buf text;
    struct json_writer w;
    connect_all(p);
    buf_init(&text, ANSWER_BYTES);
    json_begin(&w, &text);
    json_put_object(&w, NULL);
    json_put_array(&w, "peers");
    for (size_t i = 0; i < p->n; i++) {
        const struct peer *q = &p->peers[i];
        json_put_object(&w, NULL);
        json_put_string(&w, "name", q->name);
        json_put_string(&w, "address", q->address);
        json_put_string(&w, "interface", q->interface);
        json_put_string(&w, "why", q->why);
        json_put_string(&w, "kind", q->kind ? q->kind : "");
        json_close(&w, '}');
    }
    json_close(&w, ']');
    json_close(&w, '}');
    int rc = say(&text, &w, e);
    buf_fini(&text);
    return rc;
}

// ---- what it is told

static int take_config(struct probe *p, const char *words, struct err *e) {
    int64_t bytes;
    if (!bytes_parse_i64(words, &bytes) || bytes < 0 || bytes > CONFIG_MAX)
        return err_set(e, ERR_USAGE, "doctor --probe: 'config' needs a size");
    if (!bytes) return 0;
    char *text = malloc((size_t)bytes);
    if (!text) return err_set(e, ERR_MEMORY, "no memory for a config");
    int rc = fread(text, 1, (size_t)bytes, stdin) == (size_t)bytes
                 ? config_parse(&p->file, "the config that was sent", text, (size_t)bytes, e)
                 : err_set(e, ERR_DATA, "doctor --probe: the config is cut short");
    free(text);
    return rc;
}

static int take_peer(struct probe *p, const char *words, struct err *e) {
    struct peer q = {.fd = -1};
    if (p->n == HOSTS_MAX || sscanf(words, "%253s %d %32s", q.name, &q.port, q.token) != 3 ||
        !hosts_name_is_fine(q.name) || q.port < 1 || q.port > 65535)
        return err_set(e, ERR_USAGE, "doctor --probe: 'peer' needs a name, a port and a token");
    struct peer *more = realloc(p->peers, (p->n + 1) * sizeof *more);
    if (!more) return err_set(e, ERR_MEMORY, "no memory for %zu peers", p->n + 1);
    p->peers = more;
    p->peers[p->n++] = q;
    return 0;
}

static int obey(struct probe *p, const char *line, struct err *e) {
    if (!strncmp(line, "config ", 7)) {
        int rc = take_config(p, line + 7, e);
        return rc ? rc : tell_facts(p, e);
    }
    if (!strcmp(line, "time")) return tell_time(e);
    if (!strncmp(line, "peer ", 5)) return take_peer(p, line + 5, e);
    if (!strcmp(line, "go")) return tell_peers(p, e);
    return err_set(e, ERR_USAGE, "doctor --probe: '%.40s' is no word of it; it is for orrery doctor --hosts",
                   line);
}

int doctor_probe(struct err *e) {
    struct probe p = {0};
    char line[512];
    alarm(LIFE_S);
    int rc = start_listener(&p, e);
    while (!rc && fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        rc = obey(&p, line, e);
    }
    if (p.listener > 0) kill(p.listener, SIGKILL);
    config_close(p.file);
    free(p.peers);
    return rc;
}
