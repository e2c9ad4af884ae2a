// SPDX-License-Identifier: Apache-2.0
#include "trainer/modality.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "trainer/modality_impl.h"

// In the order of tokens in a frame.
static const struct modality *const modalities[] = {&modality_action, &modality_touch, &modality_audio,
                                                    &modality_video};
enum { MODALITIES = sizeof modalities / sizeof *modalities };

// Nearest whole step; far outside any episode it stays where arithmetic on it is safe.
static int64_t modality_step(double at) {
    const double far = 1099511627776.0; // 2^40
    return (int64_t)floor(fmin(fmax(at, -far), far) + 0.5);
}

struct modality_span modality_span(const struct modality_spec *spec, int64_t frame, int64_t part,
                                   int64_t parts) {
    const struct stream_schema *s = &spec->stream;
    double per_frame = s->rate_hz / spec->frame_hz, origin = -s->t0 * s->rate_hz - per_frame;
    double from = (double)frame + (double)part / (double)parts;
    double to = (double)frame + (double)(part + 1) / (double)parts;
    return (struct modality_span){modality_step(origin + per_frame * from),
                                  modality_step(origin + per_frame * to)};
}

int64_t modality_steps_max(const struct modality_spec *spec, int64_t frames) {
    return modality_step((double)(frames + 2) * spec->stream.rate_hz / spec->frame_hz) + 2;
}

static const struct stream_schema *modality_stream(const char *name, const struct stream_schema *streams,
                                                   int n) {
    for (int i = 0; i < n; i++)
        if (!strcmp(streams[i].modality, name)) return &streams[i];
    return NULL;
}

// Is `name` an item of the comma-separated list? Blanks around items do not count.
static bool modality_listed(const char *list, const char *name, size_t length) {
    while (*list) {
        list += strspn(list, ", ");
        size_t item = strcspn(list, ", ");
        if (item == length && !memcmp(list, name, length)) return true;
        list += item;
    }
    return false;
}

static int modality_unknown(const char *name, size_t length, struct err *e) {
    char known[256] = "";
    size_t used = 0;
    for (int i = 0; i < MODALITIES && used < sizeof known; i++)
        used +=
            (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", modalities[i]->name);
    return err_set(e, ERR_CONFIG, "model.modalities: unknown sense '%.*s'; known: %s",
                   (int)(length < 64 ? length : 64), name, known);
}

static int modality_check_list(const char *list, struct err *e) {
    bool met[MODALITIES] = {false};
    for (const char *p = list; *p; p += strcspn(p, ", ")) {
        p += strspn(p, ", ");
        size_t length = strcspn(p, ", ");
        int i = 0;
        while (i < MODALITIES &&
               !(strlen(modalities[i]->name) == length && !memcmp(modalities[i]->name, p, length)))
            i++;
        if (length && i == MODALITIES) return modality_unknown(p, length, e);
        if (length && met[i])
            return err_set(e, ERR_CONFIG, "model.modalities: '%s' stands there twice", modalities[i]->name);
        if (length) met[i] = true;
    }
    return 0;
}

static int modality_lacks(const struct config *c, const char *name, const struct stream_schema *streams,
                          int n, struct err *e) {
    char has[512] = "";
    size_t used = 0;
    for (int i = 0; i < n && used < sizeof has; i++)
        used += (size_t)snprintf(has + used, sizeof has - used, "%s%s", i ? "," : "", streams[i].modality);
    return err_set(
        e, ERR_CONFIG,
        "the data set has no stream for '%s': model.modalities is %s, the data has %s; take it out of "
        "model.modalities, or train on other data",
        name, c->model_modalities, has[0] ? has : "none");
}

static void modality_derive(struct modality_spec *spec, const struct modality *m, const struct config *c) {
    const struct patch_grid *g = &spec->grid;
    spec->modality = m;
    spec->frame_hz = c->data_rate_hz;
    spec->frame_elems = patch_grid_frame(g);
    spec->tokens = patch_grid_tokens(g);
    spec->value_width = patch_grid_value(g);
    spec->history = m->is_action ? 0 : (int)c->model_history;
    spec->seen_width = m->is_action ? 0 : patch_grid_seen(g);
}

static int modality_add(struct modality_set *set, const struct config *c, const struct modality *m,
                        const struct stream_schema *stream, struct err *e) {
    struct modality_spec *spec = &set->spec[set->n];
    if (stream) spec->stream = *stream;
    int rc = m->specify(c, stream, spec, e);
    if (rc) return rc;
    modality_derive(spec, m, c);
    int64_t slots = (int64_t)(sizeof set->slot_modality / sizeof *set->slot_modality);
    if (spec->tokens > slots - set->tokens_per_frame)
        return err_set(e, ERR_CONFIG, "a frame has more than %lld tokens; take larger patches",
                       (long long)slots);
    if (m->is_action) set->action = set->n;
    set->slot_first[set->n] = set->tokens_per_frame;
    for (int64_t i = 0; i < spec->tokens; i++) set->slot_modality[set->tokens_per_frame++] = set->n;
    set->n++;
    return 0;
}

int modality_set_init(struct modality_set *out, const struct config *c, const struct stream_schema *streams,
                      int n_streams, struct err *e) {
    memset(out, 0, sizeof *out);
    out->action = -1;
    int rc = modality_check_list(c->model_modalities, e);
    for (int i = 0; i < MODALITIES && !rc; i++) {
        const struct modality *m = modalities[i];
        if (!modality_listed(c->model_modalities, m->name, strlen(m->name))) continue;
        const struct stream_schema *stream = modality_stream(m->name, streams, n_streams);
        if (streams && !stream) return modality_lacks(c, m->name, streams, n_streams, e);
        rc = modality_add(out, c, m, stream, e);
    }
    if (!rc && out->n == 0) rc = err_set(e, ERR_CONFIG, "model.modalities is empty; the model needs a sense");
    return rc;
}
