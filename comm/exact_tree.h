// SPDX-License-Identifier: Apache-2.0
// The binary tree along which exact reductions add up the S logical shards of a batch: a function of S alone.
// sum(lo, hi) = sum(lo, mid) + sum(mid, hi), mid = lo + the largest power of two < hi - lo. Rank r computes
// the leaves grid_split(S, size, r). Pure arithmetic.
#ifndef ORRERY_COMM_EXACT_TREE_H
#define ORRERY_COMM_EXACT_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

// Ranges of leaves that are nodes of the tree and lie on one rank; at most two per level.
#define EXACT_ROOTS_MAX 64

struct exact_node {
    int64_t lo, hi;
};

struct exact_node exact_left(struct exact_node n);
struct exact_node exact_right(struct exact_node n);
// Are these two the children of one node below the whole tree?
bool exact_siblings(int64_t shards, struct exact_node a, struct exact_node b);
// Is n a right child below the whole tree? *left: the other child.
bool exact_left_sibling(int64_t shards, struct exact_node n, struct exact_node *left);
// The largest nodes on a rank, left to right; the whole tree is never one. Returns how many.
int exact_roots(int64_t shards, int size, int rank, struct exact_node out[EXACT_ROOTS_MAX]);
// How many they are of leaves [lo, hi).
int exact_count_roots(int64_t shards, int64_t lo, int64_t hi);
// The inverse of grid_split.
int exact_rank_of(int64_t shards, int size, int64_t leaf);
// CONFIG: more ranks than shards, or more shards than the tree takes.
int exact_check_shards(int64_t shards, int size, struct err *e) ERR_CHECK;

#endif
