// SPDX-License-Identifier: Apache-2.0
// Who we are at S3: credentials from the first place that has them, renewed before they expire by a thread
// that sleeps in between. The order: environment; profile of the shared files (with credential_process and
// web identity); web identity token file; container; instance (IMDSv2). Not signing: see sigv4.h. Secrets
// lie in memory of their own that core files leave out, and are wiped when they are replaced; no function
// here puts one into a message. Thread rule: any thread.
#ifndef ORRERY_STORAGE_CREDS_H
#define ORRERY_STORAGE_CREDS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct creds;

#define CREDS_SOURCE_BYTES 400

// What is signed with. Made by creds_set_create; every text is "" or printable without blanks.
struct creds_set {
    char access_key[256], secret_key[1024], session_token[16384];
    char source[CREDS_SOURCE_BYTES]; // "the environment"
    int64_t expires_s;               // UTC; 0: never
};

// Blocks, at most some seconds per place that is asked. DENIED: none has any, or the place that was named
// refuses; the message says what was tried.
int creds_open(struct creds **out, struct err *e) ERR_CHECK;
void creds_close(struct creds *c); // NULL-safe

// The set in force, until creds_return. Short sections only: others wait.
const struct creds_set *creds_borrow(struct creds *c);
void creds_return(struct creds *c);
uint64_t creds_generation(struct creds *c); // counts renewals
// The set of that generation was refused as expired: true when it has been replaced, or a renewal is tried.
bool creds_expired(struct creds *c, uint64_t generation);
// Where they are from, and why the last renewal failed if it did. NULL-safe.
void creds_describe(struct creds *c, char out[CREDS_SOURCE_BYTES]);

#endif
