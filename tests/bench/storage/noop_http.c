// SPDX-License-Identifier: Apache-2.0
// An S3 server that does nothing: what a client reaches when the server costs as little as it can. GET of any
// key answers with the block of bench_block.h again and again, an object of 1 TiB; PUT and POST are taken and
// forgotten. Signatures are not looked at. One thread per connection. Prints its port and serves until stdin
// ends.
#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench_block.h"

#define OBJECT_BYTES ((int64_t)1 << 40)
#define HEAD_MAX     ((size_t)16 << 10)

struct connection {
    int fd, block;
    char head[HEAD_MAX + 1];
    size_t got; // bytes in head, perhaps of the body too
};

static bool send_all(int fd, const char *data, size_t n) {
    while (n) {
        ssize_t sent = send(fd, data, n, MSG_NOSIGNAL);
        if (sent <= 0) return false;
        data += sent;
        n -= (size_t)sent;
    }
    return true;
}

// Straight from the page cache: no copy on this side.
static bool send_content(const struct connection *c, int64_t at, int64_t n) {
    while (n > 0) {
        off_t from = (off_t)(at % (int64_t)BLOCK_BYTES);
        size_t most = n < (int64_t)BLOCK_BYTES ? (size_t)n : BLOCK_BYTES;
        ssize_t sent = sendfile(c->fd, c->block, &from, most);
        if (sent <= 0) return false;
        at += sent;
        n -= sent;
    }
    return true;
}

// Reads up to the blank line; returns the length of the head, 0 at the end.
static size_t read_head(struct connection *c) {
    for (;;) {
        c->head[c->got] = 0;
        char *end = strstr(c->head, "\r\n\r\n");
        if (end) return (size_t)(end - c->head) + 4;
        if (c->got == HEAD_MAX) return 0;
        ssize_t n = recv(c->fd, c->head + c->got, HEAD_MAX - c->got, 0);
        if (n <= 0) return 0;
        c->got += (size_t)n;
    }
}

static const char *find(const char *head, const char *name) {
    const char *at = strcasestr(head, name);
    return at ? at + strlen(name) : NULL;
}

// TCP throws away what is received with MSG_TRUNC, without copying it.
static bool skip_body(struct connection *c, size_t head, int64_t bytes) {
    size_t here = c->got - head < (size_t)bytes ? c->got - head : (size_t)bytes;
    memmove(c->head, c->head + head + here, c->got - head - here);
    c->got -= head + here;
    for (int64_t left = bytes - (int64_t)here; left > 0;) {
        ssize_t n = recv(c->fd, NULL, left < (1 << 20) ? (size_t)left : 1 << 20, MSG_TRUNC);
        if (n <= 0) return false;
        left -= n;
    }
    return true;
}

static bool answer_get(const struct connection *c, bool body, const char *range) {
    char head[256];
    int64_t first = 0, last = OBJECT_BYTES - 1;
    bool part = range && sscanf(range, "%18" SCNd64 "-%18" SCNd64, &first, &last) >= 1;
    int n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nETag: \"1\"\r\nContent-Length: %" PRId64 "\r\n",
                     part ? "206 Partial Content" : "200 OK", last - first + 1);
    if (part)
        n += snprintf(head + n, sizeof head - (size_t)n,
                      "Content-Range: bytes %" PRId64 "-%" PRId64 "/%" PRId64 "\r\n", first, last,
                      OBJECT_BYTES);
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    return send_all(c->fd, head, (size_t)n) && (!body || send_content(c, first, last - first + 1));
}

static bool answer_text(const struct connection *c, const char *text) {
    char all[512];
    int n = snprintf(all, sizeof all, "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: %zu\r\n\r\n%s",
                     strlen(text), text);
    return send_all(c->fd, all, (size_t)n);
}

static bool exchange(struct connection *c) {
    size_t head = read_head(c);
    if (!head) return false;
    char line[64];
    snprintf(line, sizeof line, "%.8s", c->head);
    bool create = strstr(c->head, "?uploads") != NULL;
    char range_text[64] = "";
    const char *range = find(c->head, "\r\nrange: bytes="), *length = find(c->head, "\r\ncontent-length: ");
    if (range) snprintf(range_text, sizeof range_text, "%.60s", range);
    if (!skip_body(c, head, length ? strtol(length, NULL, 10) : 0)) return false;
    if (!strncmp(line, "GET ", 4)) return answer_get(c, true, range ? range_text : NULL);
    if (!strncmp(line, "HEAD", 4)) return answer_get(c, false, NULL);
    if (strncmp(line, "POST", 4)) return answer_text(c, "");
    return answer_text(c, create ? "<InitiateMultipartUploadResult><UploadId>u</UploadId>"
                                   "</InitiateMultipartUploadResult>"
                                 : "<CompleteMultipartUploadResult/>");
}

static void *serve(void *arg) {
    struct connection *c = arg;
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while (exchange(c)) {
    }
    close(c->fd);
    free(c);
    return NULL;
}

static int make_block(void) {
    int fd = memfd_create("block", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 2 * (off_t)BLOCK_BYTES)) return -1;
    char *at = mmap(NULL, 2 * BLOCK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) return -1;
    bench_block_fill(at);
    munmap(at, 2 * BLOCK_BYTES);
    return fd;
}

static void *accept_all(void *arg) {
    int listener = ((int *)arg)[0], block = ((int *)arg)[1];
    for (;;) {
        pthread_t thread;
        struct connection *c = calloc(1, sizeof *c);
        if (!c) return NULL;
        c->fd = accept(listener, NULL, NULL);
        c->block = block;
        if (c->fd < 0 || pthread_create(&thread, NULL, serve, c)) {
            free(c);
            return NULL;
        }
        pthread_detach(thread);
    }
}

int main(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    pthread_t thread;
    int fds[2] = {socket(AF_INET, SOCK_STREAM, 0), make_block()};
    if (fds[0] < 0 || fds[1] < 0 || bind(fds[0], (struct sockaddr *)&at, sizeof at) || listen(fds[0], 256) ||
        getsockname(fds[0], (struct sockaddr *)&at, &n) || pthread_create(&thread, NULL, accept_all, fds)) {
        perror("noop_http");
        return 1;
    }
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    while (getchar() != EOF) {
    }
    return 0;
}
