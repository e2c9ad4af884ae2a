// SPDX-License-Identifier: Apache-2.0
// Action: the command that acted in a frame's interval (the mean, where there were several), over the
// stream's scale so that it is O(1). One token.
#include "trainer/media_npy.h"
#include "trainer/modality_impl.h"

static int action_specify(const struct config *c, const struct stream_schema *s, struct modality_spec *out,
                          struct err *e) {
    if (s && (s->rank != 1 || s->shape[0] != c->action_width))
        return err_set(e, ERR_CONFIG, "action.width is %lld, but the data's commands have %lld numbers",
                       (long long)c->action_width, (long long)(s->rank == 1 ? s->shape[0] : 0));
    out->loss_weight = c->action_weight;
    out->grid = (struct patch_grid){1, 1, (int32_t)c->action_width, 1, 0};
    return 0;
}

static void action_frame(const struct modality_spec *spec, const float *data, int64_t steps, int64_t frame,
                         float *out, unsigned char *valid) {
    struct modality_span span = modality_span(spec, frame, 0, 1);
    int64_t width = spec->frame_elems, from = span.from < 0 ? 0 : span.from,
            to = span.to > steps ? steps : span.to;
    double scale = spec->stream.scale > 0 ? spec->stream.scale : 1;
    *valid = from < to;
    for (int64_t i = from; i < to; i++)
        for (int64_t k = 0; k < width; k++) out[k] += data[i * width + k];
    for (int64_t k = 0; k < width && from < to; k++) out[k] = (float)(out[k] / ((double)(to - from) * scale));
}

static int action_decode(const struct modality_spec *spec, const void *bytes, size_t n, int64_t frames,
                         void *cells, unsigned char *valid, struct err *e) {
    struct media_npy a;
    float *out = cells;
    int rc = media_npy_read(bytes, n, modality_steps_max(spec, frames) * spec->frame_elems, &a, e);
    if (rc) return rc;
    if (a.rank != 2 || a.shape[1] != spec->frame_elems)
        rc = err_set(e, ERR_DATA, "action is not [steps, %lld]", (long long)spec->frame_elems);
    if (!rc) rc = media_npy_check_finite(&a, e);
    for (int64_t f = 0; f < frames && !rc; f++)
        action_frame(spec, a.data, a.shape[0], f, out + f * spec->frame_elems, valid + f);
    media_npy_fini(&a);
    return rc;
}

const struct modality modality_action = {
    .name = "action",
    .is_action = true,
    .cell = sizeof(float),
    .specify = action_specify,
    .decode = action_decode,
};
