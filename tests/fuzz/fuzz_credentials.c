// SPDX-License-Identifier: Apache-2.0
// What credentials are read from, on any bytes: a shared file, the JSON of a metadata service or of a
// program, a command line. What is accepted can stand in an HTTP header; what is refused is said without a
// word of it.
#include <stdlib.h>
#include <string.h>

#include "storage/creds_source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char *text_of(const uint8_t *data, size_t n) {
    char *text = malloc(n + 1);
    if (!text) abort();
    memcpy(text, data, n);
    text[n] = 0;
    return text;
}

static void check_accepted(const struct creds_set *s) {
    const char *all[] = {s->access_key, s->secret_key, s->session_token};
    for (int i = 0; i < 3; i++)
        for (const char *p = all[i]; *p; p++)
            if (*p <= ' ' || *p > '~') abort();
    if (!s->access_key[0] || !s->secret_key[0]) abort();
}

static void as_profile(struct creds_set *set, const uint8_t *data, size_t n, bool named) {
    char *text = text_of(data, n);
    struct err e = {0};
    struct creds_profile p = {.name = "default"};
    creds_read_profile(text, named, &p);
    if (p.access && !p.found) abort();
    if (!creds_set_fill(set, p.access, p.secret, p.token, "a test", &e))
        check_accepted(set);
    else if (!e.text[0] || (e.code != ERR_DENIED && e.code != ERR_CONFIG))
        abort();
    free(text);
}

static void as_json(struct creds_set *set, const uint8_t *data, size_t n) {
    char *text = text_of(data, n);
    struct err e = {0};
    if (!creds_from_json(text, "a test", set, &e))
        check_accepted(set);
    else if (!e.text[0])
        abort();
    free(text);
}

static void as_command(const uint8_t *data, size_t n) {
    char *text = text_of(data, n), **words = creds_split(text);
    size_t total = 0;
    for (size_t i = 0; words && words[i]; i++) total += strlen(words[i]);
    if (words && (!words[0] || total > strlen(text))) abort();
    free(words);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct creds_set *set = creds_set_create();
    if (!set) abort();
    as_profile(set, data, n, false);
    as_profile(set, data, n, true);
    as_json(set, data, n);
    as_command(data, n);
    creds_set_destroy(set);
    return 0;
}
