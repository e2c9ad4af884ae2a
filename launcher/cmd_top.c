// SPDX-License-Identifier: Apache-2.0
// orrery top RUN: a live view on a terminal; with --once, --json or without a terminal one look as text.
#include <curses.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launcher/opts.h"
#include "launcher/top.h"

#define TEXT_BYTES ((size_t)32 << 20)
#define TICK_MS    1000
#define CTRL_C     3
#define PAGE       10

static int print_once(struct top *t, bool json, struct err *e) {
    struct buf text;
    buf_init(&text, TEXT_BYTES);
    int rc = top_look(t, e);
    if (!rc) rc = json ? top_json(t, &text, e) : top_text(t, &text, e);
    if (!rc) printf("%s%s", text.data, json ? "\n" : "");
    buf_fini(&text);
    return rc;
}

// ---- on a terminal

struct screen {
    struct top *top;
    int scroll; // ranks above the window
    bool quit;
    struct buf text;
};

static void paint_line(int row, const char *line, size_t n) {
    bool loud = n && line[0] == '!';
    if (loud) attron(A_BOLD);
    mvaddnstr(row, 0, line, (int)(n < (size_t)COLS ? n : (size_t)COLS));
    if (loud) attroff(A_BOLD);
}

static void paint(struct screen *s) {
    int line = 0, row = 0, head = s->top->head_lines;
    erase();
    for (const char *at = s->text.data; at && *at && row < LINES - 1; line++) {
        size_t n = strcspn(at, "\n");
        bool shown = line < head || line >= head + s->scroll;
        if (shown) paint_line(row++, at, n);
        at += n + (at[n] == '\n');
    }
    if (LINES > 1) mvaddnstr(LINES - 1, 0, "q quits, s sorts by lateness, arrows scroll", COLS);
    refresh();
}

// What cannot be read now may be there a moment later: a run that starts, or changes attempts.
static int look(struct screen *s, struct err *e) {
    struct err passing = {0};
    buf_clear(&s->text);
    if (!top_look(s->top, &passing)) return top_text(s->top, &s->text, e);
    s->top->head_lines = 1;
    return buf_appendf(&s->text, e, "!%.500s\n", passing.text);
}

static void obey(struct screen *s, int key) {
    int last = s->top->why.n > 0 ? s->top->why.n - 1 : 0;
    switch (key) {
    case 'q':
    case CTRL_C: s->quit = true; break;
    case 's': s->top->by_lateness = !s->top->by_lateness; break;
    case KEY_UP: s->scroll--; break;
    case KEY_DOWN: s->scroll++; break;
    case KEY_PPAGE: s->scroll -= PAGE; break;
    case KEY_NPAGE: s->scroll += PAGE; break;
    default: break;
    }
    if (s->scroll > last) s->scroll = last;
    if (s->scroll < 0) s->scroll = 0;
}

static int show_live(struct top *t, struct err *e) {
    struct screen s = {.top = t};
    buf_init(&s.text, TEXT_BYTES);
    SCREEN *terminal = newterm(NULL, stdout, stdin);
    if (!terminal)
        return err_set(e, ERR_UNAVAILABLE,
                       "this terminal (TERM=%.40s) is not known here; try: orrery top %.200s --once",
                       getenv("TERM") ? getenv("TERM") : "", t->run.given);
    raw(); // Ctrl-C comes as a key, so that the terminal is put back in order
    noecho();
    keypad(stdscr, TRUE);
    curs_set(0);
    timeout(TICK_MS);
    int rc = 0;
    while (!rc && !s.quit) {
        rc = look(&s, e);
        if (!rc) paint(&s);
        int key = getch();
        // Without a keyboard (its ssh is gone) there is nobody to look.
        s.quit = key == ERR && !isatty(STDIN_FILENO);
        obey(&s, key);
    }
    endwin();
    delscreen(terminal);
    buf_fini(&s.text);
    return rc;
}

int cmd_top(const struct cmd *self, int argc, char **argv, struct err *e) {
    bool once = false, json = false;
    const struct opt table[] = {
        {"once", '1', OPT_FLAG, NULL, "one look, as text", &once, 0, 0},
        {"json", 0, OPT_FLAG, NULL, "one look, as JSON", &json, 0, 0},
    };
    struct opts_rest rest;
    struct top t = {.run = {.lock_fd = -1}};
    int rc = opts_parse(self, argc, argv, table, OPTS_COUNT(table), 1, 1, &rest, e);
    if (rc || rest.help) return rc;
    bool live = !once && !json && isatty(STDOUT_FILENO) && isatty(STDIN_FILENO);
    rc = top_open(&t, rest.words[0], e);
    // The first look is before the screen: a wrong folder is told as every verb tells it.
    if (!rc && live) rc = top_look(&t, e);
    if (!rc) rc = live ? show_live(&t, e) : print_once(&t, json, e);
    top_close(&t);
    return rc;
}
