/* SPDX-License-Identifier: Apache-2.0 */
#include "namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC), r = 0;

    if (fd < 0)
        return -errno;
    if (write(fd, text, strlen(text)) < 0)
        r = -errno;
    close(fd);
    return r;
}

static int interface_ioctl(unsigned long request, struct ifreq *ifr, const char *interface)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;

    if (fd < 0)
        return -errno;
    snprintf(ifr->ifr_name, sizeof ifr->ifr_name, "%s", interface);
    r = ioctl(fd, request, ifr) < 0 ? -errno : 0;
    close(fd);
    return r;
}

static bool enter(void)
{
    char map[64];
    unsigned uid = getuid(), gid = getgid();

    if (unshare(CLONE_NEWNET) == 0)
        return true;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
        return false;
    snprintf(map, sizeof map, "0 %u 1", uid);
    if (write_file("/proc/self/uid_map", map) < 0)
        return false;
    (void)write_file("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "0 %u 1", gid);
    return write_file("/proc/self/gid_map", map) == 0;
}

bool namespace_of_its_own(void)
{
    static bool entered;
    struct ifreq up = {.ifr_flags = IFF_UP | IFF_RUNNING};

    if (!entered)
        entered = enter() && interface_ioctl(SIOCSIFFLAGS, &up, "lo") == 0 &&
                  namespace_allow_ping_sockets(true) == 0;
    return entered;
}

int namespace_set_mtu(const char *interface, int mtu)
{
    struct ifreq ifr = {.ifr_mtu = mtu};

    return interface_ioctl(SIOCSIFMTU, &ifr, interface);
}

int namespace_allow_ping_sockets(bool allow)
{
    return write_file("/proc/sys/net/ipv4/ping_group_range", allow ? "0 0" : "1 0");
}

int namespace_add_address(const char *interface, uint32_t be_address)
{
    struct ifreq ifr = {.ifr_flags = 0};
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = be_address};

    memcpy(&ifr.ifr_addr, &sa, sizeof sa);
    return interface_ioctl(SIOCSIFADDR, &ifr, interface);
}
