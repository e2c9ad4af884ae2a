// SPDX-License-Identifier: Apache-2.0
#include "launcher/opts.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

#define WORD_BYTES 64
#define TABLE_MAX  64
#define SHORT_WORD 6 // two slips in a word below this make any other one

static size_t least_of(size_t a, size_t b, size_t c) {
    size_t m = a < b ? a : b;
    return m < c ? m : c;
}

// Levenshtein distance by rows, two letters that changed places being one slip.
static size_t distance(const char *a, const char *b) {
    size_t n = strlen(b);
    size_t rows[3][WORD_BYTES + 1];
    if (strlen(a) > WORD_BYTES || n > WORD_BYTES) return WORD_BYTES;
    for (size_t j = 0; j <= n; j++) rows[0][j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *over = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            row[j] = least_of(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && over[j - 2] + 1 < row[j]) row[j] = over[j - 2] + 1;
        }
    }
    return rows[strlen(a) % 3][n];
}

const char *opts_nearest(const char *word, const char *const *words, size_t n) {
    const char *best = NULL;
    size_t length = strlen(word);
    size_t best_distance = (length < SHORT_WORD ? 1 : length / 3) + 1;
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(word, words[i]);
        if (d < best_distance) {
            best_distance = d;
            best = words[i];
        }
    }
    return best;
}

static void print_help(const struct cmd *self, const struct opt *table, size_t n_table) {
    printf("usage: orrery %s%s%s\n\n%s\n", self->name, self->usage && *self->usage ? " " : "",
           self->usage ? self->usage : "", self->help);
    printf("\noptions:\n");
    for (size_t i = 0; i < n_table; i++) {
        char left[WORD_BYTES];
        char letter[8] = "";
        if (table[i].letter) snprintf(letter, sizeof letter, "-%c, ", table[i].letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, table[i].name, table[i].value ? " " : "",
                 table[i].value ? table[i].value : "");
        printf("  %-22s %s\n", left, table[i].help);
    }
    printf("  %-22s %s\n", "--help", "this text");
}

static int unknown_option(const struct cmd *self, const char *arg, const struct opt *table, size_t n_table,
                          struct err *e) {
    const char *names[TABLE_MAX];
    char bare[WORD_BYTES];
    size_t n = n_table < TABLE_MAX ? n_table : TABLE_MAX;
    for (size_t i = 0; i < n; i++) names[i] = table[i].name;
    snprintf(bare, sizeof bare, "%.*s", (int)strcspn(arg, "="), arg);
    const char *near = opts_nearest(bare + strspn(bare, "-"), names, n);
    if (near)
        return err_set(e, ERR_USAGE, "unknown option '%s'; did you mean '--%s'? See: orrery %s --help", bare,
                       near, self->name);
    return err_set(e, ERR_USAGE, "unknown option '%s'; see: orrery %s --help", bare, self->name);
}

static const struct opt *find_option(const char *arg, const struct opt *table, size_t n_table) {
    size_t n = strcspn(arg, "=");
    for (size_t i = 0; i < n_table; i++) {
        if (arg[1] == '-' && strlen(table[i].name) == n - 2 && !memcmp(table[i].name, arg + 2, n - 2))
            return &table[i];
        if (arg[1] != '-' && n == 2 && table[i].letter == arg[1]) return &table[i];
    }
    return NULL;
}

static int store_value(const struct cmd *self, const struct opt *o, const char *value, struct err *e) {
    int64_t number;
    if (o->kind == OPT_TEXT) {
        *(const char **)o->into = value;
        return 0;
    }
    if (!bytes_parse_i64(value, &number))
        return err_set(e, ERR_USAGE, "--%s needs a whole number, not '%s'; see: orrery %s --help", o->name,
                       value, self->name);
    if (number < o->lo || number > o->hi)
        return err_set(e, ERR_USAGE, "--%s must be between %lld and %lld, not %lld", o->name,
                       (long long)o->lo, (long long)o->hi, (long long)number);
    *(int64_t *)o->into = number;
    return 0;
}

// One option at argv[*i]; moves *i over a value that stands in the next argument.
static int take_option(const struct cmd *self, int argc, char **argv, int *i, const struct opt *table,
                       size_t n_table, struct err *e) {
    const char *arg = argv[*i];
    const char *equals = strchr(arg, '=');
    const struct opt *o = find_option(arg, table, n_table);
    if (!o) return unknown_option(self, arg, table, n_table, e);
    if (o->kind == OPT_FLAG) {
        if (equals) return err_set(e, ERR_USAGE, "--%s takes no value", o->name);
        *(bool *)o->into = true;
        return 0;
    }
    if (equals) return store_value(self, o, equals + 1, e);
    if (*i + 1 >= argc)
        return err_set(e, ERR_USAGE, "--%s needs a value: --%s %s", o->name, o->name, o->value);
    return store_value(self, o, argv[++*i], e);
}

// "a.b=c": a path or URL that happens to hold a '=' has a '/' or ':' before it.
static bool is_override(const char *arg) {
    size_t n = strspn(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");
    return n > 0 && arg[n] == '=';
}

static int take_word(const char *arg, struct opts_rest *rest, struct err *e) {
    bool override = is_override(arg);
    size_t *n = override ? &rest->n_overrides : &rest->n_words;
    const char **list = override ? rest->overrides : rest->words;
    if (*n == OPTS_WORDS_MAX) return err_set(e, ERR_USAGE, "more than %d arguments", OPTS_WORDS_MAX);
    list[(*n)++] = arg;
    return 0;
}

static int unexpected(const struct cmd *self, const char *word, struct err *e) {
    bool is_key =
        strchr(word, '.') && !strchr(word, '/') && strstr(self->usage ? self->usage : "", "key.path=value");
    if (is_key)
        return err_set(e, ERR_USAGE, "unexpected argument '%s'; a key wants a value: %s=VALUE", word, word);
    return err_set(e, ERR_USAGE, "unexpected argument '%s'; usage: orrery %s %s", word, self->name,
                   self->usage ? self->usage : "");
}

static bool wants_help(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return true;
    return false;
}

int opts_parse(const struct cmd *self, int argc, char **argv, const struct opt *table, size_t n_table,
               size_t least_words, size_t most_words, struct opts_rest *rest, struct err *e) {
    bool options_over = false;
    memset(rest, 0, sizeof *rest);
    if (wants_help(argc, argv)) {
        print_help(self, table, n_table);
        rest->help = true;
        return 0;
    }
    for (int i = 1; i < argc; i++) {
        int rc = 0;
        if (!options_over && !strcmp(argv[i], "--"))
            options_over = true;
        else if (!options_over && argv[i][0] == '-' && argv[i][1])
            rc = take_option(self, argc, argv, &i, table, n_table, e);
        else
            rc = take_word(argv[i], rest, e);
        if (rc) return rc;
    }
    if (rest->n_words < least_words)
        return err_set(e, ERR_USAGE, "an argument is missing; usage: orrery %s %s", self->name,
                       self->usage ? self->usage : "");
    if (rest->n_words > most_words) return unexpected(self, rest->words[most_words], e);
    return 0;
}

const char *opts_word(const struct opts_rest *rest, size_t i) {
    return i < rest->n_words ? rest->words[i] : NULL;
}
