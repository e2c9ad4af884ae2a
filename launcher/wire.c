// SPDX-License-Identifier: Apache-2.0
#include "launcher/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define HEAD_BYTES     8
#define NUMBERS_BYTES  (5 * 4 + 8)
#define FIXED_BYTES    (NUMBERS_BYTES + WIRE_TOKEN_BYTES + WIRE_HOST_BYTES + 4)
#define PAYLOAD_BYTES  (FIXED_BYTES + WIRE_TEXT_BYTES)
#define BACKLOG_BYTES  (4 * (HEAD_BYTES + PAYLOAD_BYTES))
#define SEND_WAIT_MS   1000
#define CONNECT_WAIT_S 15

void wire_init(struct wire *w, int fd) {
    int one = 1;
    w->fd = fd;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    buf_init(&w->in, BACKLOG_BYTES);
}

void wire_fini(struct wire *w) {
    if (w->fd >= 0) close(w->fd);
    w->fd = -1;
    buf_fini(&w->in);
}

int wire_encode(const struct wire_message *m, struct buf *out, struct err *e) {
    bool binary = m->type == WIRE_BOX && m->text_bytes >= 0 && m->text_bytes < WIRE_TEXT_BYTES;
    size_t text_bytes = binary ? (size_t)m->text_bytes : strnlen(m->text, WIRE_TEXT_BYTES - 1);
    char fixed[HEAD_BYTES + FIXED_BYTES] = {0};
    char *at = fixed + HEAD_BYTES;
    const int32_t numbers[5] = {m->rank, m->world, m->pid, m->signal, m->code};
    bytes_put_le32(fixed, (uint32_t)(FIXED_BYTES + text_bytes));
    bytes_put_le16(fixed + 4, WIRE_VERSION);
    bytes_put_le16(fixed + 6, (uint16_t)m->type);
    for (int i = 0; i < 5; i++) bytes_put_le32(at + 4 * i, (uint32_t)numbers[i]);
    bytes_put_le64(at + 20, (uint64_t)m->clock_ns);
    at += NUMBERS_BYTES;
    memcpy(at, m->token, strnlen(m->token, WIRE_TOKEN_BYTES));
    memcpy(at + WIRE_TOKEN_BYTES, m->host, strnlen(m->host, WIRE_HOST_BYTES - 1));
    bytes_put_le32(at + WIRE_TOKEN_BYTES + WIRE_HOST_BYTES, (uint32_t)text_bytes);
    int rc = buf_append(out, fixed, sizeof fixed, e);
    return rc ? rc : buf_append(out, m->text, text_bytes, e);
}

static void fill(const char *at, size_t text_bytes, struct wire_message *m) {
    int32_t *const numbers[5] = {&m->rank, &m->world, &m->pid, &m->signal, &m->code};
    for (int i = 0; i < 5; i++) *numbers[i] = (int32_t)bytes_le32(at + 4 * i);
    m->clock_ns = (int64_t)bytes_le64(at + 20);
    memcpy(m->token, at + NUMBERS_BYTES, WIRE_TOKEN_BYTES);
    m->token[WIRE_TOKEN_BYTES] = 0;
    memcpy(m->host, at + NUMBERS_BYTES + WIRE_TOKEN_BYTES, WIRE_HOST_BYTES);
    m->host[WIRE_HOST_BYTES - 1] = 0;
    m->text_bytes = (int32_t)text_bytes;
    memcpy(m->text, at + FIXED_BYTES, text_bytes);
    m->text[text_bytes] = 0;
}

int wire_decode(const char *data, size_t n, struct wire_message *m, size_t *used, struct err *e) {
    *used = 0;
    if (n < HEAD_BYTES) return 0;
    uint32_t payload = bytes_le32(data);
    unsigned version = bytes_le16(data + 4), type = bytes_le16(data + 6);
    if (version != WIRE_VERSION)
        return err_set(e, ERR_DATA,
                       "control connection: version %u, expected %d; the two ends are of different builds",
                       version, WIRE_VERSION);
    if (type == 0 || type >= WIRE_TYPE_END || payload < FIXED_BYTES || payload >= PAYLOAD_BYTES)
        return err_set(e, ERR_DATA, "control connection: type %u with %u bytes is no message", type, payload);
    if (n < HEAD_BYTES + (size_t)payload) return 0;
    const char *at = data + HEAD_BYTES;
    uint32_t text_bytes = bytes_le32(at + FIXED_BYTES - 4);
    if (text_bytes != payload - FIXED_BYTES)
        return err_set(e, ERR_DATA, "control connection: text of %u bytes in a payload of %u", text_bytes,
                       payload);
    m->type = (enum wire_type)type;
    fill(at, text_bytes, m);
    *used = HEAD_BYTES + (size_t)payload;
    return 0;
}

static int send_all(int fd, const char *data, size_t n, struct err *e) {
    while (n) {
        ssize_t sent = send(fd, data, n, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd p = {fd, POLLOUT, 0};
            if (poll(&p, 1, SEND_WAIT_MS) > 0) continue;
            return err_set(e, ERR_TIMEOUT, "control connection: the other end takes nothing");
        }
        if (sent < 0) return err_set(e, ERR_PEER, "control connection: %s", strerror(errno));
        data += sent;
        n -= (size_t)sent;
    }
    return 0;
}

bool wire_is_full(const struct wire *w) {
    struct pollfd p = {w->fd, POLLOUT, 0};
    return poll(&p, 1, 0) == 0;
}

int wire_send(struct wire *w, const struct wire_message *m, struct err *e) {
    struct buf out;
    if (w->fd < 0) return err_set(e, ERR_PEER, "control connection is closed");
    buf_init(&out, HEAD_BYTES + PAYLOAD_BYTES);
    int rc = wire_encode(m, &out, e);
    if (!rc) rc = send_all(w->fd, out.data, out.len, e);
    buf_fini(&out);
    return rc;
}

void wire_peer(const struct wire *w, char *out, size_t out_bytes) {
    struct sockaddr_in from;
    socklen_t n = sizeof from;
    memset(&from, 0, sizeof from);
    if (getpeername(w->fd, (struct sockaddr *)&from, &n) ||
        !inet_ntop(AF_INET, &from.sin_addr, out, (socklen_t)out_bytes))
        snprintf(out, out_bytes, "an unknown address");
}

int wire_receive(struct wire *w, struct err *e) {
    char piece[4096];
    for (;;) {
        if (w->fd < 0) return err_set(e, ERR_PEER, "control connection is closed");
        if (w->in.len + sizeof piece > w->in.max) return 0; // the reader first takes what is here
        ssize_t n = recv(w->fd, piece, sizeof piece, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return 0;
        if (n <= 0) return err_set(e, ERR_PEER, "control connection: the other end is gone");
        int rc = buf_append(&w->in, piece, (size_t)n, e);
        if (rc) return rc;
    }
}

int wire_next(struct wire *w, struct wire_message *m, bool *have, struct err *e) {
    size_t used = 0;
    int rc = wire_decode(w->in.data ? w->in.data : "", w->in.len, m, &used, e);
    *have = !rc && used > 0;
    if (!*have || !w->in.data) return rc;
    memmove(w->in.data, w->in.data + used, w->in.len - used);
    w->in.len -= used;
    return 0;
}

static int parse_address(const char *address, struct sockaddr_in *out, struct err *e) {
    char host[64];
    int64_t port;
    const char *colon = strrchr(address, ':');
    memset(out, 0, sizeof *out);
    out->sin_family = AF_INET;
    snprintf(host, sizeof host, "%.*s", colon ? (int)(colon - address) : 0, address);
    if (!colon || !bytes_parse_i64(colon + 1, &port) || port < 1 || port > 65535 ||
        inet_pton(AF_INET, host, &out->sin_addr) != 1)
        return err_set(e, ERR_USAGE, "'%s' is no address of the form 127.0.0.1:1234", address);
    out->sin_port = htons((uint16_t)port);
    return 0;
}

int wire_connect(const char *address, int *fd, struct err *e) {
    struct sockaddr_in to;
    int rc = parse_address(address, &to, e);
    if (rc) return rc;
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0) return err_errno(e, errno, "cannot make a socket");
    const struct timeval patience = {.tv_sec = CONNECT_WAIT_S};
    setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(s, (const struct sockaddr *)&to, sizeof to)) {
        int saved_errno = errno;
        close(s);
        return err_set(e, ERR_UNAVAILABLE, "no supervisor at %s: %s", address, strerror(saved_errno));
    }
    *fd = s;
    return 0;
}

int wire_listen(int *fd, const char *host, char *address, size_t address_bytes, struct err *e) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof here;
    char name[INET_ADDRSTRLEN];
    if (host && inet_pton(AF_INET, host, &here.sin_addr) != 1)
        return err_set(e, ERR_USAGE, "'%s' is no IPv4 address", host);
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s < 0) return err_errno(e, errno, "cannot make a socket");
    if (bind(s, (const struct sockaddr *)&here, sizeof here) || listen(s, 1024) ||
        getsockname(s, (struct sockaddr *)&here, &n)) {
        int saved_errno = errno;
        close(s);
        return err_errno(e, saved_errno, "cannot listen on %s", host ? host : "the loopback interface");
    }
    inet_ntop(AF_INET, &here.sin_addr, name, sizeof name);
    snprintf(address, address_bytes, "%s:%d", name, ntohs(here.sin_port));
    *fd = s;
    return 0;
}

int wire_new_token(char out[WIRE_TOKEN_BYTES + 1], struct err *e) {
    unsigned char secret[WIRE_TOKEN_BYTES / 2];
    if (getrandom(secret, sizeof secret, 0) != (ssize_t)sizeof secret)
        return err_errno(e, errno, "no random bytes for the job's token");
    bytes_hex(secret, sizeof secret, out);
    return 0;
}
