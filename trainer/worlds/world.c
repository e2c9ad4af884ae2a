// SPDX-License-Identifier: Apache-2.0
#include "trainer/worlds/world.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

extern const struct world world_table;

static const struct world *const worlds[] = {&world_table};

const struct world *world_at(size_t i) {
    return i < sizeof worlds / sizeof *worlds ? worlds[i] : NULL;
}

const struct world *world_find(const char *name) {
    for (size_t i = 0; world_at(i); i++)
        if (!strcmp(world_at(i)->name, name)) return world_at(i);
    return NULL;
}

static int world_knob_list(const struct world *w, char *out, size_t cap) {
    size_t used = 0;
    for (size_t i = 0; i < w->n_knobs && used < cap; i++)
        used += (size_t)snprintf(out + used, cap - used, "%s%s", i ? ", " : "", w->knobs[i].name);
    return 0;
}

static int world_set_knob(const struct world *w, const char *text, size_t length, double *values,
                          struct err *e) {
    char item[128], known[512];
    double v;
    if (length >= sizeof item)
        return err_set(e, ERR_CONFIG, "sim.knobs: an item of %zu bytes is too long", length);
    memcpy(item, text, length);
    item[length] = 0;
    char *equals = strchr(item, '=');
    if (!equals) return err_set(e, ERR_CONFIG, "sim.knobs: '%s' is not name=value", item);
    *equals = 0;
    size_t i = 0;
    while (i < w->n_knobs && strcmp(w->knobs[i].name, item) != 0) i++;
    if (i == w->n_knobs) {
        world_knob_list(w, known, sizeof known);
        return err_set(e, ERR_CONFIG, "sim.knobs: world %s has no knob '%s'; it has: %s", w->name, item,
                       known);
    }
    if (!bytes_parse_f64(equals + 1, &v))
        return err_set(e, ERR_CONFIG, "sim.knobs: '%s' of %s is not a number", equals + 1, item);
    if (!(v >= w->knobs[i].lo && v <= w->knobs[i].hi))
        return err_set(e, ERR_CONFIG, "sim.knobs: %s = %g is outside %g .. %g", item, v, w->knobs[i].lo,
                       w->knobs[i].hi);
    if (w->knobs[i].whole && v != floor(v))
        return err_set(e, ERR_CONFIG, "sim.knobs: %s = %g is no whole number", item, v);
    values[i] = v;
    return 0;
}

int world_parse_knobs(const struct world *w, const char *text, double *values, struct err *e) {
    for (size_t i = 0; i < w->n_knobs; i++) values[i] = w->knobs[i].value;
    while (*text) {
        size_t length = strcspn(text, ",");
        int rc = world_set_knob(w, text, length, values, e);
        if (rc) return rc;
        text += length + (text[length] == ',');
    }
    return 0;
}

void world_episode_fini(struct world_episode *ep) {
    if (!ep) return;
    for (int i = 0; i < ep->n; i++) buf_fini(&ep->members[i].bytes);
    memset(ep, 0, sizeof *ep);
}
