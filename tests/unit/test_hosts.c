// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "launcher/boxdir.h"
#include "launcher/farbox.h"
#include "launcher/hosts.h"
#include "launcher/netif.h"

static void only_plain_names_are_hosts(void **state) {
    static const char *const fine[] = {"h1", "10.0.0.1", "node-7.cluster.example", "A", "0x"};
    static const char *const bad[] = {"",     "-h",  "h-",    ".h",   "h.",  "a..b", "a.-b", "h 1",
                                      "h\n1", "h;x", "$(id)", "h/..", "h@x", "h=1",  "h_1",  "\xc3\xa4"};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) assert_true(hosts_name_is_fine(fine[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(hosts_name_is_fine(bad[i]));
    char longest[80];
    memset(longest, 'a', sizeof longest);
    longest[63] = 0;
    assert_true(hosts_name_is_fine(longest));
    longest[63] = 'a';
    longest[64] = 0;
    assert_false(hosts_name_is_fine(longest));
}

static void a_list_gives_ranks_their_hosts(void **state) {
    struct hosts h = {0};
    struct err e = {0};
    assert_int_equal(hosts_parse(&h, "h1:2,h2,h3:3", &e), 0);
    assert_int_equal(h.n, 3);
    assert_int_equal(hosts_slots(&h), 6);
    static const int of[] = {0, 0, 1, 2, 2, 2, -1};
    for (int r = 0; r < 7; r++) assert_int_equal(hosts_of_rank(&h, r), of[r]);
    h.list[1].out = true;
    assert_int_equal(hosts_slots(&h), 5);
    assert_int_equal(hosts_of_rank(&h, 2), 2);
    assert_int_equal(hosts_first_rank(&h, 2), 2);
    hosts_fini(&h);
}

static void wrong_lists_are_refused(void **state) {
    static const char *const bad[] = {"",         "h1:", "h1:x", "h1:0",  "h1:-1",
                                      "h1:99999", "h1,", ",h1",  "h1,H1", "h1:2:3"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct hosts h = {0};
        struct err e = {0};
        assert_int_equal(hosts_parse(&h, bad[i], &e), -ERR_CONFIG);
        hosts_fini(&h);
    }
}

static int parse_file(const char *text, struct hosts *h, struct err *e) {
    char path[] = "/tmp/orrery-test-hosts-XXXXXX", word[sizeof path + 1];
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    snprintf(word, sizeof word, "@%s", path);
    int rc = hosts_parse(h, word, e);
    unlink(path);
    return rc;
}

static void a_host_file_is_read_line_by_line(void **state) {
    struct hosts h = {0};
    struct err e = {0};
    assert_int_equal(parse_file("# a cluster\nh1 slots=2\n\n  h2:3 # two\nh3\n", &h, &e), 0);
    assert_int_equal(h.n, 3);
    assert_int_equal(h.list[0].slots, 2);
    assert_int_equal(h.list[1].slots, 3);
    assert_int_equal(h.list[2].slots, 1);
    hosts_fini(&h);
    assert_int_equal(parse_file("h1\nh2 slots=two\n", &h, &e), -ERR_CONFIG);
    assert_non_null(strstr(e.text, ":2:"));
    hosts_fini(&h);
    err_clear(&e);
    assert_int_equal(parse_file("# nothing\n", &h, &e), -ERR_CONFIG);
}

static void the_loopback_interface_is_found(void **state) {
    struct netif n;
    struct err e = {0};
    assert_int_equal(netif_choose(&n, "lo", NULL, &e), 0);
    assert_string_equal(n.address, "127.0.0.1");
    assert_string_equal(n.network, "127.0.0.0/8");
    assert_int_equal(netif_choose(&n, "127.0.0.0/8", NULL, &e), 0);
    assert_string_equal(n.name, "lo");
    assert_int_not_equal(netif_choose(&n, "nothing7", NULL, &e), 0);
    err_clear(&e);
    assert_int_equal(netif_choose(&n, "", "127.0.0.1", &e), -ERR_CONFIG); // a peer that is ourselves
}

// Everything that a rank writes arrives, and only what has changed is sent again.
static void a_box_is_mirrored(void **state) {
    char here[] = "/tmp/orrery-test-far-XXXXXX", path[64];
    struct err e = {0};
    struct blackbox *box = NULL, *copy = NULL;
    static struct blackbox_page page;
    static struct wire_message m;
    struct farbox far = {0};
    int sent = 0;
    assert_non_null(mkdtemp(here));
    snprintf(far.path, sizeof far.path, "%s/own.box", here);
    farbox_look(&far);
    assert_false(farbox_next(&far, &m)); // nothing there yet
    assert_int_equal(blackbox_create(&box, far.path, 3, 4, 1, "train", &e), 0);
    blackbox_set_step(box, 17);
    for (int i = 0; i < 40; i++) blackbox_event(box, "event %d", i);
    for (farbox_look(&far); farbox_next(&far, &m); sent++)
        assert_int_equal(farbox_store(here, 3, &m, 1000000, &e), 0);
    assert_int_equal(sent, 3); // the head, and two pieces of events
    snprintf(path, sizeof path, "%s/rank-3.box", here);
    assert_int_equal(blackbox_open(&copy, path, &e), 0);
    blackbox_read(copy, &page);
    assert_int_equal(page.step, 17);
    assert_string_equal(page.events[39].text, "event 39");
    assert_int_equal(page.heartbeat_ns, blackbox_page(box)->heartbeat_ns + 1000000);
    farbox_look(&far);
    assert_false(farbox_next(&far, &m));
    blackbox_set_step(box, 18);
    farbox_look(&far);
    assert_true(farbox_next(&far, &m));
    assert_int_equal(m.code, 0);
    assert_int_equal(farbox_store(here, 2, &m, 0, &e), -ERR_DATA); // another rank's
    err_clear(&e);
    m.code = 100;
    assert_int_equal(farbox_store(here, 3, &m, 0, &e), -ERR_DATA); // no piece begins there
    farbox_fini(&far);
    blackbox_close(copy);
    blackbox_close(box);
    boxdir_remove_tree(here);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_plain_names_are_hosts),      cmocka_unit_test(a_list_gives_ranks_their_hosts),
        cmocka_unit_test(wrong_lists_are_refused),         cmocka_unit_test(a_host_file_is_read_line_by_line),
        cmocka_unit_test(the_loopback_interface_is_found), cmocka_unit_test(a_box_is_mirrored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
