// SPDX-License-Identifier: Apache-2.0
#include "launcher/nodelist.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

#define DIGITS_MAX   9
#define BRACKETS_MAX 3

// What is being read: the whole text for messages, and the names found.
struct reader {
    const char *all;
    struct hosts *hosts;
    struct err *e;
};

static int refuse(const struct reader *r, const char *why) {
    return err_set(r->e, ERR_CONFIG, "node list '%.120s': %s", r->all, why);
}

// Digits at *at, moved past them. -1: none, or too many.
static int64_t take_digits(const char **at, const char *end, int *width) {
    int64_t value = 0;
    const char *begin = *at;
    while (*at < end && isdigit((unsigned char)**at) && *at - begin <= DIGITS_MAX)
        value = 10 * value + (*(*at)++ - '0');
    *width = (int)(*at - begin);
    return *width && *width <= DIGITS_MAX ? value : -1;
}

static int expand(const struct reader *r, const char *head, const char *at, const char *end, int depth);

static int add_name(const struct reader *r, const char *name) {
    if (!hosts_name_is_fine(name)) return refuse(r, "holds what is no host name");
    if (r->hosts->n == HOSTS_MAX) return refuse(r, "names too many nodes");
    return hosts_parse(r->hosts, name, r->e);
}

// "0-3" of a bracket: `tail` is what stands behind the bracket.
static int expand_range(const struct reader *r, const char *head, const char *at, const char *end,
                        const char *tail, const char *tail_end, int depth) {
    int width, ignored, rc = 0;
    int64_t lo = take_digits(&at, end, &width), hi = lo;
    if (at < end && *at == '-') {
        at++;
        hi = take_digits(&at, end, &ignored);
    }
    if (lo < 0 || hi < lo || at != end) return refuse(r, "a range is not of the form 0-3");
    if (hi - lo >= HOSTS_MAX) return refuse(r, "names too many nodes");
    for (int64_t i = lo; i <= hi && !rc; i++) {
        char name[HOSTS_NAME_BYTES];
        int n = snprintf(name, sizeof name, "%s%0*lld", head, width, (long long)i);
        rc = n >= (int)sizeof name ? refuse(r, "a name is too long")
                                   : expand(r, name, tail, tail_end, depth + 1);
    }
    return rc;
}

static int expand_bracket(const struct reader *r, const char *head, const char *at, const char *end,
                          int depth) {
    const char *close = memchr(at, ']', (size_t)(end - at));
    int rc = 0;
    if (!close || depth >= BRACKETS_MAX) return refuse(r, "brackets do not match, or there are too many");
    for (at++; !rc;) {
        const char *comma = memchr(at, ',', (size_t)(close - at));
        const char *stop = comma ? comma : close;
        rc = expand_range(r, head, at, stop, close + 1, end, depth);
        if (!comma) break;
        at = comma + 1;
    }
    return rc;
}

// Everything that `head` followed by the pattern [at, end) stands for.
static int expand(const struct reader *r, const char *head, const char *at, const char *end, int depth) {
    char name[HOSTS_NAME_BYTES];
    const char *open = memchr(at, '[', (size_t)(end - at));
    const char *stop = open ? open : end;
    int n = snprintf(name, sizeof name, "%s%.*s", head, (int)(stop - at < 300 ? stop - at : 300), at);
    if (n >= (int)sizeof name) return refuse(r, "a name is too long");
    return open ? expand_bracket(r, name, open, end, depth) : add_name(r, name);
}

// The end of the item that begins at `at`: a comma outside of brackets, or the end of the text.
static const char *item_end(const char *at) {
    bool inside = false;
    for (; *at && (inside || *at != ','); at++) {
        if (*at == '[') inside = true;
        if (*at == ']') inside = false;
    }
    return at;
}

int nodelist_parse(struct hosts *h, const char *nodes, struct err *e) {
    const struct reader r = {.all = nodes, .hosts = h, .e = e};
    int rc = 0;
    for (const char *at = nodes; !rc;) {
        const char *end = item_end(at);
        rc = expand(&r, "", at, end, 0);
        if (!*end) break;
        at = end + 1;
    }
    return rc;
}

static int refuse_numbers(const char *what, const char *numbers, int nodes, struct err *e) {
    return err_set(e, ERR_CONFIG,
                   "%s is '%.80s', which does not fit the %d nodes of the allocation; start from a fresh "
                   "shell of the job",
                   what, numbers, nodes);
}

int nodelist_slots(struct hosts *h, const char *what, const char *numbers, struct err *e) {
    const char *at = numbers, *end = numbers + strlen(numbers);
    int done = 0;
    while (at < end) {
        int width;
        int64_t slots = take_digits(&at, end, &width), times = 1;
        if (slots > 0 && at + 2 < end && at[0] == '(' && at[1] == 'x') {
            at += 2;
            times = take_digits(&at, end, &width);
            if (at >= end || *at++ != ')') times = -1;
        }
        if (slots < 1 || slots > HOSTS_MAX || times < 1 || times > h->n - done ||
            (at < end && (*at++ != ',' || at == end)))
            return refuse_numbers(what, numbers, h->n, e);
        for (; times > 0; times--) h->list[done++].slots = (int)slots;
    }
    return done == h->n ? 0 : refuse_numbers(what, numbers, h->n, e);
}
