// SPDX-License-Identifier: Apache-2.0
// What guard and supervisor say to each other over TCP: framed, versioned, bounded. A frame is payload length
// (u32), version (u16), type (u16), then the message in one fixed layout, little-endian. The first message of
// a guard is HELLO with the job's token.
#ifndef ORRERY_LAUNCHER_WIRE_H
#define ORRERY_LAUNCHER_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define WIRE_VERSION     2
#define WIRE_TOKEN_BYTES 32 // hex characters, no NUL on the wire
#define WIRE_HOST_BYTES  64
#define WIRE_TEXT_BYTES  12288

enum wire_type {
    WIRE_HELLO = 1, // guard: rank, world, pid (the guard's), token, host
    WIRE_STARTED,   // guard: pid of the rank
    WIRE_HALTED,    // guard: the rank was stopped by signal `signal`
    WIRE_RESUMED,   // guard: it goes on
    WIRE_ENDED,     // guard: signal or code, text: last lines of its log
    WIRE_SAVE,      // supervisor: ask the rank to save and stop
    WIRE_KILL,      // supervisor: kill the rank, then end
    WIRE_BYE,       // supervisor: nothing left to do, end
    WIRE_PING,      // supervisor: clock_ns, to be sent back
    WIRE_PONG,      // guard: clock_ns of the ping
    WIRE_BOX,       // guard on another machine: a piece of its rank's black box, from byte `code` on
    WIRE_TYPE_END
};

struct wire_message {
    enum wire_type type;
    int32_t rank, world, pid, signal, code;
    int64_t clock_ns;   // BOX: the sender's monotonic clock; PING, PONG: the supervisor's
    int32_t text_bytes; // BOX: bytes in text; else text is a string
    char token[WIRE_TOKEN_BYTES + 1];
    char host[WIRE_HOST_BYTES];
    char text[WIRE_TEXT_BYTES];
};

// One end of a connection. recv never blocks; send waits a second at most.
struct wire {
    int fd; // -1: closed
    struct buf in;
};

void wire_init(struct wire *w, int fd); // takes fd, makes it non-blocking
void wire_fini(struct wire *w);
bool wire_is_full(const struct wire *w); // a send would have to wait
int wire_send(struct wire *w, const struct wire_message *m, struct err *e) ERR_CHECK;
// Takes in what has arrived. PEER: the other end is gone (what came before can still be read with wire_next).
int wire_receive(struct wire *w, struct err *e) ERR_CHECK;
void wire_peer(const struct wire *w, char *out, size_t out_bytes); // "10.0.0.7", for messages
// The next whole message: *have says whether there was one. DATA: not our protocol.
int wire_next(struct wire *w, struct wire_message *m, bool *have, struct err *e) ERR_CHECK;

// The parser alone, for tests: *used is 0 while the frame is not complete.
int wire_decode(const char *data, size_t n, struct wire_message *m, size_t *used, struct err *e) ERR_CHECK;
int wire_encode(const struct wire_message *m, struct buf *out, struct err *e) ERR_CHECK;

// "127.0.0.1:1234"
int wire_connect(const char *address, int *fd, struct err *e) ERR_CHECK;
// On a free port of this host's IPv4 address `host`; NULL: loopback.
int wire_listen(int *fd, const char *host, char *address, size_t address_bytes, struct err *e) ERR_CHECK;
int wire_new_token(char out[WIRE_TOKEN_BYTES + 1], struct err *e) ERR_CHECK;

#endif
