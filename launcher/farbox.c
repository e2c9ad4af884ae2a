// SPDX-License-Identifier: Apache-2.0
#include "launcher/farbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEAD_BYTES     offsetof(struct blackbox_page, events)
#define EVENTS_A_PIECE 32
#define PIECE_BYTES    (EVENTS_A_PIECE * sizeof(struct blackbox_event))
#define PIECES         (1 + BLACKBOX_EVENTS / EVENTS_A_PIECE)

_Static_assert(HEAD_BYTES < WIRE_TEXT_BYTES && PIECE_BYTES < WIRE_TEXT_BYTES, "a piece fits into a message");
_Static_assert(BLACKBOX_EVENTS % EVENTS_A_PIECE == 0, "pieces are whole");

// Piece 0 is all but the events.
static size_t offset_of(int piece) {
    return piece == 0 ? 0 : HEAD_BYTES + (size_t)(piece - 1) * PIECE_BYTES;
}

static size_t bytes_of(int piece) {
    return piece == 0 ? HEAD_BYTES : PIECE_BYTES;
}

// ---- the guard's end

static bool take_memory(struct farbox *f) {
    if (!f->now) f->now = calloc(1, sizeof *f->now);
    if (!f->sent) f->sent = calloc(1, sizeof *f->sent);
    return f->now && f->sent;
}

void farbox_look(struct farbox *f) {
    struct err not_yet = {0};
    f->piece = PIECES;
    if (!take_memory(f)) return;
    if (!f->box && blackbox_open(&f->box, f->path, &not_yet)) {
        f->box = NULL;
        return;
    }
    blackbox_read(f->box, f->now);
    f->piece = 0;
}

bool farbox_next(struct farbox *f, struct wire_message *m) {
    for (; f->piece < PIECES; f->piece++) {
        size_t at = offset_of(f->piece), n = bytes_of(f->piece);
        char *sent = (char *)f->sent + at;
        const char *now = (const char *)f->now + at;
        if (!memcmp(sent, now, n)) continue;
        memcpy(sent, now, n);
        memcpy(m->text, now, n);
        m->type = WIRE_BOX;
        m->code = (int32_t)at;
        m->text_bytes = (int32_t)n;
        f->piece++;
        return true;
    }
    return false;
}

void farbox_fini(struct farbox *f) {
    blackbox_close(f->box);
    free(f->now);
    free(f->sent);
    *f = (struct farbox){0};
}

// ---- the supervisor's end

static int move_head(struct wire_message *m, int rank, int64_t shift_ns, struct err *e) {
    struct blackbox_page *p = calloc(1, sizeof *p);
    if (!p) return err_set(e, ERR_MEMORY, "no memory for a black box");
    memcpy(p, m->text, HEAD_BYTES);
    int rc = 0;
    if (p->magic != BLACKBOX_MAGIC || p->version != BLACKBOX_VERSION || p->bytes != sizeof *p ||
        p->rank != rank)
        rc = err_set(e, ERR_DATA, "rank %d sent a black box of rank %d, magic %#x, version %u", rank, p->rank,
                     p->magic, p->version);
    p->heartbeat_ns += shift_ns;
    p->phase_since_ns += shift_ns;
    memcpy(m->text, p, HEAD_BYTES);
    free(p);
    return rc;
}

static void move_events(struct wire_message *m, int64_t shift_ns) {
    struct blackbox_event events[EVENTS_A_PIECE];
    memcpy(events, m->text, sizeof events);
    for (int i = 0; i < EVENTS_A_PIECE; i++)
        if (events[i].at_ns) events[i].at_ns += shift_ns;
    memcpy(m->text, events, sizeof events);
}

static int write_piece(const char *path, const struct wire_message *m, struct err *e) {
    int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return err_errno(e, errno, "cannot keep the black box %s", path);
    bool full = !ftruncate(fd, (off_t)sizeof(struct blackbox_page)) &&
                bytes_pwrite_whole(fd, m->text, (size_t)m->text_bytes, m->code) == (size_t)m->text_bytes;
    int rc = full ? 0 : err_errno(e, errno, "cannot keep the black box %s", path);
    close(fd);
    return rc;
}

int farbox_store(const char *folder, int rank, struct wire_message *m, int64_t shift_ns, struct err *e) {
    char path[320];
    int piece = 0;
    while (piece < PIECES && (int64_t)offset_of(piece) != m->code) piece++;
    if (piece == PIECES || (size_t)m->text_bytes != bytes_of(piece))
        return err_set(e, ERR_DATA, "rank %d sent %d bytes from byte %d on: no piece of a black box", rank,
                       m->text_bytes, m->code);
    int rc = 0;
    if (piece == 0)
        rc = move_head(m, rank, shift_ns, e);
    else
        move_events(m, shift_ns);
    snprintf(path, sizeof path, "%s/rank-%d.box", folder, rank);
    return rc ? rc : write_piece(path, m, e);
}
