// SPDX-License-Identifier: Apache-2.0
// The supervisor's side of the guards: listens, lets in who knows the token, and keeps what each rank is at.
// Knows nothing of black boxes, verdicts or restarts. Thread rule: one thread.
#ifndef ORRERY_LAUNCHER_CREW_H
#define ORRERY_LAUNCHER_CREW_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "launcher/wire.h"

enum crew_state {
    CREW_ABSENT,  // its guard has not come yet
    CREW_HERE,    // the guard is here
    CREW_RUNNING, // the rank runs
    CREW_ENDED,   // the rank has ended: signal, code
    CREW_LOST,    // the guard vanished without telling how its rank ended
};

struct crew_rank {
    enum crew_state state;
    pid_t guard_pid, pid; // pid: 0 before it runs
    int signal, code;     // ENDED
    int halted;           // signal that stopped (not ended) it; 0: runs
    int64_t ended_ns;     // ENDED, LOST: when we heard, monotonic
    bool connected;
    char host[WIRE_HOST_BYTES];
    char *last_lines; // ENDED: of its log; NULL when there are none
};

struct crew;

int crew_open(struct crew **out, int world, struct err *e) ERR_CHECK;
void crew_close(struct crew *c); // NULL-safe
const char *crew_address(const struct crew *c);
const char *crew_token(const struct crew *c);
int crew_fd(const struct crew *c); // readable when crew_process has something to do
int crew_process(struct crew *c, struct err *e) ERR_CHECK;
void crew_tell(struct crew *c, int rank, enum wire_type type); // a guard that does not listen counts as lost
void crew_tell_all(struct crew *c, enum wire_type type);

const struct crew_rank *crew_rank(const struct crew *c, int rank);
int crew_world(const struct crew *c);
int crew_count(const struct crew *c, enum crew_state state);
int crew_connected(const struct crew *c); // guards with an open connection
int crew_refused(const struct crew *c);   // connections turned away: wrong token, rank or protocol

#endif
