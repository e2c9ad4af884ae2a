// SPDX-License-Identifier: Apache-2.0
// The inside of a step, shared by step.c, step_comm.c and step_memory.c only.
#ifndef ORRERY_TRAINER_STEP_IMPL_H
#define ORRERY_TRAINER_STEP_IMPL_H

#include "base/clock.h"
#include "trainer/buckets.h"
#include "trainer/grads.h"
#include "trainer/step.h"

// What a step's work reads beside frames and weights: one block that the host fills before anything is
// queued. S sequences of this rank, F frames, M modalities.
struct step_numbers {
    struct op_update *update;
    double *frames, *weight;         // [M] active frames of the whole global batch; the loss weights
    float *scale;                    // [M] weight / frames
    float *tau, *past, *tau_history; // [S, F, M], [S, F], [S, F]
    float *hide, *active;            // [M, S], [M, S, F]
    uint64_t *sample;                // [S] global sample numbers
    unsigned char *valid;            // [M, S, F]
};

// Recorded work of steps that are alike (step_graph.c).
enum { STEP_BUCKETS = 8, STEP_GRAPH_WORDS = 2 };
// The whole step, where collectives run in the device's queues; else the stretches between them.
enum { STRETCH_WHOLE = 0, STRETCH_SQUARES = 0, STRETCH_UPDATE = 1, STRETCH_SHARD = 2 };

struct step_bucket {
    int64_t key, used; // used: by the clock; 0: empty
    void **graph;      // [stretches]; NULL until it is recorded
};

struct step_graphs {
    bool on, whole, recording;
    int64_t stretches, clock;
    uint64_t generation; // the device's, that all graphs are of
    struct step_bucket bucket[STEP_BUCKETS];
    struct step_bucket *now; // of the step at hand; NULL: it runs as it is
};

// What is under way beside the computation (step_comm.c).
struct step_comm {
    struct buckets buckets;
    struct comm_bucket *bucket; // [buckets.n]
    bool stale;                 // other ranks have updated weights that are not on their way yet
    int missing;                // the first so many buckets' weights are on their way; the rest is here
    int64_t updates;            // that the weights have seen
    struct coll_clock clock;    // at the end of the step before
};

struct step {
    struct rank *rank;
    const struct config *config;
    struct model *model;
    struct optim *optim;
    struct fault *fault;
    const struct modality_set *set;
    int64_t micro, frames; // sequences of a shard, frames of a sequence
    int64_t lo, hi;        // this rank's shards

    struct arena arena;                                         // on the device
    float *z[OPS_MODALITIES_MAX], *history[OPS_MODALITIES_MAX]; // [micro, F, E]
    float *x[OPS_MODALITIES_MAX]; // [S, F, E]: the batch on a device with memory of its own, else NULL
    struct grads *grads;
    struct step_numbers host, device;
    void *host_block, *device_block; // of these; the same one where device memory is the host's
    size_t block_bytes;
    int64_t counts[OPS_MODALITIES_MAX]; // active frames of the whole global batch

    // What ranks tell each other after the backward, rank by rank: [own tensors] sums of squares, as many
    // counts of bad numbers (int64_t), [own shards, M] losses; behind them the verdict. In device memory: it
    // is judged there.
    double *told, *host_told; // host_told: the host's copy
    int64_t *told_at;         // [world + 1]: where a rank's part starts, in floats
    size_t told_bytes;        // with the verdict
    struct op_verdict *verdict;
    int32_t *judge_at; // device: op_judge_args.at
    int n_clipped;     // tensors whose squares count for the norm
    double *losses;    // [shards, M], host: of the last step
    bool poisoned;     // a rehearsed NaN is due
    double lap_at;

    // The step at hand.
    const struct batch *batch;
    int64_t number;
    struct step_report *out; // NULL between steps
    const float *own;        // this rank's sums of gradients
    struct step_graphs graphs;
    struct step_comm comm;
};

static inline void step_lap(struct step *s, enum step_part part) {
    double now = clock_seconds();
    s->out->seconds[part] += now - s->lap_at;
    s->lap_at = now;
}

int step_comm_open(struct step *s, struct err *e) ERR_CHECK; // watches the model
void step_comm_close(struct step *s);                        // waits for nobody
void step_comm_end(struct step *s);                          // of a step: tells its seconds
struct model_grads step_gradients(struct step *s);           // where a backward adds them
// At a step's begin and end: weights that other ranks have updated begin to come.
int step_gather_early(struct step *s, struct err *e) ERR_CHECK;
int step_gather_late(struct step *s, struct err *e) ERR_CHECK;

// Queues a stretch's work on what the step holds.
typedef int step_queue_fn(struct step *s, int64_t stretch, struct err *e);
int step_graph_open(struct step *s, struct err *e) ERR_CHECK;
void step_graph_close(struct step *s);
// What each rank says and hears about the step to come, summed over ranks.
void step_graph_say(const struct step *s, const struct batch *b, int64_t say[STEP_GRAPH_WORDS]);
void step_graph_hear(struct step *s, const int64_t said[STEP_GRAPH_WORDS]);
// Is the step at hand recorded in pieces, between which the host calls collectives?
bool step_graph_in_pieces(const struct step *s);
// Is a shard's work recorded in one of them? Not where gradients leave in its midst.
bool step_graph_holds_shard(const struct step *s);
// Runs, records and launches, or launches. Inside a recording: runs.
int step_graph_run(struct step *s, int64_t stretch, step_queue_fn *queue, struct err *e) ERR_CHECK;

int step_memory_take(struct step *s, struct err *e) ERR_CHECK;
void step_memory_release(struct step *s);

#endif
