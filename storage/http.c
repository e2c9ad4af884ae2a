// SPDX-License-Identifier: Apache-2.0
#include "storage/http.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

#define CONNECTIONS_DEFAULT 16
#define STALL_MS_DEFAULT    15000
#define STALL_BYTES_PER_S   1024L
#define CONNECT_MS_MAX      10000
#define SOCKET_BUFFER       ((long)256 << 10) // one to receive and one to send per exchange: 64 of them are 32 MiB
#define POLL_MS_MAX         1000
#define POLL_MS_BUSY        100 // while exchanges are under way: some may stand still
// A reply that began and stands still is asked for again: after so long at most, and at least (beyond what a
// lost packet costs), by what pauses are usual here.
#define STALL_MOST_NS  3000000000
#define STALL_LEAST_NS 400000000
#define STALL_PAUSES   20
#define STALL_KNOWN    16

// One connection's worth of work: an exchange while it is under way.
struct transfer {
    struct http *http;
    CURL *easy;
    struct http_exchange *x; // NULL: free
    struct curl_slist *headers;
    size_t sent, header_bytes;
    int fd; // of its connection; -1: not known
    bool headers_too_large, body_too_large, not_kept, not_given, cut;
    char error[CURL_ERROR_SIZE];
    bool replying;    // a reply has begun, and is not between its headers and its body
    int64_t moved_ns; // when it last grew
};

// A kept connection: libcurl tells the local port of the one that it takes for a transfer.
struct line {
    int fd, port; // fd -1: free; port 0: not yet known
};

struct queue {
    struct http_exchange *first, **last;
};

struct http {
    CURLM *multi;
    pthread_t thread;
    char *ca_bundle;
    long stall_s;

    pthread_mutex_t lock; // guards the next two
    struct queue arrived;
    bool ending;

    // The thread's own.
    struct queue ready, delayed, hedges;
    int64_t due_ns;                    // of the earliest delayed exchange
    int active, limit, n, n_transfers; // n_transfers: some more than n, for hedges
    struct line *lines;
    int n_lines;
    double pause_ns, pause_deviation_ns; // between two pieces of a body
    int64_t pauses;
    struct transfer transfers[];
};

// ---- queues.

static void queue_init(struct queue *q) {
    q->first = NULL;
    q->last = &q->first;
}

static void queue_push(struct queue *q, struct http_exchange *x) {
    x->next = NULL;
    *q->last = x;
    q->last = &x->next;
}

static struct http_exchange *queue_pop(struct queue *q) {
    struct http_exchange *x = q->first;
    if (x && !(q->first = x->next)) q->last = &q->first;
    return x;
}

static void queue_remove(struct queue *q, struct http_exchange *x) {
    struct queue kept;
    queue_init(&kept);
    for (struct http_exchange *each; (each = queue_pop(q));)
        if (each != x) queue_push(&kept, each);
    queue_init(q);
    if (kept.first) *q = kept;
}

// ---- what libcurl calls.

static curl_socket_t on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *to) {
    struct http *h = arg;
    curl_socket_t fd = socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
    for (int i = 0; i < h->n_lines && fd >= 0; i++) {
        if (h->lines[i].fd >= 0) continue;
        h->lines[i] = (struct line){.fd = fd};
        break;
    }
    return fd;
}

static int on_close(void *arg, curl_socket_t fd) {
    struct http *h = arg;
    for (int i = 0; i < h->n_lines; i++)
        if (h->lines[i].fd == fd) h->lines[i].fd = -1;
    return close(fd);
}

// The port lies at the same place for IPv4.
static int port_of(int fd) {
    struct sockaddr_in6 at;
    socklen_t n = sizeof at;
    memset(&at, 0, sizeof at);
    return getsockname(fd, (struct sockaddr *)&at, &n) ? 0 : ntohs(at.sin6_port);
}

static int on_connected(void *arg, char *remote, char *local, int remote_port, int local_port) {
    struct transfer *t = arg;
    struct http *h = t->http;
    for (int i = 0; i < h->n_lines; i++) {
        struct line *l = &h->lines[i];
        if (l->fd >= 0 && !l->port) l->port = port_of(l->fd);
        if (l->fd >= 0 && l->port == local_port) t->fd = l->fd;
    }
    return CURL_PREREQFUNC_OK;
}

static size_t on_read(char *into, size_t size, size_t n, void *arg) {
    struct transfer *t = arg;
    size_t room = size * n, left = t->x->body_bytes - t->sent;
    if (left < room) room = left;
    if (room && t->x->give) {
        t->not_given = !t->x->give(t->x, t->sent, into, room);
        if (t->not_given) return CURL_READFUNC_ABORT;
    } else if (room) {
        memcpy(into, (const char *)t->x->body + t->sent, room);
    }
    t->sent += room;
    return room;
}

// A kept connection may turn out dead; libcurl then sends again on a fresh one.
static int on_seek(void *arg, curl_off_t offset, int origin) {
    struct transfer *t = arg;
    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > t->x->body_bytes) return CURL_SEEKFUNC_FAIL;
    t->sent = (size_t)offset;
    return CURL_SEEKFUNC_OK;
}

// The first with a byte wins: the other may no longer touch the memory that both were given.
static void win(struct http_exchange *x) {
    struct http_exchange *rival = x->rival;
    if (!x->first_ns) x->first_ns = clock_monotonic_ns();
    if (!rival || !rival->transfer) return;
    rival->transfer->cut = true;
    x->rival = rival->rival = NULL;
}

// Mean and mean deviation, as TCP keeps them for its round trip (RFC 6298).
static void learn_pause(struct http *h, double ns) {
    double off = ns > h->pause_ns ? ns - h->pause_ns : h->pause_ns - ns;
    h->pause_deviation_ns += (off - h->pause_deviation_ns) / 4;
    h->pause_ns += (ns - h->pause_ns) / 8;
    h->pauses++;
}

static int64_t reply_stall_ns(const struct http *h) {
    double ns = STALL_PAUSES * (h->pause_ns + 4 * h->pause_deviation_ns);
    if (h->pauses < STALL_KNOWN || ns > STALL_MOST_NS) return STALL_MOST_NS;
    return ns < STALL_LEAST_NS ? STALL_LEAST_NS : (int64_t)ns;
}

static void grew(struct transfer *t) {
    t->replying = true;
    t->moved_ns = clock_monotonic_ns();
}

static size_t keep_body(struct transfer *t, const char *data, size_t n) {
    struct http_exchange *x = t->x;
    win(x);
    if (n > x->capacity - x->got) {
        t->body_too_large = true;
        return 0;
    }
    t->not_kept = x->take && !x->take(x, data, n);
    if (t->not_kept) return 0;
    if (!x->take) memcpy((char *)x->into + x->got, data, n);
    if (x->got) learn_pause(t->http, (double)(clock_monotonic_ns() - t->moved_ns));
    x->got += n;
    grew(t);
    return n;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg) {
    struct transfer *t = arg;
    size_t bytes = size * n;
    if (t->cut) return 0;
    if ((t->x->into || t->x->take) && t->x->status >= 200 && t->x->status < 300)
        return keep_body(t, data, bytes);
    grew(t);
    if (!buf_append(t->x->text, data, bytes, NULL)) return bytes;
    t->body_too_large = true;
    return 0;
}

// A new status line: what came before was an interim reply.
static void begin_reply(struct http_exchange *x, const char *line, size_t n) {
    const char *blank = memchr(line, ' ', n);
    int status = 0;
    for (int i = 1; blank && i <= 3 && blank + i < line + n && blank[i] >= '0' && blank[i] <= '9'; i++)
        status = 10 * status + blank[i] - '0';
    x->status = status;
    x->content_length = -1;
    x->retry_after_s = 0;
    x->etag[0] = x->content_range[0] = x->date[0] = x->region[0] = x->encryption[0] = x->sum[0] = 0;
}

static bool header_value(const char *line, size_t n, const char *name, char *out, size_t room) {
    size_t skip = strlen(name);
    if (n <= skip || strncasecmp(line, name, skip) || line[skip] != ':') return false;
    for (skip++; skip < n && (line[skip] == ' ' || line[skip] == '\t'); skip++) {
    }
    while (n > skip && strchr(" \t\r\n", line[n - 1])) n--;
    size_t length = n - skip < room - 1 ? n - skip : room - 1;
    memcpy(out, line + skip, length);
    out[length] = 0;
    return true;
}

static void keep_header(struct http_exchange *x, const char *line, size_t n) {
    char number[24];
    int64_t value;
    (void)(header_value(line, n, "etag", x->etag, sizeof x->etag) ||
           header_value(line, n, "content-range", x->content_range, sizeof x->content_range) ||
           header_value(line, n, "date", x->date, sizeof x->date) ||
           header_value(line, n, "x-amz-bucket-region", x->region, sizeof x->region) ||
           header_value(line, n, "x-amz-server-side-encryption", x->encryption, sizeof x->encryption) ||
           header_value(line, n, "x-amz-meta-orrery-crc32c", x->sum, sizeof x->sum) ||
           header_value(line, n, "x-goog-meta-orrery-crc32c", x->sum, sizeof x->sum));
    if (header_value(line, n, "content-length", number, sizeof number) && bytes_parse_i64(number, &value) &&
        value >= 0)
        x->content_length = value;
    if (header_value(line, n, "retry-after", number, sizeof number) && bytes_parse_i64(number, &value) &&
        value > 0)
        x->retry_after_s = value;
}

// A server that sends headers and body in two writes, without TCP_NODELAY, keeps the body back until the
// headers are acknowledged; a kernel that waits to do so (40 ms) would rule the time of every small GET.
static void acknowledge(const struct transfer *t) {
    int on = 1;
    if (t->fd >= 0) (void)!setsockopt(t->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
}

static size_t on_header(char *line, size_t size, size_t n, void *arg) {
    struct transfer *t = arg;
    size_t bytes = size * n;
    t->header_bytes += bytes;
    if (t->cut) return 0;
    if (t->header_bytes > HTTP_HEADER_BYTES_MAX) {
        t->headers_too_large = true;
        return 0;
    }
    grew(t);
    if (bytes == 2) {
        t->replying = false;
        acknowledge(t);
    }
    if (bytes > 5 && !strncmp(line, "HTTP/", 5))
        begin_reply(t->x, line, bytes);
    else
        keep_header(t->x, line, bytes);
    return bytes;
}

// ---- one exchange.

static bool add_header(struct transfer *t, const char *line) {
    struct curl_slist *longer = curl_slist_append(t->headers, line);
    if (longer) t->headers = longer;
    return longer != NULL;
}

static bool set_headers(struct transfer *t) {
    bool ok = add_header(t, "Expect:") && add_header(t, "Accept:"); // neither is sent
    for (size_t i = 0; i < t->x->n_headers && ok; i++) ok = add_header(t, t->x->headers[i]);
    return ok && !curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
}

static CURLcode set_method(struct transfer *t) {
    const struct http_exchange *x = t->x;
    bool sends = !strcmp(x->method, "PUT") || !strcmp(x->method, "POST");
    if (!strcmp(x->method, "HEAD")) return curl_easy_setopt(t->easy, CURLOPT_NOBODY, 1L);
    if (!sends) return curl_easy_setopt(t->easy, CURLOPT_CUSTOMREQUEST, x->method);
    CURLcode rc = curl_easy_setopt(t->easy, CURLOPT_UPLOAD, 1L);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_CUSTOMREQUEST, x->method);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_READFUNCTION, on_read);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_READDATA, t);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_SEEKFUNCTION, on_seek);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_SEEKDATA, t);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_UPLOAD_BUFFERSIZE, SOCKET_BUFFER);
    return rc ? rc : curl_easy_setopt(t->easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)x->body_bytes);
}

static CURLcode set_times(struct transfer *t, int64_t now_ns) {
    long left_ms = (long)((t->x->deadline_ns - now_ns) / 1000000) + 1;
    long connect_ms = left_ms < CONNECT_MS_MAX ? left_ms : CONNECT_MS_MAX;
    CURLcode rc = curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, left_ms);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_CONNECTTIMEOUT_MS, connect_ms);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_LOW_SPEED_LIMIT, STALL_BYTES_PER_S);
    return rc ? rc : curl_easy_setopt(t->easy, CURLOPT_LOW_SPEED_TIME, t->http->stall_s);
}

static CURLcode set_reply(struct transfer *t) {
    CURLcode rc = curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_body);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_HEADERFUNCTION, on_header);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_HEADERDATA, t);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_BUFFERSIZE, SOCKET_BUFFER);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, t->error);
    return rc ? rc : curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
}

static CURLcode set_transport(struct transfer *t) {
    CURLcode rc = curl_easy_setopt(t->easy, CURLOPT_URL, t->x->url);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_FOLLOWLOCATION, 0L);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_PATH_AS_IS, 1L);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_NOSIGNAL, 1L);
    if (!rc && (t->x->is_hedge || t->x->fresh)) rc = curl_easy_setopt(t->easy, CURLOPT_FRESH_CONNECT, 1L);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_OPENSOCKETFUNCTION, on_open);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_OPENSOCKETDATA, t->http);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_CLOSESOCKETFUNCTION, on_close);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_CLOSESOCKETDATA, t->http);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_PREREQFUNCTION, on_connected);
    if (!rc) rc = curl_easy_setopt(t->easy, CURLOPT_PREREQDATA, t);
    if (!rc && t->x->no_proxy) rc = curl_easy_setopt(t->easy, CURLOPT_PROXY, "");
    if (!rc && t->http->ca_bundle) rc = curl_easy_setopt(t->easy, CURLOPT_CAINFO, t->http->ca_bundle);
    return rc;
}

static bool set_all(struct transfer *t, int64_t now_ns) {
    return !set_transport(t) && !set_times(t, now_ns) && !set_reply(t) && !set_method(t) && set_headers(t) &&
           !curl_multi_add_handle(t->http->multi, t->easy);
}

static void reset_reply(struct http_exchange *x) {
    begin_reply(x, "", 0);
    x->end = HTTP_DONE;
    x->got = 0;
    x->started_ns = x->first_ns = 0;
    x->why[0] = 0;
    if (x->text) buf_clear(x->text);
}

static void fail(struct http_exchange *x, enum http_end end, const char *why) {
    x->end = end;
    snprintf(x->why, sizeof x->why, "%s", why);
    x->done(x);
}

static void release(struct transfer *t) {
    for (struct curl_slist *h = t->headers; h; h = h->next) explicit_bzero(h->data, strlen(h->data));
    curl_slist_free_all(t->headers);
    t->headers = NULL;
    t->x->transfer = NULL;
    t->x = NULL;
    t->cut = false;
    t->http->active--;
}

// A hedge that cannot be sent leaves the first exchange alone.
static void refuse(struct http_exchange *x, enum http_end end, const char *why) {
    if (!x->is_hedge) {
        fail(x, end, why);
        return;
    }
    x->rival->rival = NULL;
    x->rival = NULL;
}

static void delay(struct http *h, struct http_exchange *x) {
    if (!h->delayed.first || x->not_before_ns < h->due_ns) h->due_ns = x->not_before_ns;
    queue_push(&h->delayed, x);
}

static void arm_hedge(struct http *h, struct http_exchange *x) {
    struct http_exchange *y = x->hedge;
    if (!y || !x->hedge_ns) return;
    y->rival = x;
    x->rival = y;
    y->is_hedge = y->queued = true;
    y->seen = 0;
    y->not_before_ns = x->started_ns + x->hedge_ns;
    delay(h, y);
}

static void start(struct http *h, struct transfer *t, struct http_exchange *x) {
    int64_t now = clock_monotonic_ns();
    reset_reply(x);
    x->queued = false;
    if (now >= x->deadline_ns) {
        refuse(x, HTTP_SLOW, "the deadline passed before a connection was free");
        return;
    }
    if (x->prepare && !x->prepare(x)) {
        refuse(x, HTTP_FAILED, "the request cannot be made");
        return;
    }
    curl_easy_reset(t->easy);
    t->x = x;
    t->sent = t->header_bytes = 0;
    t->replying = false;
    t->fd = -1;
    t->headers_too_large = t->body_too_large = t->not_kept = t->not_given = t->cut = false;
    t->error[0] = 0;
    h->active++;
    x->started_ns = now;
    if (set_all(t, now)) {
        x->transfer = t;
        arm_hedge(h, x);
        return;
    }
    release(t);
    refuse(x, HTTP_FAILED, "the request cannot be set up (a bad URL, or no memory)");
}

static enum http_end end_of(const struct transfer *t, CURLcode code) {
    if (t->headers_too_large || t->body_too_large) return HTTP_TOO_LARGE;
    switch (code) {
    case CURLE_OK: return HTTP_DONE;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT: return HTTP_CONNECT;
    case CURLE_OPERATION_TIMEDOUT: return HTTP_SLOW;
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_SEND_FAIL_REWIND:
    case CURLE_SSL_CONNECT_ERROR: return HTTP_BROKEN;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE: return HTTP_UNTRUSTED;
    default: return HTTP_FAILED;
    }
}

static void remove_transfer(struct http *h, struct transfer *t) {
    curl_multi_remove_handle(h->multi, t->easy);
    release(t);
}

// True: the other one, which is under way, may do better than this failure.
static bool part_from_rival(struct http *h, struct http_exchange *x) {
    struct http_exchange *rival = x->rival;
    bool final = x->end == HTTP_DONE && x->status < 500 && x->status != 429;
    if (!rival) return false;
    x->rival = rival->rival = NULL;
    if (rival->transfer && !final) return true;
    if (rival->transfer)
        remove_transfer(h, rival->transfer);
    else if (rival->queued)
        queue_remove(&h->delayed, rival), queue_remove(&h->hedges, rival);
    rival->queued = false;
    return false;
}

static void finish(struct http *h, struct transfer *t, CURLcode code) {
    struct http_exchange *x = t->x;
    x->end = end_of(t, code);
    if (t->headers_too_large)
        snprintf(x->why, sizeof x->why, "more than %zu bytes of headers", HTTP_HEADER_BYTES_MAX);
    else if (t->body_too_large)
        snprintf(x->why, sizeof x->why, "a longer body than was asked for");
    else if (t->not_kept)
        snprintf(x->why, sizeof x->why, "what came could not be kept");
    else if (t->not_given)
        snprintf(x->why, sizeof x->why, "what was to be sent could not be read");
    else if (code == CURLE_OUT_OF_MEMORY) // libcurl's word for a header line of more than 100 KB, too
        snprintf(x->why, sizeof x->why, "a header line too long to be read, or no memory");
    else if (code)
        snprintf(x->why, sizeof x->why, "%.190s", t->error[0] ? t->error : curl_easy_strerror(code));
    if (t->headers_too_large) x->status = 0;
    if (!code && x->got) learn_pause(h, (double)(clock_monotonic_ns() - t->moved_ns)); // that before its end
    remove_transfer(h, t);
    if (!part_from_rival(h, x)) x->done(x);
}

// ---- the thread.

// False when the client is ending and nothing is left.
static bool collect(struct http *h) {
    pthread_mutex_lock(&h->lock);
    struct http_exchange *x = h->arrived.first;
    queue_init(&h->arrived);
    bool ending = h->ending;
    pthread_mutex_unlock(&h->lock);
    for (struct http_exchange *next; x; x = next) {
        next = x->next;
        if (x->not_before_ns > clock_monotonic_ns())
            delay(h, x);
        else
            queue_push(&h->ready, x);
    }
    return !ending || h->active || h->ready.first || h->delayed.first;
}

// Still nothing new from the first exchange?
static bool hedge_is_due(struct http_exchange *y) {
    bool moves = y->rival->got != y->seen;
    y->seen = y->rival->got;
    return !moves && (!y->wanted || y->wanted(y));
}

static void release_due(struct http *h) {
    int64_t now = clock_monotonic_ns();
    if (!h->delayed.first || now < h->due_ns) return;
    struct queue all;
    queue_init(&all);
    for (struct http_exchange *x; (x = queue_pop(&h->delayed));) queue_push(&all, x);
    for (struct http_exchange *x; (x = queue_pop(&all));) {
        bool due = x->not_before_ns <= now;
        if (due && x->is_hedge && !hedge_is_due(x)) {
            x->not_before_ns = now + x->rival->hedge_ns;
            due = false;
        }
        if (due)
            queue_push(x->is_hedge ? &h->hedges : &h->ready, x);
        else
            delay(h, x);
    }
}

static struct transfer *free_transfer(struct http *h) {
    for (int i = 0; i < h->n_transfers; i++)
        if (!h->transfers[i].x) return &h->transfers[i];
    return NULL;
}

static void start_ready(struct http *h) {
    while (h->hedges.first && free_transfer(h)) start(h, free_transfer(h), queue_pop(&h->hedges));
    while (h->ready.first && h->active < h->limit) start(h, free_transfer(h), queue_pop(&h->ready));
}

void http_limit(struct http *h, int n) {
    h->limit = n < 1 ? 1 : n > h->n ? h->n : n;
}

static void drop_cut(struct http *h) {
    for (int i = 0; i < h->n_transfers; i++)
        if (h->transfers[i].x && h->transfers[i].cut) remove_transfer(h, &h->transfers[i]);
}

static void finish_done(struct http *h) {
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(h->multi, &left));) {
        char *private = NULL;
        if (m->msg != CURLMSG_DONE) continue;
        CURLcode code = m->data.result;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &private);
        finish(h, (struct transfer *)(void *)private, code);
    }
}

// Before the first byte of headers or body a server may have much to do, and has longer; a hedge stands in
// for it. So it has within the reply to a POST, which may begin before the work is done.
static bool stands_still(const struct transfer *t, int64_t now_ns, int64_t most_ns) {
    return t->x && !t->cut && t->replying && strcmp(t->x->method, "POST") != 0 &&
           now_ns - t->moved_ns >= most_ns;
}

static void cut_stalled(struct http *h) {
    int64_t now = clock_monotonic_ns(), most = reply_stall_ns(h);
    for (int i = 0; i < h->n_transfers; i++) {
        struct transfer *t = &h->transfers[i];
        if (!stands_still(t, now, most)) continue;
        snprintf(t->error, sizeof t->error, "the reply stood still for %.1f s after %zu bytes of its body",
                 1e-9 * (double)(now - t->moved_ns), t->x->got);
        finish(h, t, CURLE_OPERATION_TIMEDOUT);
    }
}

static int poll_ms(const struct http *h) {
    if (h->ready.first && h->active < h->limit) return 0;
    int most = h->active ? POLL_MS_BUSY : POLL_MS_MAX;
    if (!h->delayed.first) return most;
    int64_t ms = (h->due_ns - clock_monotonic_ns()) / 1000000 + 1;
    return ms < 0 ? 0 : ms > most ? most : (int)ms;
}

static void *run(void *arg) {
    struct http *h = arg;
    while (collect(h)) {
        int running;
        release_due(h);
        start_ready(h);
        curl_multi_perform(h->multi, &running);
        drop_cut(h);
        finish_done(h);
        cut_stalled(h);
        curl_multi_poll(h->multi, NULL, 0, poll_ms(h), NULL);
    }
    return NULL;
}

void http_submit(struct http *h, struct http_exchange *x) {
    pthread_mutex_lock(&h->lock);
    queue_push(&h->arrived, x);
    pthread_mutex_unlock(&h->lock);
    curl_multi_wakeup(h->multi);
}

// ---- create and destroy.

static int create_handles(struct http *h, const struct http_options *options, struct err *e) {
    h->multi = curl_multi_init();
    if (!h->multi) return err_set(e, ERR_MEMORY, "no memory for an HTTP client");
    curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)h->n_transfers);
    h->n_lines = 2 * h->n_transfers; // some may be closing while others open
    h->lines = calloc((size_t)h->n_lines, sizeof *h->lines);
    if (!h->lines) return err_set(e, ERR_MEMORY, "no memory for an HTTP client");
    for (int i = 0; i < h->n_lines; i++) h->lines[i].fd = -1;
    for (int i = 0; i < h->n_transfers; i++) {
        h->transfers[i].http = h;
        h->transfers[i].easy = curl_easy_init();
        if (!h->transfers[i].easy) return err_set(e, ERR_MEMORY, "no memory for an HTTP client");
    }
    if (!options->ca_bundle) return 0;
    h->ca_bundle = strdup(options->ca_bundle);
    return h->ca_bundle ? 0 : err_set(e, ERR_MEMORY, "no memory for an HTTP client");
}

static void free_all(struct http *h) {
    for (int i = 0; i < h->n_transfers; i++) curl_easy_cleanup(h->transfers[i].easy);
    curl_multi_cleanup(h->multi);
    curl_global_cleanup();
    pthread_mutex_destroy(&h->lock);
    free(h->ca_bundle);
    free(h->lines);
    free(h);
}

// curl_global_init counts its callers and is thread-safe since libcurl 7.84.
int http_create(struct http **out, const struct http_options *options, struct err *e) {
    int n = options->connections > 0 ? options->connections : CONNECTIONS_DEFAULT, total = n + 1 + n / 8;
    int64_t stall_ms = options->stall_ms > 0 ? options->stall_ms : STALL_MS_DEFAULT;
    if (curl_global_init(CURL_GLOBAL_DEFAULT)) return err_set(e, ERR_MEMORY, "libcurl cannot be initialised");
    struct http *h = calloc(1, sizeof *h + (size_t)total * sizeof h->transfers[0]);
    if (!h) {
        curl_global_cleanup();
        return err_set(e, ERR_MEMORY, "no memory for an HTTP client");
    }
    h->n = h->limit = n;
    h->n_transfers = total;
    h->stall_s = (long)((stall_ms + 999) / 1000);
    pthread_mutex_init(&h->lock, NULL);
    queue_init(&h->arrived);
    queue_init(&h->ready);
    queue_init(&h->delayed);
    queue_init(&h->hedges);
    int rc = create_handles(h, options, e);
    if (!rc && pthread_create(&h->thread, NULL, run, h))
        rc = err_set(e, ERR_MEMORY, "no thread can be started for HTTP (limit on processes?)");
    if (rc)
        free_all(h);
    else
        *out = h;
    return rc;
}

void http_destroy(struct http *h) {
    if (!h) return;
    pthread_mutex_lock(&h->lock);
    h->ending = true;
    pthread_mutex_unlock(&h->lock);
    curl_multi_wakeup(h->multi);
    pthread_join(h->thread, NULL);
    free_all(h);
}
