// SPDX-License-Identifier: Apache-2.0
#include "launcher/crew.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "launcher/farbox.h"

#define STRANGERS    64 // connections that have not said who they are, besides one of each rank
#define HELLO_MS     5000
#define EVENTS       64
#define LISTENER_TAG UINT32_MAX
#define RTT_PINGS    4

// A connection: slots [0, world) belong to ranks, those up to `slots_n` to who has not said HELLO yet.
struct slot {
    struct wire wire;
    int64_t since_ns;
    // Of a rank's guard:
    int64_t shift_ns; // from its clock to ours: the least delay seen
    bool shift_known;
    int64_t rtts_ns[RTT_PINGS]; // of the last pings
    int pongs;
};

struct crew {
    int world, epoll_fd, listen_fd, refused;
    char address[64], token[WIRE_TOKEN_BYTES + 1];
    char box_path[256]; // "": none
    char refusal[200];  // of the first that was turned away
    bool saving;        // all are to save and stop
    struct crew_rank *ranks;
    int slots_n;
    struct slot *slots;
};

static int watch_fd(struct crew *c, int op, int fd, uint32_t tag, struct err *e) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = tag};
    return epoll_ctl(c->epoll_fd, op, fd, &event) ? err_errno(e, errno, "cannot watch a connection") : 0;
}

int crew_open(struct crew **out, const struct crew_options *options, struct err *e) {
    struct crew *c = calloc(1, sizeof *c);
    if (!c) return err_set(e, ERR_MEMORY, "no memory for the crew");
    int rc = 0, world = options->world;
    snprintf(c->box_path, sizeof c->box_path, "%s", options->box_path ? options->box_path : "");
    c->world = world;
    c->slots_n = 2 * world + STRANGERS; // all guards may knock at once
    c->listen_fd = c->epoll_fd = -1;
    c->ranks = calloc((size_t)world, sizeof *c->ranks);
    c->slots = calloc((size_t)c->slots_n, sizeof *c->slots);
    if (!c->ranks || !c->slots) rc = err_set(e, ERR_MEMORY, "no memory for %d ranks", world);
    for (int i = 0; c->slots && i < c->slots_n; i++) c->slots[i].wire.fd = -1;
    if (!rc && (c->epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0)
        rc = err_errno(e, errno, "cannot make an epoll");
    if (!rc) rc = wire_new_token(c->token, e);
    if (!rc) rc = wire_listen(&c->listen_fd, options->listen_on, c->address, sizeof c->address, e);
    if (!rc) rc = watch_fd(c, EPOLL_CTL_ADD, c->listen_fd, LISTENER_TAG, e);
    if (rc) {
        crew_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

void crew_close(struct crew *c) {
    if (!c) return;
    for (int i = 0; c->slots && i < c->slots_n; i++) wire_fini(&c->slots[i].wire);
    for (int i = 0; c->ranks && i < c->world; i++) free(c->ranks[i].last_lines);
    if (c->listen_fd >= 0) close(c->listen_fd);
    if (c->epoll_fd >= 0) close(c->epoll_fd);
    free(c->ranks);
    free(c->slots);
    free(c);
}

static void lose(struct crew *c, int rank) {
    struct crew_rank *r = &c->ranks[rank];
    wire_fini(&c->slots[rank].wire);
    r->connected = false;
    if (r->state == CREW_ENDED) return;
    r->state = CREW_LOST;
    r->ended_ns = clock_monotonic_ns();
}

static void tell(struct crew *c, int rank, enum wire_type type) {
    struct wire_message m = {.type = type, .rank = rank, .world = c->world};
    struct err e = {0};
    if (c->slots[rank].wire.fd >= 0 && wire_send(&c->slots[rank].wire, &m, &e)) lose(c, rank);
}

static void take_end(struct crew_rank *r, const struct wire_message *m) {
    if (r->state == CREW_ENDED) return;
    r->state = CREW_ENDED;
    r->signal = m->signal;
    r->code = m->code;
    r->ended_ns = clock_monotonic_ns();
    r->last_lines = *m->text ? strdup(m->text) : NULL;
}

static void take_box(struct crew *c, int rank, struct wire_message *m) {
    struct slot *s = &c->slots[rank];
    struct err e = {0};
    int64_t shift_ns = clock_monotonic_ns() - m->clock_ns;
    if (!s->shift_known || shift_ns < s->shift_ns) s->shift_ns = shift_ns;
    s->shift_known = true;
    // A box that cannot be kept costs its rank's place in the verdict, never the run.
    if (c->box_path[0] && farbox_store(c->box_path, rank, m, s->shift_ns, &e)) err_clear(&e);
}

static void take_pong(struct crew *c, int rank, const struct wire_message *m) {
    struct slot *s = &c->slots[rank];
    int64_t rtt_ns = clock_monotonic_ns() - m->clock_ns;
    if (rtt_ns <= 0) return;
    s->rtts_ns[s->pongs++ % RTT_PINGS] = rtt_ns;
    if (s->pongs < RTT_PINGS) return;
    c->ranks[rank].rtt_ns = rtt_ns;
    for (int i = 0; i < RTT_PINGS; i++)
        if (s->rtts_ns[i] < c->ranks[rank].rtt_ns) c->ranks[rank].rtt_ns = s->rtts_ns[i];
}

static void take_message(struct crew *c, int rank, struct wire_message *m) {
    struct crew_rank *r = &c->ranks[rank];
    r->heard_ns = clock_monotonic_ns();
    switch (m->type) {
    case WIRE_STARTED:
        r->state = CREW_RUNNING;
        r->pid = m->pid;
        if (c->saving) tell(c, rank, WIRE_SAVE);
        break;
    case WIRE_HALTED: r->halted = m->signal; break;
    case WIRE_RESUMED: r->halted = 0; break;
    case WIRE_ENDED: take_end(r, m); break;
    case WIRE_BOX: take_box(c, rank, m); break;
    case WIRE_PONG: take_pong(c, rank, m); break;
    default: break;
    }
}

// Compares in a time that does not depend on where they differ.
static bool same_token(const char *a, const char *b) {
    unsigned difference = 0;
    for (int i = 0; i < WIRE_TOKEN_BYTES; i++) difference |= (unsigned)(a[i] ^ b[i]);
    return !difference;
}

static void turn_away(struct crew *c, struct slot *s, const char *why) {
    char from[64];
    wire_peer(&s->wire, from, sizeof from);
    if (!c->refused) snprintf(c->refusal, sizeof c->refusal, "%.120s (from %s)", why, from);
    wire_fini(&s->wire);
    c->refused++;
}

static const char *fault_of(const struct crew *c, const struct wire_message *m) {
    if (m->type != WIRE_HELLO) return "it did not say who it is";
    if (!same_token(m->token, c->token)) return "wrong token";
    if (m->world != c->world || m->rank < 0 || m->rank >= c->world) return "a rank of another world";
    return c->ranks[m->rank].state == CREW_ABSENT ? NULL : "its rank is here already";
}

// The first message of a stranger: moves it to its rank's slot, or sends it away.
static bool admit(struct crew *c, struct slot *s, const struct wire_message *m) {
    struct err e = {0};
    const char *why = fault_of(c, m);
    if (!why && watch_fd(c, EPOLL_CTL_MOD, s->wire.fd, (uint32_t)m->rank, &e)) why = "cannot be watched";
    if (why) {
        turn_away(c, s, why);
        return false;
    }
    struct crew_rank *r = &c->ranks[m->rank];
    c->slots[m->rank] = *s;
    s->wire = (struct wire){.fd = -1};
    r->state = CREW_HERE;
    r->connected = true;
    r->guard_pid = m->pid;
    r->heard_ns = clock_monotonic_ns();
    snprintf(r->host, sizeof r->host, "%s", m->host);
    for (char *at = r->host; *at; at++)
        if ((unsigned char)*at < 0x21 || *at == 0x7f) *at = '?';
    return true;
}

static void read_rank(struct crew *c, int rank) {
    struct wire_message m;
    struct err e = {0};
    bool have = true;
    struct wire *w = &c->slots[rank].wire;
    bool gone = wire_receive(w, &e) != 0;
    err_clear(&e);
    while (have) {
        if (wire_next(w, &m, &have, &e)) gone = true;
        if (have) take_message(c, rank, &m);
    }
    if (gone) lose(c, rank);
}

static void read_stranger(struct crew *c, struct slot *s) {
    struct wire_message m;
    struct err e = {0};
    bool have = false;
    bool gone = wire_receive(&s->wire, &e) != 0;
    if (wire_next(&s->wire, &m, &have, &e)) gone = true;
    if (have) {
        if (admit(c, s, &m)) read_rank(c, m.rank); // what came right behind the HELLO
        return;
    }
    if (gone) turn_away(c, s, e.text);
}

// What lies unread is read first: whoever has said HELLO is no stranger.
static void drop(struct crew *c, struct slot *s, const char *why) {
    read_stranger(c, s);
    if (s->wire.fd >= 0) turn_away(c, s, why);
}

// An empty slot, else that of the stranger who has been silent longest.
static struct slot *make_room(struct crew *c) {
    struct slot *oldest = &c->slots[c->world];
    for (int i = c->world; i < c->slots_n; i++) {
        struct slot *s = &c->slots[i];
        if (s->wire.fd < 0) return s;
        if (s->since_ns < oldest->since_ns) oldest = s;
    }
    drop(c, oldest, "it said nothing, and others came");
    return oldest;
}

// Strangers are read as they come, so that guards leave their slots to the next ones. Bounded, so that who
// knocks without end does not keep the supervisor from its other duties.
static void accept_all(struct crew *c) {
    struct err e = {0};
    for (int i = 0; i < c->slots_n; i++) {
        int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) return;
        struct slot *s = make_room(c);
        wire_init(&s->wire, fd);
        s->since_ns = clock_monotonic_ns();
        if (watch_fd(c, EPOLL_CTL_ADD, fd, (uint32_t)(s - c->slots), &e))
            turn_away(c, s, e.text);
        else
            read_stranger(c, s);
    }
}

static void drop_silent(struct crew *c) {
    int64_t now = clock_monotonic_ns();
    for (int i = c->world; i < c->slots_n; i++) {
        struct slot *s = &c->slots[i];
        if (s->wire.fd >= 0 && now - s->since_ns > (int64_t)HELLO_MS * 1000000) drop(c, s, "it said nothing");
    }
}

int crew_process(struct crew *c, struct err *e) {
    struct epoll_event events[EVENTS];
    int n = epoll_wait(c->epoll_fd, events, EVENTS, 0);
    if (n < 0 && errno != EINTR) return err_errno(e, errno, "cannot wait for the guards");
    for (int i = 0; i < n; i++) {
        uint32_t tag = events[i].data.u32;
        if (tag == LISTENER_TAG)
            accept_all(c);
        else if (c->slots[tag].wire.fd < 0)
            continue;
        else if ((int)tag < c->world)
            read_rank(c, (int)tag);
        else
            read_stranger(c, &c->slots[tag]);
    }
    drop_silent(c);
    return 0;
}

void crew_tell_all(struct crew *c, enum wire_type type) {
    for (int r = 0; r < c->world; r++) tell(c, r, type);
}

void crew_save_all(struct crew *c) {
    c->saving = true;
    crew_tell_all(c, WIRE_SAVE);
}

void crew_ping(struct crew *c) {
    for (int r = 0; r < c->world; r++) {
        struct wire_message m = {
            .type = WIRE_PING, .rank = r, .world = c->world, .clock_ns = clock_monotonic_ns()};
        struct err e = {0};
        struct wire *w = &c->slots[r].wire;
        // A guard that takes nothing will be missed for its silence.
        if (w->fd >= 0 && !wire_is_full(w) && wire_send(w, &m, &e)) lose(c, r);
    }
}

const char *crew_address(const struct crew *c) {
    return c->address;
}

const char *crew_token(const struct crew *c) {
    return c->token;
}

int crew_fd(const struct crew *c) {
    return c->epoll_fd;
}

const struct crew_rank *crew_rank(const struct crew *c, int rank) {
    return &c->ranks[rank];
}

int crew_world(const struct crew *c) {
    return c->world;
}

int crew_count(const struct crew *c, enum crew_state state) {
    int n = 0;
    for (int r = 0; r < c->world; r++) n += c->ranks[r].state == state;
    return n;
}

const char *crew_refusal(const struct crew *c) {
    return c->refusal;
}

int crew_refused(const struct crew *c) {
    return c->refused;
}
