// SPDX-License-Identifier: Apache-2.0
// How hard one store may lean on its server: requests at once, attempts beyond the first, second requests for
// what is slow. Plain arithmetic, no clock and no thread of its own: used on the HTTP client's thread alone.
#ifndef ORRERY_STORAGE_STORE_S3_PACE_H
#define ORRERY_STORAGE_STORE_S3_PACE_H

#include <stdbool.h>
#include <stdint.h>

struct s3_pace {
    int most;
    double window;  // requests at once: halved when the server is busy, one more per round of good replies
    int64_t cut_ns; // when it was last halved
    double retries; // attempts that may be made at once; each costs one
    int64_t filled_ns;
    double first_ns, deviation_ns; // of the time to a GET's first byte
    int64_t firsts;
    double hedges; // second requests that may be made
};

void store_s3_pace_init(struct s3_pace *p, int connections, int64_t now_ns);
// A reply came: good, or "busy" (503, 429). Returns how many requests may be under way.
int store_s3_pace_reply(struct s3_pace *p, bool busy, int64_t now_ns);
void store_s3_pace_success(struct s3_pace *p); // earns a part of a retry and of a hedge
// Takes a retry from the budget: how long it must wait for its turn, 0 when there is one left.
int64_t store_s3_pace_retry_ns(struct s3_pace *p, int64_t now_ns);
void store_s3_pace_first(struct s3_pace *p, int64_t took_ns); // from the start of a GET to its first byte
int64_t store_s3_pace_hedge_ns(const struct s3_pace *p);      // standing still for so long is unusual
bool store_s3_pace_hedge(struct s3_pace *p);                  // takes one second request, if there is one

#endif
