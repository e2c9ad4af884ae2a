// SPDX-License-Identifier: Apache-2.0
// "URL 3, URL 1": several data sets by weight, as data.train names them. A comma with a blank behind it parts
// them: a comma alone may stand in a URL.
#include <string.h>

#include "storage/dataset.h"

static const char *skip_blanks(const char *p) {
    return p + strspn(p, " \t\n");
}

// Bytes up to the comma that ends an item, or to the end.
static size_t item_bytes(const char *from) {
    size_t n = 0;
    while (from[n] && !(from[n] == ',' && strchr(" \t\n", from[n + 1]))) n++;
    return n;
}

bool dataset_list_next(const char **at, struct dataset_item *out) {
    const char *from = skip_blanks(*at);
    size_t n = item_bytes(from);
    memset(out, 0, sizeof *out);
    if (!*from) return false;
    *at = from + n + (from[n] == ',');
    while (n && strchr(" \t\n", from[n - 1])) n--;
    if (n >= sizeof out->url) n = sizeof out->url - 1;
    memcpy(out->url, from, n);
    char *blank = strrchr(out->url, ' ');
    if (blank && bytes_parse_f64(blank + 1, &out->weight)) {
        out->weighted = true;
        while (blank > out->url && blank[-1] == ' ') blank--;
        *blank = 0;
    }
    return true;
}

bool dataset_is_remote(const char *text) {
    struct dataset_item item;
    if (!dataset_is_list(text)) return store_is_remote(text);
    while (dataset_list_next(&text, &item))
        if (store_is_remote(item.url)) return true;
    return false;
}

bool dataset_is_list(const char *text) {
    struct dataset_item item;
    return text[item_bytes(text)] || (dataset_list_next(&text, &item) && item.weighted);
}
