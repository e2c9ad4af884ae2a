// SPDX-License-Identifier: Apache-2.0
// Option parsing for the verbs: long options ("--ranks 4", "--ranks=4"), one-letter forms, words and
// key=value overrides in any order, "--" ends the options. Makes the text of --help from the same table.
#ifndef ORRERY_LAUNCHER_OPTS_H
#define ORRERY_LAUNCHER_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "launcher/cmd.h"

enum opt_kind { OPT_FLAG, OPT_TEXT, OPT_INT };

struct opt {
    const char *name; // without the dashes
    char letter;      // 0: none
    enum opt_kind kind;
    const char *value; // word for the value in the help, "N"
    const char *help;
    void *into;     // bool, const char * or int64_t; stays as it was when the option is absent
    int64_t lo, hi; // OPT_INT: inclusive
};

#define OPTS_WORDS_MAX 256

// What stands beside the options; the strings are argv's own.
struct opts_rest {
    const char *words[OPTS_WORDS_MAX]; // positional
    size_t n_words;
    const char *overrides[OPTS_WORDS_MAX]; // key=value
    size_t n_overrides;
    bool help; // --help was given: the help is on stdout, nothing else to do
};

// Fills the variables of `table`. Fewer than least_words or more than most_words positional words are a USAGE
// error. Every message says what to type instead.
int opts_parse(const struct cmd *self, int argc, char **argv, const struct opt *table, size_t n_table,
               size_t least_words, size_t most_words, struct opts_rest *rest, struct err *e) ERR_CHECK;

// Positional word i; NULL when there are fewer.
const char *opts_word(const struct opts_rest *rest, size_t i);

#define OPTS_COUNT(table) (sizeof(table) / sizeof *(table))

// The nearest of n words, or NULL when none is near enough to be a slip of the hand.
const char *opts_nearest(const char *word, const char *const *words, size_t n);

#endif
