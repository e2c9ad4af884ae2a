// SPDX-License-Identifier: Apache-2.0
// How this machine is called and reached.
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/process.h"
#include "launcher/doctor_impl.h"

#define CONNECT_MS 1000

static bool is_loopback(const struct sockaddr *a) {
    struct sockaddr_in in;
    if (a->sa_family != AF_INET) return false;
    memcpy(&in, a, sizeof in);
    return ntohl(in.sin_addr.s_addr) >> 24 == 127;
}

void doctor_host_name(const struct config *c, struct doctor_finding *f) {
    char host[256], address[INET_ADDRSTRLEN] = "";
    const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo(process_host(host, sizeof host, "?"), NULL, &hints, &found) || !found) {
        doctor_say(f, "host name %s has no address", host);
        doctor_cure(f, DOCTOR_WARN, ERR_OK, "some MPI builds wait for it: add '127.0.1.1 %s' to /etc/hosts",
                    host);
        return;
    }
    struct sockaddr_in in;
    memcpy(&in, found->ai_addr, sizeof in);
    inet_ntop(AF_INET, &in.sin_addr, address, sizeof address);
    doctor_say(f, "host name %s has the address %s%s", host, address,
               is_loopback(found->ai_addr) ? " (loopback: fine for one machine; others need its real one)"
                                           : "");
    freeaddrinfo(found);
}

void doctor_interfaces(const struct config *c, struct doctor_finding *f) {
    struct ifaddrs *all = NULL;
    size_t used = 0;
    int n = 0;
    if (getifaddrs(&all)) return;
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        char address[INET_ADDRSTRLEN];
        struct sockaddr_in in;
        bool up = i->ifa_addr && (i->ifa_flags & IFF_UP) && i->ifa_addr->sa_family == AF_INET;
        if (!up || is_loopback(i->ifa_addr) || used + 80 > sizeof f->text) continue;
        memcpy(&in, i->ifa_addr, sizeof in);
        inet_ntop(AF_INET, &in.sin_addr, address, sizeof address);
        used += (size_t)snprintf(f->text + used, sizeof f->text - used, "%s%.20s %s", n++ ? ", " : "",
                                 i->ifa_name, address);
    }
    if (!n) doctor_say(f, "no network but loopback: this machine alone");
    if (n > 1)
        snprintf(f->text + used, sizeof f->text - used,
                 " (several hosts: --hosts says which one leads to them)");
    freeifaddrs(all);
}

// A connection to a port of our own, as every guard makes one.
static bool can_connect(void) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof in;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd = -1;
    bool ok = listener >= 0 && !bind(listener, (struct sockaddr *)&in, sizeof in) && !listen(listener, 1) &&
              !getsockname(listener, (struct sockaddr *)&in, &n);
    if (ok) fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ok = ok && fd >= 0;
    if (ok && connect(fd, (struct sockaddr *)&in, sizeof in)) {
        struct pollfd p = {fd, POLLOUT, 0};
        ok = poll(&p, 1, CONNECT_MS) == 1 && !(p.revents & (POLLERR | POLLHUP));
    }
    if (fd >= 0) close(fd);
    if (listener >= 0) close(listener);
    return ok;
}

void doctor_loopback(const struct config *c, struct doctor_finding *f) {
    bool ok = can_connect();
    doctor_say(f, ok ? "guards can reach orrery run on this machine"
                     : "a connection to 127.0.0.1 does not come about");
    if (!ok)
        doctor_cure(f, DOCTOR_BAD, ERR_UNAVAILABLE,
                    "bring loopback up (ip link set lo up), and let the firewall pass it (iptables -A INPUT "
                    "-i lo -j ACCEPT)");
}
