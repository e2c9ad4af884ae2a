// SPDX-License-Identifier: Apache-2.0
#include "launcher/netif.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DISCARD_PORT 9

static uint32_t address_of(const struct sockaddr *a) {
    struct sockaddr_in in;
    memcpy(&in, a, sizeof in);
    return ntohl(in.sin_addr.s_addr);
}

static void describe(struct netif *out, const char *name, uint32_t address, uint32_t mask) {
    struct in_addr a = {htonl(address)}, n = {htonl(address & mask)};
    char text[INET_ADDRSTRLEN];
    snprintf(out->name, sizeof out->name, "%s", name);
    inet_ntop(AF_INET, &a, out->address, sizeof out->address);
    inet_ntop(AF_INET, &n, text, sizeof text);
    snprintf(out->network, sizeof out->network, "%s/%d", text, __builtin_popcount(mask));
}

// Is this interface the wanted one: by name, by address, or by network?
static bool is_wanted(const char *wanted, const char *name, uint32_t address, uint32_t mask) {
    struct netif n;
    describe(&n, name, address, mask);
    return !strcmp(wanted, n.name) || !strcmp(wanted, n.address) || !strcmp(wanted, n.network);
}

static int find(struct netif *out, const char *wanted, struct err *e) {
    struct ifaddrs *all = NULL;
    bool found = false;
    if (getifaddrs(&all)) return err_errno(e, errno, "cannot list the network interfaces");
    for (const struct ifaddrs *i = all; i && !found; i = i->ifa_next) {
        if (!i->ifa_addr || !i->ifa_netmask || i->ifa_addr->sa_family != AF_INET) continue;
        uint32_t address = address_of(i->ifa_addr), mask = address_of(i->ifa_netmask);
        found = is_wanted(wanted, i->ifa_name, address, mask);
        if (found) describe(out, i->ifa_name, address, mask);
    }
    freeifaddrs(all);
    if (found) return 0;
    return err_set(
        e, ERR_UNAVAILABLE,
        "no interface here is called, or has the IPv4 address or network, '%.60s'; see 'ip address'", wanted);
}

// Asks the routing table: a UDP socket that is connected sends nothing.
static int way_to(const struct sockaddr *peer, socklen_t n, char *out, size_t out_bytes, struct err *e) {
    struct sockaddr_in here;
    socklen_t here_bytes = sizeof here;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc = 0;
    if (fd < 0) return err_errno(e, errno, "cannot make a socket");
    if (connect(fd, peer, n) || getsockname(fd, (struct sockaddr *)&here, &here_bytes))
        rc = err_set(e, ERR_UNAVAILABLE, "no way to it: %s", strerror(errno));
    else
        inet_ntop(AF_INET, &here.sin_addr, out, (socklen_t)out_bytes);
    close(fd);
    return rc;
}

int netif_choose(struct netif *out, const char *interface, const char *peer, struct err *e) {
    const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_DGRAM};
    struct addrinfo *list = NULL;
    char port[16], here[INET_ADDRSTRLEN];
    if (interface && *interface) return find(out, interface, e);
    snprintf(port, sizeof port, "%d", DISCARD_PORT);
    int failed = getaddrinfo(peer, port, &hints, &list);
    if (failed || !list)
        return err_set(e, ERR_UNAVAILABLE, "host %s has no IPv4 address: %s", peer, gai_strerror(failed));
    int rc = 0;
    if (address_of(list->ai_addr) >> 24 == 127)
        rc = err_set(e, ERR_CONFIG,
                     "host %s has a loopback address here: others cannot mean it; mend /etc/hosts, or set "
                     "launch.interface",
                     peer);
    if (!rc) rc = way_to(list->ai_addr, list->ai_addrlen, here, sizeof here, e);
    freeaddrinfo(list);
    if (rc == -ERR_UNAVAILABLE) return err_prefix(e, "host %s", peer);
    return rc ? rc : find(out, here, e);
}
