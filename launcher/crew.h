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
    int64_t heard_ns; // when the guard last said anything, monotonic
    int64_t rtt_ns;   // there and back to the guard, the least of the last few pings; 0: unknown
    char host[WIRE_HOST_BYTES];
    char *last_lines; // ENDED: of its log; NULL when there are none
};

struct crew;

struct crew_options {
    int world;
    const char *listen_on; // IPv4 address that the guards can reach; NULL: loopback
    const char *box_path;  // where boxes that guards send are kept; NULL: none are expected
};

int crew_open(struct crew **out, const struct crew_options *options, struct err *e) ERR_CHECK;
void crew_close(struct crew *c); // NULL-safe
const char *crew_address(const struct crew *c);
const char *crew_token(const struct crew *c);
int crew_fd(const struct crew *c); // readable when crew_process has something to do
int crew_process(struct crew *c, struct err *e) ERR_CHECK;
void crew_tell_all(struct crew *c, enum wire_type type); // a guard that does not listen counts as lost
void crew_save_all(struct crew *c); // save and stop: ranks that do not run yet are asked as they start
void crew_ping(struct crew *c);     // every guard: their answers keep heard_ns and rtt_ns up to date

const struct crew_rank *crew_rank(const struct crew *c, int rank);
int crew_world(const struct crew *c);
int crew_count(const struct crew *c, enum crew_state state);
int crew_refused(const struct crew *c);         // connections turned away: wrong token, rank or protocol
const char *crew_refusal(const struct crew *c); // why and from where the first of them was

#endif
