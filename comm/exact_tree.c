// SPDX-License-Identifier: Apache-2.0
#include "comm/exact_tree.h"

#include <inttypes.h>
#include <stddef.h>

#include "comm/grid.h"

#define SHARDS_MAX ((int64_t)1 << 30)

static int64_t middle(struct exact_node n) {
    int64_t half = 1;
    while (half * 2 < n.hi - n.lo) half *= 2;
    return n.lo + half;
}

struct exact_node exact_left(struct exact_node n) {
    return (struct exact_node){n.lo, middle(n)};
}

struct exact_node exact_right(struct exact_node n) {
    return (struct exact_node){middle(n), n.hi};
}

static bool is_same(struct exact_node a, struct exact_node b) {
    return a.lo == b.lo && a.hi == b.hi;
}

bool exact_left_sibling(int64_t shards, struct exact_node n, struct exact_node *left) {
    struct exact_node at = {0, shards}, parent = at;
    while (at.hi - at.lo > 1 && !is_same(at, n)) {
        parent = at;
        at = n.hi <= middle(at) ? exact_left(at) : exact_right(at);
    }
    if (!is_same(at, n) || at.lo == parent.lo || parent.hi - parent.lo == shards) return false;
    *left = exact_left(parent);
    return true;
}

bool exact_siblings(int64_t shards, struct exact_node a, struct exact_node b) {
    struct exact_node left;
    return exact_left_sibling(shards, b, &left) && is_same(left, a);
}

static int find_roots(struct exact_node n, int64_t lo, int64_t hi, bool whole, struct exact_node *out) {
    if (hi <= n.lo || n.hi <= lo) return 0;
    if (n.hi - n.lo == 1 || (lo <= n.lo && n.hi <= hi && !whole)) {
        if (out) out[0] = n;
        return 1;
    }
    int count = find_roots(exact_left(n), lo, hi, false, out);
    return count + find_roots(exact_right(n), lo, hi, false, out ? out + count : NULL);
}

int exact_roots(int64_t shards, int size, int rank, struct exact_node out[EXACT_ROOTS_MAX]) {
    int64_t lo, hi;
    grid_split(shards, size, rank, &lo, &hi);
    return find_roots((struct exact_node){0, shards}, lo, hi, true, out);
}

int exact_count_roots(int64_t shards, int64_t lo, int64_t hi) {
    return find_roots((struct exact_node){0, shards}, lo, hi, true, NULL);
}

int exact_rank_of(int64_t shards, int size, int64_t leaf) {
    int64_t each = shards / size, longer = shards % size;
    return (int)(leaf < longer * (each + 1) ? leaf / (each + 1) : (leaf - longer) / each);
}

int exact_check_shards(int64_t shards, int size, struct err *e) {
    if (shards < size)
        return err_set(e, ERR_CONFIG,
                       "comm.shards is %" PRId64 ", but there are %d ranks: each needs at least one shard",
                       shards, size);
    if (shards > SHARDS_MAX)
        return err_set(e, ERR_CONFIG, "comm.shards is %" PRId64 ", more than %" PRId64, shards, SHARDS_MAX);
    return 0;
}
