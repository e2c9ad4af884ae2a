// SPDX-License-Identifier: Apache-2.0
#include "launcher/discord.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launcher/watch.h"

// Half of what the boxes keep: an entry that is being overwritten is never compared.
#define COMPARED (BLACKBOX_COLLS / 2)

static const struct blackbox_coll *entry(const struct blackbox_page *p, int64_t seq) {
    const struct blackbox_coll *c = &p->colls[(uint64_t)seq % BLACKBOX_COLLS];
    return c->seq == seq ? c : NULL;
}

static bool same(const struct blackbox_coll *a, const struct blackbox_coll *b) {
    return a->step == b->step && a->bytes == b->bytes && !strncmp(a->name, b->name, sizeof a->name);
}

static int count_like(const struct blackbox_page *const *pages, int n, int64_t seq,
                      const struct blackbox_coll *like, bool *in) {
    int count = 0;
    for (int r = 0; r < n; r++) {
        const struct blackbox_coll *c = pages[r] ? entry(pages[r], seq) : NULL;
        in[r] = c && same(c, like);
        count += in[r];
    }
    return count;
}

// The first rank whose entry differs from that of the first rank that has one; -1: none.
static int first_other(const struct blackbox_page *const *pages, int n, int64_t seq, int *first) {
    *first = -1;
    for (int r = 0; r < n; r++) {
        const struct blackbox_coll *c = pages[r] ? entry(pages[r], seq) : NULL;
        if (c && *first < 0) *first = r;
        if (c && !same(c, entry(pages[*first], seq))) return r;
    }
    return -1;
}

// Empty where the number differs by rank, or is not told (-1).
static const char *bytes_text(const struct blackbox_coll *c, char out[32]) {
    out[0] = 0;
    if (c->bytes >= 0) snprintf(out, 32, " (%lld bytes)", (long long)c->bytes);
    return out;
}

static void describe(struct discord *d, const struct blackbox_page *const *pages, int n, int many, int few,
                     const bool *agree) {
    char ranks[200], size[2][32];
    const struct blackbox_coll *a = entry(pages[many], d->seq), *b = entry(pages[few], d->seq);
    watch_ranks_text(agree, n, ranks, sizeof ranks);
    snprintf(d->text, sizeof d->text,
             "the ranks do not call the same collectives: number %lld is '%.31s'%s of step %lld on "
             "%s %s, but '%.31s'%s of step %lld on rank %d",
             (long long)d->seq, a->name, bytes_text(a, size[0]), (long long)a->step,
             strchr(ranks, ',') || strchr(ranks, '-') ? "ranks" : "rank", ranks, b->name,
             bytes_text(b, size[1]), (long long)b->step, few);
}

static bool judge(const struct blackbox_page *const *pages, int n, int64_t seq, struct discord *out,
                  bool *in) {
    int first, other = first_other(pages, n, seq, &first);
    if (other < 0) return false;
    int with_first = count_like(pages, n, seq, entry(pages[first], seq), in);
    int with_other = count_like(pages, n, seq, entry(pages[other], seq), in);
    bool first_is_right = with_first >= with_other;
    int many = first_is_right ? first : other, few = first_is_right ? other : first;
    out->seq = seq;
    out->rank = with_first == with_other ? -1 : few;
    count_like(pages, n, seq, entry(pages[many], seq), in);
    describe(out, pages, n, many, few, in);
    return true;
}

bool discord_find(const struct blackbox_page *const *pages, int n, struct discord *out) {
    int64_t newest = 0, oldest = INT64_MAX;
    bool found = false;
    for (int r = 0; r < n; r++) {
        if (!pages[r] || pages[r]->coll_seq < 1) continue;
        if (pages[r]->coll_seq > newest) newest = pages[r]->coll_seq;
        if (pages[r]->coll_seq < oldest) oldest = pages[r]->coll_seq;
    }
    bool *in = newest > 0 ? calloc((size_t)n, sizeof *in) : NULL;
    int64_t from = newest > COMPARED ? newest - COMPARED : 1;
    for (int64_t seq = from; in && seq <= oldest && !found; seq++) found = judge(pages, n, seq, out, in);
    free(in);
    return found;
}
