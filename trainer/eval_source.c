// SPDX-License-Identifier: Apache-2.0
#include "trainer/eval_source.h"

#include <string.h>

#include "base/json.h"
#include "trainer/media_npy.h"

#define STATE_ELEMS_MAX ((int64_t)1 << 24)

// ---- a data set as a source.
static int64_t data_frames(void *arg, int64_t episode) {
    struct dataset_sample s;
    dataset_sample(data_dataset(arg), episode, &s);
    return s.frames;
}

static int data_cut(void *arg, const int64_t *episode, const int64_t *first_frame, int64_t count,
                    int64_t frames, struct batch *out, struct err *e) {
    return data_window(arg, episode, first_frame, count, frames, out, e);
}

static void read_object(const struct json_value *v, struct baseline_objects *out) {
    out->channel[out->n] = strcmp(json_string_or(v, "kind", ""), "pusher") == 0 ? 0 : 1;
    out->radius[out->n++] = json_double_or(v, "radius", 0);
}

// Kinds and radii from the metadata; where the table lies in the picture from the camera's offset.
static int read_metadata(const struct sample *s, struct baseline_objects *out, struct err *e) {
    const struct sample_member *m = sample_find(s, "json");
    struct json *doc = NULL;
    if (!m) return 0;
    int rc = json_parse(&doc, m->data, m->bytes, "sample metadata", e);
    if (rc) return rc;
    const struct json_value *simulator = json_get(json_root(doc), "simulator");
    const struct json_value *list = json_get(simulator, "objects"), *knobs = json_get(simulator, "knobs");
    if (json_size(list) <= BASELINE_OBJECTS_MAX)
        for (size_t i = 0; i < json_size(list); i++) read_object(json_at(list, i), out);
    const char *const camera[2] = {"camera_x", "camera_y"};
    for (int k = 0; k < 2; k++) {
        out->lo[k] = -json_double_or(knobs, camera[k], 0);
        out->hi[k] = out->lo[k] + 1;
    }
    json_destroy(doc);
    return 0;
}

static int read_state(const struct sample *s, int64_t now, struct baseline_objects *out, struct err *e) {
    const struct sample_member *m = sample_find(s, "state.npy");
    struct media_npy a = {0};
    if (!m) {
        out->n = 0;
        return 0;
    }
    int rc = media_npy_read(m->data, m->bytes, STATE_ELEMS_MAX, &a, e);
    if (rc) return rc;
    if (a.rank != 3 || a.shape[0] <= now || a.shape[1] != out->n || a.shape[2] != 2)
        rc = err_set(e, ERR_DATA, "state.npy does not fit the sample's objects and frames");
    for (int i = 0; i < out->n && !rc; i++)
        for (int k = 0; k < 2; k++) {
            out->now[i][k] = (double)a.data[(now * out->n + i) * 2 + k] + out->lo[k];
            out->before[i][k] = (double)a.data[((now - 1) * out->n + i) * 2 + k] + out->lo[k];
        }
    media_npy_fini(&a);
    return rc;
}

static int data_objects(void *arg, int64_t episode, int64_t now, struct baseline_objects *out,
                        struct err *e) {
    struct sample s = {0};
    *out = (struct baseline_objects){0};
    int rc = dataset_read(data_dataset(arg), episode, &s, e);
    if (rc) return rc;
    rc = read_metadata(&s, out, e);
    if (!rc && out->n > 0) rc = read_state(&s, now, out, e);
    if (rc) err_prefix(e, "episode %lld", (long long)episode);
    sample_fini(&s);
    return rc;
}

static bool has_objects(const struct data *d) {
    const struct modality_set *set = data_modalities(d);
    const struct stream_schema *streams;
    int n = dataset_streams(data_dataset(d), &streams);
    bool state = false, channels = false;
    for (int i = 0; i < n; i++) state = state || strcmp(streams[i].modality, "state") == 0;
    for (int m = 0; m < set->n; m++)
        channels = channels ||
                   (strcmp(set->spec[m].modality->name, "video") == 0 && set->spec[m].grid.channels == 2);
    return state && channels;
}

void eval_source_data(struct eval_source *out, struct data *d) {
    *out = (struct eval_source){.arg = d,
                                .episodes = dataset_samples(data_dataset(d)),
                                .frames = data_frames,
                                .window = data_cut,
                                .objects = has_objects(d) ? data_objects : NULL};
}
