// SPDX-License-Identifier: Apache-2.0
// The table's physics (Chipmunk2D) and the behaviour that makes its commands.
#include <chipmunk/chipmunk.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "trainer/worlds/table.h"

#define STEP_S (1.0 / TABLE_FRAME_HZ / TABLE_STEPS)

enum { KIND_PUSHER = 1, KIND_PUCK, KIND_WALL };
enum { PAIRS_MAX = TABLE_PUCKS_MAX * (2 + TABLE_PUCKS_MAX) };

// The commands: a person who chases a puck, wanders about, or waits, and backs off from a puck that is stuck.
enum behaviour { CHASE, WANDER, STAY, RETREAT };

struct table {
    struct rng_stream rng;
    const struct table_knobs *knobs;
    struct table_trace *trace;
    cpSpace *space;
    cpBody *pusher, *puck[TABLE_PUCKS_MAX];
    cpShape *shape[1 + TABLE_PUCKS_MAX + 4];
    cpVect wanted;                            // the pusher's velocity under the command that acts
    int64_t step;                             // of physics, from 0
    double before[PAIRS_MAX], now[PAIRS_MAX]; // impulse of each pair in the last and in this step
    enum behaviour behaviour;
    int frames_left, target, pinned;
    cpVect drift, goal;
};

static cpVect table_normal2(struct rng_stream *r, double sd) {
    double x = rng_next_normal(r), y = rng_next_normal(r);
    return cpv(sd * x, sd * y);
}

static const double gantry_lo = TABLE_PUSHER_RADIUS, gantry_hi = 1 - TABLE_PUSHER_RADIUS;

// A velocity that does not lead past the gantry's ends.
static double table_at_ends(double place, double velocity) {
    return (place <= gantry_lo && velocity < 0) || (place >= gantry_hi && velocity > 0) ? 0 : velocity;
}

// The pusher is driven like a gantry: it takes its velocity up with a time constant of 20 ms and stops at its
// ends.
static void table_drive(cpBody *body, cpVect gravity, cpFloat damping, cpFloat dt) {
    const struct table *t = cpBodyGetUserData(body);
    (void)gravity;
    (void)damping;
    cpVect v = cpBodyGetVelocity(body), p = cpBodyGetPosition(body);
    v = cpvadd(v, cpvmult(cpvsub(t->wanted, v), 1 - exp(-dt / 0.02)));
    cpBodySetVelocity(body, cpv(table_at_ends(p.x, v.x), table_at_ends(p.y, v.y)));
}

static void table_gantry_ends(cpBody *body, cpFloat dt) {
    cpBodyUpdatePosition(body, dt);
    cpVect p = cpBodyGetPosition(body);
    cpBodySetPosition(body, cpv(cpfclamp(p.x, gantry_lo, gantry_hi), cpfclamp(p.y, gantry_lo, gantry_hi)));
}

static void table_slide(cpBody *body, cpVect gravity, cpFloat damping, cpFloat dt) {
    const struct table_puck *puck = cpBodyGetUserData(body);
    (void)gravity;
    (void)damping;
    cpVect v = cpBodyGetVelocity(body), downhill = cpvsub(cpv(0.5, 0.5), cpBodyGetPosition(body));
    v = cpvadd(v, cpvmult(downhill, puck->dish * dt));
    cpBodySetVelocity(body, cpvmult(v, exp(-puck->damping * dt)));
}

static int table_puck_number(const struct table *t, const cpBody *body) {
    int i = 0;
    while (i < t->trace->pucks && t->puck[i] != body) i++;
    return i;
}

static cpBool table_bounce(cpArbiter *a, cpSpace *space, cpDataPointer arg) {
    const struct table *t = arg;
    cpShape *first, *second;
    (void)space;
    cpArbiterGetShapes(a, &first, &second);
    double e = cpShapeGetCollisionType(first) == KIND_PUSHER ? 0.6 : 0.9;
    cpArbiterSetRestitution(a, fmin(e * t->knobs->restitution, 1.0));
    return cpTrue;
}

// Only the part of a force that is new makes a sound: a blow rings, a steady push is silent.
static double table_blow(struct table *t, int pair, double impulse) {
    t->now[pair] += impulse;
    return fmax(0, impulse - t->before[pair]);
}

static void table_ring(struct table *t, int puck, double low, double high) {
    t->trace->strike[puck][0][t->step] += (float)low;
    t->trace->strike[puck][1][t->step] += (float)high;
}

static void table_pusher_hits(cpArbiter *a, cpSpace *space, cpDataPointer arg) {
    struct table *t = arg;
    CP_ARBITER_GET_BODIES(a, pusher, body);
    (void)space;
    int puck = table_puck_number(t, body);
    double impulse = cpvlength(cpArbiterTotalImpulse(a));
    cpVect away = cpvnormalize(cpvsub(cpBodyGetPosition(pusher), cpBodyGetPosition(body)));
    float *touch = t->trace->touch + 2 * (t->step * TABLE_TOUCH_HZ / (TABLE_FRAME_HZ * TABLE_STEPS));
    touch[0] += (float)(impulse * away.x);
    touch[1] += (float)(impulse * away.y);
    double blow = table_blow(t, puck, impulse);
    table_ring(t, puck, blow, 0.5 * blow);
}

// A hard wall makes the puck's second mode louder than the pusher's soft rim does.
static void table_wall_hits(cpArbiter *a, cpSpace *space, cpDataPointer arg) {
    struct table *t = arg;
    CP_ARBITER_GET_BODIES(a, body, wall);
    (void)space;
    (void)wall;
    int puck = table_puck_number(t, body);
    double blow = table_blow(t, TABLE_PUCKS_MAX + puck, cpvlength(cpArbiterTotalImpulse(a)));
    table_ring(t, puck, 0.5 * blow, blow);
}

static void table_pucks_hit(cpArbiter *a, cpSpace *space, cpDataPointer arg) {
    struct table *t = arg;
    CP_ARBITER_GET_BODIES(a, one, other);
    (void)space;
    int i = table_puck_number(t, one), k = table_puck_number(t, other);
    int pair = 2 * TABLE_PUCKS_MAX + (i < k ? i * TABLE_PUCKS_MAX + k : k * TABLE_PUCKS_MAX + i);
    double blow = table_blow(t, pair, cpvlength(cpArbiterTotalImpulse(a)));
    table_ring(t, i, 0.8 * blow, 0.8 * blow);
    table_ring(t, k, 0.8 * blow, 0.8 * blow);
}

static void table_handle(struct table *t, int a, int b, cpCollisionPostSolveFunc hits) {
    cpCollisionHandler *h = cpSpaceAddCollisionHandler(t->space, (cpCollisionType)a, (cpCollisionType)b);
    h->preSolveFunc = table_bounce;
    h->postSolveFunc = hits;
    h->userData = t;
}

static cpShape *table_add_shape(struct table *t, cpShape *shape, int kind) {
    cpShapeSetCollisionType(shape, (cpCollisionType)kind);
    return cpSpaceAddShape(t->space, shape);
}

static cpBody *table_add_disc(struct table *t, int number, double mass, double radius, int kind, cpVect at) {
    // Nothing can turn a smooth disc: no rim here has friction.
    cpBody *body = cpSpaceAddBody(t->space, cpBodyNew(mass, INFINITY));
    cpBodySetPosition(body, at);
    t->shape[number] = table_add_shape(t, cpCircleShapeNew(body, radius, cpvzero), kind);
    return body;
}

static void table_add_walls(struct table *t) {
    // Half a table thick, so that nothing passes them in one step.
    static const double ends[4][4] = {
        {-1, -.5, 2, -.5}, {-1, 1.5, 2, 1.5}, {-.5, -1, -.5, 2}, {1.5, -1, 1.5, 2}};
    cpBody *fixed = cpSpaceGetStaticBody(t->space);
    for (int i = 0; i < 4; i++)
        t->shape[1 + TABLE_PUCKS_MAX + i] = table_add_shape(
            t, cpSegmentShapeNew(fixed, cpv(ends[i][0], ends[i][1]), cpv(ends[i][2], ends[i][3]), 0.5),
            KIND_WALL);
}

static void table_draw_puck(struct table *t, struct table_puck *puck) {
    double u = rng_next_range(&t->rng, -1, 1); // of the logarithm of the mass: 0.4 .. 2.5
    puck->mass = t->knobs->mass * exp(u * log(2.5));
    puck->damping = t->knobs->friction * rng_next_range(&t->rng, 0.2, 1.2);
    puck->dish = t->knobs->dish;
    // The material goes with the mass as it was drawn: heavy is low and dull, up to a little chance.
    double pitch = 2.0 - 0.96 * u + 0.1 * rng_next_normal(&t->rng);
    puck->pitch_hz = 220 * exp2(1.1 * pitch);
    puck->decay_s = 0.27 * sqrt(500 / puck->pitch_hz);
}

// A place for a disc that touches nothing placed so far; gives up after some tries (Chipmunk then pushes them
// apart).
static cpVect table_free_place(struct table *t, double radius, const cpVect *taken, const double *radii,
                               int n) {
    cpVect at = cpvzero;
    for (int tries = 0; tries < 64; tries++) {
        at.x = rng_next_range(&t->rng, radius, 1 - radius);
        at.y = rng_next_range(&t->rng, radius, 1 - radius);
        int i = 0;
        while (i < n && cpvdist(at, taken[i]) >= radius + radii[i] + 0.01) i++;
        if (i == n) break;
    }
    return at;
}

static void table_add_discs(struct table *t) {
    cpVect at[1 + TABLE_PUCKS_MAX] = {{0}};
    double radii[1 + TABLE_PUCKS_MAX] = {0};
    for (int i = 0; i <= t->trace->pucks; i++) {
        radii[i] = i ? TABLE_PUCK_RADIUS : TABLE_PUSHER_RADIUS;
        at[i] = table_free_place(t, radii[i], at, radii, i);
    }
    t->pusher = table_add_disc(t, 0, TABLE_PUSHER_MASS, radii[0], KIND_PUSHER, at[0]);
    cpBodySetUserData(t->pusher, t);
    cpBodySetVelocityUpdateFunc(t->pusher, table_drive);
    cpBodySetPositionUpdateFunc(t->pusher, table_gantry_ends);
    for (int i = 0; i < t->trace->pucks; i++) {
        struct table_puck *puck = &t->trace->puck[i];
        table_draw_puck(t, puck);
        t->puck[i] = table_add_disc(t, 1 + i, puck->mass, radii[1 + i], KIND_PUCK, at[1 + i]);
        cpBodySetUserData(t->puck[i], puck);
        cpBodySetVelocityUpdateFunc(t->puck[i], table_slide);
        cpVect v = table_normal2(&t->rng, 0.5);
        if (rng_next_unit(&t->rng) < 0.75f) cpBodySetVelocity(t->puck[i], v);
    }
}

// Debian's Chipmunk greets on stdout when a process makes its first space; stdout is for data.
static cpSpace *table_quiet_space(void) {
    fflush(stdout);
    int keep = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3), null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (keep >= 0 && null >= 0) dup2(null, STDOUT_FILENO);
    cpSpace *space = cpSpaceNew();
    fflush(stdout);
    if (keep >= 0 && null >= 0) dup2(keep, STDOUT_FILENO);
    if (keep >= 0) close(keep);
    if (null >= 0) close(null);
    return space;
}

static void table_set_up(struct table *t) {
    t->space = table_quiet_space();
    cpSpaceSetIterations(t->space, 20);
    cpSpaceSetCollisionSlop(t->space, 0.0005);
    cpSpaceSetCollisionBias(t->space, pow(0.7, TABLE_FRAME_HZ * TABLE_STEPS)); // 30 % of an overlap per step
    table_add_walls(t);
    table_add_discs(t);
    table_handle(t, KIND_PUSHER, KIND_PUCK, table_pusher_hits);
    table_handle(t, KIND_PUCK, KIND_WALL, table_wall_hits);
    table_handle(t, KIND_PUCK, KIND_PUCK, table_pucks_hit);
    // The gantry has its own ends.
    cpShapeSetFilter(t->shape[0], cpShapeFilterNew(CP_NO_GROUP, 1, 2));
    for (int i = 0; i < TABLE_PUCKS_MAX; i++)
        if (t->shape[1 + i]) cpShapeSetFilter(t->shape[1 + i], cpShapeFilterNew(CP_NO_GROUP, 2, 1 | 2 | 4));
    for (int i = 0; i < 4; i++)
        cpShapeSetFilter(t->shape[1 + TABLE_PUCKS_MAX + i], cpShapeFilterNew(CP_NO_GROUP, 4, 2));
    t->drift = table_normal2(&t->rng, 0.6);
}

static void table_take_down(struct table *t) {
    for (size_t i = 0; i < sizeof t->shape / sizeof *t->shape; i++) {
        if (!t->shape[i]) continue;
        cpSpaceRemoveShape(t->space, t->shape[i]);
        cpShapeFree(t->shape[i]);
    }
    for (int i = -1; i < t->trace->pucks; i++) {
        cpBody *body = i < 0 ? t->pusher : t->puck[i];
        cpSpaceRemoveBody(t->space, body);
        cpBodyFree(body);
    }
    cpSpaceFree(t->space);
}

static void table_redraw(struct table *t) {
    float u = rng_next_unit(&t->rng);
    t->behaviour = u < 0.60f ? CHASE : u < 0.92f ? WANDER : STAY;
    t->frames_left = 20 + (int)rng_next_below(&t->rng, 11);
    t->target = (int)rng_next_below(&t->rng, (uint32_t)t->trace->pucks);
}

// A puck that stays in touch and still is pinned to a wall: go away from it for a while, to somewhere in the
// middle.
static void table_notice_pinned(struct table *t) {
    const cpBody *puck = t->puck[t->target];
    double gap = cpvdist(cpBodyGetPosition(puck), cpBodyGetPosition(t->pusher)) - TABLE_PUCK_RADIUS -
                 TABLE_PUSHER_RADIUS;
    t->pinned = gap < 0.02 && cpvlength(cpBodyGetVelocity(puck)) < 0.2 ? t->pinned + 1 : 0;
    if (t->pinned < 3 || t->behaviour != CHASE) return;
    t->behaviour = RETREAT;
    t->frames_left = 5 + (int)rng_next_below(&t->rng, 6);
    t->goal.x = rng_next_range(&t->rng, 0.25, 0.75);
    t->goal.y = rng_next_range(&t->rng, 0.25, 0.75);
}

static cpVect table_command(struct table *t) {
    if (t->frames_left-- <= 0) table_redraw(t);
    table_notice_pinned(t);
    t->drift = cpvadd(cpvmult(t->drift, 0.75), table_normal2(&t->rng, 0.66 * 0.55));
    cpVect p = cpBodyGetPosition(t->pusher), c = t->drift;
    cpVect goal = t->behaviour == CHASE ? cpBodyGetPosition(t->puck[t->target]) : t->goal;
    if (t->behaviour == CHASE || t->behaviour == RETREAT)
        c = cpvadd(cpvmult(cpvnormalize(cpvsub(goal, p)), 0.75), cpvmult(t->drift, 0.45));
    if (t->behaviour == STAY) c = cpvmult(t->drift, 0.1);
    return cpv(cpfclamp(c.x, -1, 1), cpfclamp(c.y, -1, 1));
}

static void table_note_places(const struct table *t, int64_t frame) {
    float *at = t->trace->place + frame * (1 + t->trace->pucks) * 2;
    for (int i = 0; i <= t->trace->pucks; i++) {
        cpVect p = cpBodyGetPosition(i ? t->puck[i - 1] : t->pusher);
        at[2 * i] = (float)p.x;
        at[2 * i + 1] = (float)p.y;
    }
}

static void table_frame(struct table *t, int64_t frame) {
    float *action = t->trace->action;
    cpVect command = table_command(t);
    action[2 * frame] = (float)command.x;
    action[2 * frame + 1] = (float)command.y;
    int64_t acting = frame - (int64_t)t->knobs->latency;
    t->wanted = acting < 0 ? cpvzero : cpv(0.8 * action[2 * acting], 0.8 * action[2 * acting + 1]);
    for (int i = 0; i < TABLE_STEPS; i++, t->step++) {
        memset(t->now, 0, sizeof t->now);
        cpSpaceStep(t->space, STEP_S);
        memcpy(t->before, t->now, sizeof t->now);
    }
    table_note_places(t, frame);
}

static int table_trace_init(struct table_trace *t, int64_t frames, int pucks, struct err *e) {
    memset(t, 0, sizeof *t);
    t->frames = frames;
    t->pucks = pucks;
    size_t n = (size_t)frames;
    t->action = calloc(n * 2, sizeof(float));
    t->place = calloc(n * 2 * (size_t)(1 + pucks), sizeof(float));
    t->touch = calloc(n * 2 * TABLE_TOUCH_HZ / TABLE_FRAME_HZ, sizeof(float));
    int missing = !t->action || !t->place || !t->touch;
    for (int i = 0; i < pucks * TABLE_MODES; i++) {
        float **strike = &t->strike[i / TABLE_MODES][i % TABLE_MODES];
        *strike = calloc(n * TABLE_STEPS, sizeof(float));
        missing |= !*strike;
    }
    if (!missing) return 0;
    table_trace_fini(t);
    return err_set(e, ERR_MEMORY, "no memory for an episode of %lld frames", (long long)frames);
}

void table_trace_fini(struct table_trace *t) {
    if (!t) return;
    free(t->action);
    free(t->place);
    free(t->touch);
    for (int i = 0; i < TABLE_PUCKS_MAX * TABLE_MODES; i++) free(t->strike[i / TABLE_MODES][i % TABLE_MODES]);
    memset(t, 0, sizeof *t);
}

int table_simulate(uint64_t seed, int64_t episode, int64_t frames, const struct table_knobs *knobs,
                   struct table_trace *out, struct err *e) {
    struct table t = {.knobs = knobs, .trace = out};
    int rc = table_trace_init(out, frames, (int)knobs->pucks, e);
    if (rc) return rc;
    rng_stream_init(&t.rng, rng_key(seed, RNG_WORLD, 0), 0, (uint64_t)episode);
    table_set_up(&t);
    for (int64_t f = 0; f < frames; f++) table_frame(&t, f);
    table_take_down(&t);
    return 0;
}
