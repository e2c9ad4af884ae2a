// SPDX-License-Identifier: Apache-2.0
// The harness of the op tests. A check makes random arguments, runs the op once per thread count through
// TRIAL_RUN and compares the outputs with its own float64 reference, or with central differences of one.
// The harness refuses: bits that depend on the thread count, writes outside an output (guard bands, gaps
// between rows), changed inputs, elements left unwritten, NaN. Every message names op, instruction set, seed
// and round.
#ifndef ORRERY_TESTS_KERNELS_TRIAL_H
#define ORRERY_TESTS_KERNELS_TRIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/device.h"
#include "kernels/ops.h"

enum { TRIAL_TEAMS = 3, TRIAL_ROUNDS = 8 }; // teams of 1, 2 and 3 threads; on a GPU so many runs

struct trial_buffer;

struct trial {
    const char *op, *isa;
    enum dtype low; // the devices' compute type
    uint64_t seed;
    int64_t largest; // of trial_size; 0: what the check says
    int round;
    struct device *device[TRIAL_TEAMS];
    struct rng_stream rng;
    struct trial_buffer *buffers;
};

// One check per row of ops.def; a missing one does not link.
#define OP(name, doc) void check_##name(struct trial *t);
#include "kernels/ops.def"
#undef OP

// Random numbers of the trial.
int64_t trial_below(struct trial *t, int64_t n); // 0 .. n-1
double trial_normal(struct trial *t);
double trial_unit(struct trial *t);
// A size for a dimension: 1 in round 0, odd and small in most rounds, up to `large` in the last two.
int64_t trial_size(struct trial *t, int64_t large);
// A length of rows: n, in wide rounds the next multiple of 8. There rows also lie at multiples of 8 elements,
// so that GPU kernels which read eight at a time are the ones that run.
bool trial_is_wide(const struct trial *t);
int64_t trial_width(const struct trial *t, int64_t n);

// Tensors. Rows lie further apart than they are long in some rounds, unless `dense`.
enum trial_use { TRIAL_IN, TRIAL_OUT, TRIAL_INOUT }; // OUT starts as NaN
struct tensor trial_rows(struct trial *t, enum trial_use use, int64_t rows, int64_t cols);
struct tensor trial_dense(struct trial *t, enum trial_use use, int64_t rows, int64_t cols);
struct tensor trial_vector(struct trial *t, enum trial_use use, int64_t n);
// The same in the devices' compute type; aligned: rows start at multiples of 16 bytes.
struct tensor trial_low(struct trial *t, enum trial_use use, int64_t rows, int64_t cols);
struct tensor trial_low_aligned(struct trial *t, enum trial_use use, int64_t rows, int64_t cols);
struct tensor trial_low_dense(struct trial *t, enum trial_use use, int64_t rows, int64_t cols);
// Element i, counted without gaps, of a tensor of either type.
double trial_get(struct tensor x, int64_t i);
void trial_put(struct tensor x, int64_t i, double value);
// Device memory that the op writes; compared between thread counts like tensors.
void *trial_device_out(struct trial *t, const void *initial, size_t bytes);
void *trial_device_in(struct trial *t, const void *data, size_t bytes); // device memory that it reads
void *trial_alloc(struct trial *t, size_t bytes); // the host's, cleared; freed with the trial
// The same tensor in double, dense, as it was before the run (or is now, for inputs filled by hand).
double *trial_double(struct trial *t, struct tensor x);
// Call after an input or in-out tensor was filled by hand.
void trial_refilled(struct trial *t);

// |got - want| <= tol (|want| + mean |want|), every element; a bf16 tensor's tol is at least its rounding's.
void trial_compare(struct trial *t, const char *name, struct tensor got, const double *want, double tol);
// got = gradient of loss(arg) by `at`, at[0 .. elems of got), plus what was in got before when `accumulated`.
typedef double trial_loss_fn(void *arg);
void trial_gradient(struct trial *t, const char *name, struct tensor got, bool accumulated, double *at,
                    trial_loss_fn *loss, void *arg, double tol);
void trial_fail(struct trial *t, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));

// Runs t->device[i]->ops->name(..., &args) for every team.
#define TRIAL_RUN(t, name, args)                                                                             \
    do {                                                                                                     \
        for (int team_ = 0; team_ < TRIAL_TEAMS; team_++) {                                                  \
            struct err e_ = {0};                                                                             \
            struct op_##name##_args args_ = (args);                                                          \
            trial_before(t, team_, &args_, sizeof args_);                                                    \
            int rc_ = (t)->device[team_]->ops->name((t)->device[team_], &args_, &e_);                        \
            if (rc_ != 0) trial_fail(t, "%s", e_.text);                                                      \
            trial_after(t, team_);                                                                           \
        }                                                                                                    \
    } while (0)
// On a device with memory of its own every buffer has a double there; pointers in the arguments are
// exchanged.
void trial_before(struct trial *t, int team, void *args, size_t bytes);
void trial_after(struct trial *t, int team);

void trial_begin(struct trial *t, int round);
void trial_end(struct trial *t);

#endif
