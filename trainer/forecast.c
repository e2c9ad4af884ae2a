// SPDX-License-Identifier: Apache-2.0
#include "trainer/forecast.h"

static int predict(void *arg, const struct model_input *in, float *const *pred, struct err *e) {
    struct forecast *f = arg;
    return model_predict(f->model, in, pred, e);
}

static int decode(void *arg, int64_t window, int64_t at, const struct model_input *in, float *const *pred,
                  struct err *e) {
    struct forecast *f = arg;
    if (!f->cache || f->sequences != in->sequences || f->window != window) {
        forecast_fini(f);
        int rc = model_cache_create(&f->cache, f->model, in->sequences, window, e);
        if (rc) return rc;
        f->sequences = in->sequences;
        f->window = window;
    }
    return model_decode(f->cache, at, in, pred, e);
}

struct predictor forecast_predictor(struct forecast *f) {
    return (struct predictor){.predict = predict,
                              .model = f,
                              .decode = model_can_decode(f->model) ? decode : NULL,
                              .history = model_history(f->model)};
}

void forecast_fini(struct forecast *f) {
    model_cache_destroy(f->cache);
    f->cache = NULL;
}
