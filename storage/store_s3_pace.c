// SPDX-License-Identifier: Apache-2.0
#include "storage/store_s3_pace.h"

#include <math.h>

#define CUT_PAUSE_NS   100000000 // replies of one round count once
#define RETRIES_MOST   100.0
#define RETRIES_PER_S  16.0 // through an outage; traffic that works earns more
#define RETRY_SHARE    0.25
#define HEDGES_MOST    8.0
#define HEDGE_SHARE    0.02
#define HEDGE_FIRST_NS 2000000000 // while too few replies are known
#define HEDGE_LEAST_NS 250000000
#define HEDGE_MOST_NS  10000000000
#define KNOWN          16

void store_s3_pace_init(struct s3_pace *p, int connections, int64_t now_ns) {
    *p = (struct s3_pace){
        .most = connections, .window = connections, .retries = RETRIES_MOST, .filled_ns = now_ns};
    p->hedges = HEDGES_MOST;
}

// Additive increase, multiplicative decrease.
int store_s3_pace_reply(struct s3_pace *p, bool busy, int64_t now_ns) {
    if (!busy)
        p->window += 1 / p->window;
    else if (!p->cut_ns || now_ns - p->cut_ns > CUT_PAUSE_NS) {
        p->window /= 2;
        p->cut_ns = now_ns;
    }
    if (p->window > p->most) p->window = p->most;
    if (p->window < 1) p->window = 1;
    return (int)p->window;
}

void store_s3_pace_success(struct s3_pace *p) {
    p->retries = fmin(p->retries + RETRY_SHARE, RETRIES_MOST);
    p->hedges = fmin(p->hedges + HEDGE_SHARE, HEDGES_MOST);
}

// May go below nothing: who comes later waits longer, so that all together keep to the rate.
int64_t store_s3_pace_retry_ns(struct s3_pace *p, int64_t now_ns) {
    double earned = RETRIES_PER_S * 1e-9 * (double)(now_ns - p->filled_ns);
    p->retries = fmin(p->retries + earned, RETRIES_MOST) - 1;
    p->filled_ns = now_ns;
    return p->retries >= 0 ? 0 : (int64_t)(-p->retries / RETRIES_PER_S * 1e9);
}

// Mean and mean deviation, as TCP keeps them for its round trip (RFC 6298).
void store_s3_pace_first(struct s3_pace *p, int64_t took_ns) {
    double took = (double)took_ns;
    if (!p->firsts++) {
        p->first_ns = took;
        p->deviation_ns = took / 2;
        return;
    }
    p->deviation_ns += (fabs(took - p->first_ns) - p->deviation_ns) / 4;
    p->first_ns += (took - p->first_ns) / 8;
}

int64_t store_s3_pace_hedge_ns(const struct s3_pace *p) {
    if (p->firsts < KNOWN) return HEDGE_FIRST_NS;
    double ns = 2 * p->first_ns + 8 * p->deviation_ns;
    return ns < HEDGE_LEAST_NS ? HEDGE_LEAST_NS : ns > HEDGE_MOST_NS ? HEDGE_MOST_NS : (int64_t)ns;
}

bool store_s3_pace_hedge(struct s3_pace *p) {
    if (p->hedges < 1) return false;
    p->hedges -= 1;
    return true;
}
