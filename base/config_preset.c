// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>

#include "base/config_rows.h"

#define PRESET_KEYS 5

static const char *const preset_keys[PRESET_KEYS] = {"model.width", "model.layers", "model.head_dim",
                                                     "model.kv_heads", "model.cond_width"};

static const struct {
    const char *name;
    int64_t values[PRESET_KEYS];
} presets[] = {
#define CONFIG_PRESET(name, width, layers, head_dim, kv_heads, cond_width)                                   \
    [CONFIG_model_preset_##name] = {#name, {width, layers, head_dim, kv_heads, cond_width}},
#include "configs/presets.def"
};

int config_preset_apply(struct config_file *f, config_yields_fn *yields, struct err *e) {
    char where[CONFIG_NAME_BYTES];
    int word = f->values.model_preset;
    if (word == CONFIG_model_preset_none) return 0;
    snprintf(where, sizeof where, "preset %s", presets[word].name);
    for (int k = 0; k < PRESET_KEYS; k++) {
        const struct config_row *row = config_rows_named(preset_keys[k]);
        if (!yields(f->origin[row - config_rows])) continue;
        *(int64_t *)((char *)&f->values + row->offset) = presets[word].values[k];
        int rc = config_set_origin(f, row, where, e);
        if (rc) return rc;
    }
    return 0;
}
