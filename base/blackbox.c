// SPDX-License-Identifier: Apache-2.0
#include "base/blackbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/process.h"

struct blackbox {
    struct blackbox_page *page; // writer with a file: the mapping; else heap
    bool mapped;
    int fd; // of a reader, else -1
};

const char *blackbox_phase_name(enum blackbox_phase phase) {
    static const char *const names[PHASE_COUNT] = {
        [PHASE_INIT] = "init",
        [PHASE_DATA] = "data",
        [PHASE_FORWARD] = "forward",
        [PHASE_BACKWARD] = "backward",
        [PHASE_COLLECTIVE] = "collective",
        [PHASE_OPTIMISER] = "optimiser",
        [PHASE_CHECKPOINT] = "checkpoint",
        [PHASE_EVALUATE] = "evaluate",
        [PHASE_ROLLOUT] = "rollout",
        [PHASE_SIMULATE] = "simulate",
        [PHASE_DONE] = "done",
    };
    return (unsigned)phase < PHASE_COUNT ? names[phase] : "unknown";
}

static void fill_page(struct blackbox_page *p, int rank, int world, int attempt, const char *task) {
    p->version = BLACKBOX_VERSION;
    p->bytes = sizeof *p;
    p->attempt = attempt;
    p->rank = rank;
    p->world = world;
    p->pid = getpid();
    process_host(p->host, sizeof p->host, "unknown");
    snprintf(p->task, sizeof p->task, "%s", task ? task : "");
    p->checkpoint_step = -1;
    p->phase_since_ns = p->heartbeat_ns = clock_monotonic_ns();
    p->magic = BLACKBOX_MAGIC;
}

// Blocks are reserved at once: a store into a hole of a full file system would be a SIGBUS.
static int map_file(struct blackbox *b, const char *name, struct err *e) {
    int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return err_errno(e, errno, "cannot create the black box %s", name);
    int rc = 0;
    int failed = posix_fallocate(fd, 0, sizeof *b->page);
    if (failed) {
        rc = err_errno(e, failed, "no room for the black box %s", name);
        goto out;
    }
    void *at = mmap(NULL, sizeof *b->page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        rc = err_errno(e, errno, "cannot map the black box %s", name);
        goto out;
    }
    b->page = at;
    b->mapped = true;
out:
    close(fd);
    if (rc) unlink(name);
    return rc;
}

// The file appears under its name only when it is whole, and a reader of an older one keeps that one.
static int create_file(struct blackbox *b, const char *path, int rank, int world, int attempt,
                       const char *task, struct err *e) {
    char *name;
    if (asprintf(&name, "%s.tmp-%d-%llx", path, (int)getpid(), (unsigned long long)clock_monotonic_ns()) < 0)
        return err_set(e, ERR_MEMORY, "no memory for a file name");
    int rc = map_file(b, name, e);
    if (rc) goto out;
    fill_page(b->page, rank, world, attempt, task);
    if (rename(name, path)) {
        rc = err_errno(e, errno, "cannot rename the black box to %s", path);
        unlink(name);
    }
out:
    free(name);
    return rc;
}

static int create_heap(struct blackbox *b, struct err *e) {
    b->page = calloc(1, sizeof *b->page);
    return b->page ? 0 : err_set(e, ERR_MEMORY, "no memory for a black box");
}

int blackbox_create(struct blackbox **out, const char *path, int rank, int world, int attempt,
                    const char *task, struct err *e) {
    *out = NULL;
    struct blackbox *b = calloc(1, sizeof *b);
    if (!b) return err_set(e, ERR_MEMORY, "no memory for a black box");
    b->fd = -1;
    int rc = path ? create_file(b, path, rank, world, attempt, task, e) : create_heap(b, e);
    if (rc) {
        blackbox_close(b);
        return rc;
    }
    if (!path) fill_page(b->page, rank, world, attempt, task);
    *out = b;
    return 0;
}

static int read_page(int fd, struct blackbox_page *out) {
    ssize_t n = pread(fd, out, sizeof *out, 0);
    return n == (ssize_t)sizeof *out ? 0 : -1;
}

static int open_file(struct blackbox *b, const char *path, struct err *e) {
    struct stat st;
    b->fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (b->fd < 0 && errno == ELOOP) return err_set(e, ERR_DATA, "%s is a symbolic link, no black box", path);
    if (b->fd < 0) return err_errno(e, errno, "cannot open the black box %s", path);
    if (fstat(b->fd, &st)) return err_errno(e, errno, "cannot stat the black box %s", path);
    if (!S_ISREG(st.st_mode) || st.st_size != (off_t)sizeof *b->page)
        return err_set(e, ERR_DATA, "%s is no black box of this version: %lld bytes instead of %zu", path,
                       (long long)st.st_size, sizeof *b->page);
    if (create_heap(b, e)) return -(int)ERR_MEMORY;
    if (read_page(b->fd, b->page)) return err_set(e, ERR_IO, "cannot read the black box %s", path);
    if (b->page->magic != BLACKBOX_MAGIC || b->page->version != BLACKBOX_VERSION ||
        b->page->bytes != sizeof *b->page)
        return err_set(e, ERR_DATA, "%s is no black box of this version: magic %#x, version %u", path,
                       b->page->magic, b->page->version);
    return 0;
}

int blackbox_open(struct blackbox **out, const char *path, struct err *e) {
    *out = NULL;
    struct blackbox *b = calloc(1, sizeof *b);
    if (!b) return err_set(e, ERR_MEMORY, "no memory for a black box");
    b->fd = -1;
    int rc = open_file(b, path, e);
    if (rc)
        blackbox_close(b);
    else
        *out = b;
    return rc;
}

void blackbox_close(struct blackbox *b) {
    if (!b) return;
    if (b->mapped)
        munmap(b->page, sizeof *b->page);
    else
        free(b->page);
    if (b->fd >= 0) close(b->fd);
    free(b);
}

struct blackbox_page *blackbox_page(struct blackbox *b) {
    return b->page;
}

// ---- writing

static int bucket_of(int64_t ns) {
    uint64_t us = ns > 0 ? (uint64_t)ns / 1000 : 0;
    int b = us ? 63 - __builtin_clzll(us) : 0;
    return b < BLACKBOX_BUCKETS ? b : BLACKBOX_BUCKETS - 1;
}

static void touch(struct blackbox_page *p) {
    int64_t now = clock_monotonic_ns();
    int row = p->coll_waiting ? BLACKBOX_WAITING : p->phase;
    p->silences[row][bucket_of(now - p->heartbeat_ns)]++;
    p->heartbeat_ns = now;
}

void blackbox_touch(struct blackbox *b) {
    touch(b->page);
}

void blackbox_set_phase(struct blackbox *b, enum blackbox_phase phase, const char *place) {
    struct blackbox_page *p = b->page;
    touch(p);
    p->phase_ns[p->phase] += p->heartbeat_ns - p->phase_since_ns;
    snprintf(p->place, sizeof p->place, "%s", place ? place : "");
    if (p->phase != (int32_t)phase) p->part_total = 0;
    p->phase = (int32_t)phase;
    p->phase_since_ns = p->heartbeat_ns;
}

// Events of other threads read the step.
void blackbox_set_step(struct blackbox *b, int64_t step) {
    __atomic_store_n(&b->page->step, step, __ATOMIC_RELAXED);
    touch(b->page);
}

void blackbox_set_part(struct blackbox *b, int64_t done, int64_t total, const char *of) {
    struct blackbox_page *p = b->page;
    snprintf(p->part_of, sizeof p->part_of, "%s", of);
    p->part_done = done;
    p->part_total = total;
    touch(p);
}

void blackbox_coll_begin(struct blackbox *b, const char *name, int64_t bytes, int64_t shape) {
    struct blackbox_page *p = b->page;
    int64_t seq = p->coll_seq + 1;
    struct blackbox_coll *c = &p->colls[seq % BLACKBOX_COLLS];
    snprintf(c->name, sizeof c->name, "%s", name);
    snprintf(p->coll_name, sizeof p->coll_name, "%s", name);
    c->step = p->step;
    c->bytes = shape;
    __atomic_store_n(&c->seq, seq, __ATOMIC_RELEASE); // last: a reader that sees it sees the rest
    p->coll_bytes = bytes;
    p->coll_seq = seq;
    touch(p);
}

void blackbox_coll_wait(struct blackbox *b, const char *name, int64_t seq, int64_t bytes) {
    struct blackbox_page *p = b->page;
    touch(p);
    snprintf(p->coll_name, sizeof p->coll_name, "%s", name);
    p->coll_bytes = bytes;
    p->coll_since_ns = p->heartbeat_ns;
    p->coll_waiting = seq;
}

void blackbox_coll_end(struct blackbox *b) {
    struct blackbox_page *p = b->page;
    touch(p);
    if (p->coll_waiting) p->coll_wait_ns += p->heartbeat_ns - p->coll_since_ns;
    p->coll_waiting = 0;
    p->coll_done++;
}

void blackbox_set_err(struct blackbox *b, const struct err *e) {
    struct blackbox_page *p = b->page;
    snprintf(p->err_text, sizeof p->err_text, "%.*s", (int)sizeof p->err_text - 1, e->text);
    p->err_code = (int32_t)e->code;
    touch(p);
}

void blackbox_event(struct blackbox *b, const char *fmt, ...) {
    struct blackbox_page *p = b->page;
    uint64_t number = __atomic_fetch_add(&p->event_count, 1, __ATOMIC_RELAXED);
    struct blackbox_event *event = &p->events[number % BLACKBOX_EVENTS];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(event->text, sizeof event->text, fmt, ap);
    va_end(ap);
    event->step = __atomic_load_n(&p->step, __ATOMIC_RELAXED);
    event->at_ns = clock_monotonic_ns();
}

// ---- reading

// Whatever wrote the page, its text may be printed: terminated, one line, no terminal escapes.
static void clean_text(char *text, size_t size) {
    text[size - 1] = 0;
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = '?';
}

void blackbox_read(const struct blackbox *b, struct blackbox_page *out) {
    if (b->fd < 0 || read_page(b->fd, out)) memcpy(out, b->page, sizeof *out);
    clean_text(out->host, sizeof out->host);
    clean_text(out->task, sizeof out->task);
    clean_text(out->coll_name, sizeof out->coll_name);
    clean_text(out->place, sizeof out->place);
    clean_text(out->part_of, sizeof out->part_of);
    for (int i = 0; i < BLACKBOX_COLLS; i++) clean_text(out->colls[i].name, sizeof out->colls[i].name);
    clean_text(out->err_text, sizeof out->err_text);
    for (size_t i = 0; i < BLACKBOX_EVENTS; i++) clean_text(out->events[i].text, sizeof out->events[i].text);
    if (out->phase < 0 || out->phase >= PHASE_COUNT) out->phase = PHASE_INIT;
    if (out->err_code < 0 || out->err_code >= ERR_COUNT) out->err_code = ERR_BUG;
}
