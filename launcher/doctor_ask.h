// SPDX-License-Identifier: Apache-2.0
// Talking to the probe on one host (doctor_probe.c is the other end): lines to its stdin, answers in JSON
// from its stdout, and whatever else a login shell or an agent says there. Thread rule: the main thread.
#ifndef ORRERY_LAUNCHER_DOCTOR_ASK_H
#define ORRERY_LAUNCHER_DOCTOR_ASK_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/bytes.h"
#include "base/json.h"

#define DOCTOR_SAID_BYTES 300

struct doctor_ask {
    const char *name;
    pid_t pid;
    int in, out; // its stdin and stdout, our ends; -1: closed
    struct buf heard;
    char said[DOCTOR_SAID_BYTES]; // its last line that is no answer
    struct json *facts;           // NULL: it has not answered
    int64_t port;
    const char *token, *host;
    double skew_s, doubt_s; // its clock against ours, give or take
};

// Starts COMMAND on p->name through the agent, which may have arguments of its own: "ssh -p 2222".
int doctor_ask_start(struct doctor_ask *p, const char *agent, const char *command, struct err *e) ERR_CHECK;
// Hangs up, and ends what does not end by itself. Frees what was heard.
void doctor_ask_end(struct doctor_ask *p);
// False: it is gone.
bool doctor_ask(struct doctor_ask *p, const char *text, size_t n);
// One answer, which is the caller's; NULL when the probe has ended or the time is up.
struct json *doctor_ask_answer(struct doctor_ask *p, int64_t until_ns);

#endif
