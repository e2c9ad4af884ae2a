// SPDX-License-Identifier: Apache-2.0
// orrery: what a person types. Finds the verb, prints the error, makes the exit code.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/process.h"
#include "launcher/cmd.h"
#include "launcher/opts.h"

static const struct cmd verbs[] = {
#define GROUP(title)           {NULL, NULL, title, NULL},
#define CMD(name, usage, help) {#name, usage, help, cmd_##name},
#include "launcher/verbs.def"
#undef CMD
#undef GROUP
};
#define VERBS (sizeof verbs / sizeof *verbs)

static int print_overview(void) {
    printf("Orrery trains world models: video, audio, touch and action in one transformer, on one machine or "
           "many.\n\n"
           "usage: orrery VERB ...\n\n");
    for (size_t i = 0; i < VERBS; i++) {
        if (!verbs[i].name) printf("%s%s:\n", i ? "\n" : "", verbs[i].help);
        if (verbs[i].usage) printf("  %-10s %s\n", verbs[i].name, verbs[i].help);
    }
    printf("\n'orrery VERB --help' tells more. A first session: ./demo.sh\n");
    return 0;
}

static const struct cmd *find_verb(const char *name) {
    for (size_t i = 0; i < VERBS; i++)
        if (verbs[i].name && !strcmp(verbs[i].name, name)) return &verbs[i];
    return NULL;
}

// What other programs call it.
static const char *alias_of(const char *name) {
    static const char *const known[][2] = {{"train", "run"},  {"start", "run"}, {"resume", "run"},
                                           {"status", "top"}, {"list", "ps"},   {"generate", "simulate"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i][0], name)) return known[i][1];
    return NULL;
}

static int unknown_verb(const char *name, struct err *e) {
    const char *names[VERBS];
    size_t n = 0;
    for (size_t i = 0; i < VERBS; i++)
        if (verbs[i].usage) names[n++] = verbs[i].name;
    if (name[0] == '-')
        return err_set(e, ERR_USAGE, "'%s': a verb comes first, its options after it; see: orrery --help",
                       name);
    const char *near = alias_of(name);
    if (!near) near = opts_nearest(name, names, n);
    if (near)
        return err_set(e, ERR_USAGE, "unknown verb '%s'; did you mean '%s'? See: orrery --help", name, near);
    return err_set(e, ERR_USAGE, "unknown verb '%s'; see: orrery --help", name);
}

static int dispatch_verb(int argc, char **argv, struct err *e) {
    const struct cmd *verb = find_verb(strcmp(argv[1], "--version") != 0 ? argv[1] : "version");
    if (!verb) return unknown_verb(argv[1], e);
    return verb->run(verb, argc - 1, argv + 1, e);
}

static int dispatch(int argc, char **argv, struct err *e) {
    if (argc < 2) {
        print_overview();
        return err_set(e, ERR_USAGE, "a verb is missing; see: orrery --help");
    }
    char help[] = "--help", *of_verb[] = {argv[0], argc > 2 ? argv[2] : NULL, help, NULL};
    bool wants_help = !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help");
    if (wants_help && argc == 2) return print_overview();
    if (wants_help) return dispatch_verb(3, of_verb, e); // "help run"
    return dispatch_verb(argc, argv, e);
}

// One prefix only: what is wrong in a config stands as a compiler would say it, "demo.yaml:7:3: error: ...".
static void print_error(const struct err *e) {
    bool placed = e->code == ERR_CONFIG && strstr(e->text, ": error: ");
    fprintf(stderr, "%s%s\n", placed ? "" : "orrery: error: ", e->text);
}

// `orrery ... | head`: who reads has had enough.
static bool reader_is_gone(void) {
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&out, 1, 0) > 0 && (out.revents & POLLERR);
}

// Returns the status, or the error of an output that was not written.
static int finish_output(int status, struct err *e) {
    bool flushed = fflush(stdout) == 0;
    int number = flushed ? 0 : errno;
    if ((flushed && !ferror(stdout)) || status < 0 || reader_is_gone()) return status;
    // It failed earlier, and errno has moved on: a descriptor that cannot be written at all says so again.
    if (!number && write(STDOUT_FILENO, "", 0) < 0) number = errno;
    if (!number) return err_set(e, ERR_IO, "cannot write all of the output; is the disk full?");
    return err_errno(e, number, "cannot write the output");
}

int main(int argc, char **argv) {
    struct err e = {0};
    process_begin();
    signal(SIGPIPE, SIG_IGN);
    int status = finish_output(dispatch(argc, argv, &e), &e);
    if (status >= 0) return status;
    print_error(&e);
    return err_exit_code(e.code ? e.code : (enum err_code)(-status));
}
