/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_NETDEV_TAP_GUEST_H
#define TESTS_NETDEV_TAP_GUEST_H

/* A guest for tests of TAP devices: this process in a network namespace of its own, and a packet
 * socket that sends and receives frames with their virtio headers at the TAP's inner side. The
 * includer has included cmocka.h. */

#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netdev/tap.h"
#include "wire/bytes.h"
#include "wire/ethernet.h"
#include "wire/virtio_net.h"

#define TEST_TYPE 0x88b5 /* IEEE 802: local experiments */

static inline void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    if (write(fd, text, strlen(text)) < 0)
        errno = 0; /* as good as the machine allows */
    close(fd);
}

/* False: the machine forbids it. IPv6 is off inside, so that the kernel sends nothing by itself. */
static inline bool enter_namespace(void)
{
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
        return false;
    write_file("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
    write_file("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    int fd = tap_open("probe", 0, NULL);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static inline void set_up(const char *name, bool up, int mtu)
{
    struct ifreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    request.ifr_mtu = mtu;
    assert_int_equal(ioctl(fd, SIOCSIFMTU, &request), 0);
    request.ifr_flags = up ? IFF_UP | IFF_NOARP : IFF_NOARP;
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
    close(fd);
}

static inline void delete_device(const char *name)
{
    struct {
        struct nlmsghdr header;
        struct ifinfomsg info;
    } request = {.header = {.nlmsg_len = sizeof request,
                            .nlmsg_type = RTM_DELLINK,
                            .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK}};
    char answer[512];
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    assert_true(fd >= 0);
    request.info.ifi_index = (int)if_nametoindex(name);
    assert_int_equal(send(fd, &request, sizeof request, 0), sizeof request);
    assert_true(recv(fd, answer, sizeof answer, 0) > 0); /* when it is done */
    close(fd);
}

/* A packet socket at the device. */
static inline int guest_open(const char *name)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                  .sll_protocol = htobe16(0x0003), /* every type */
                                  .sll_ifindex = (int)if_nametoindex(name)};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), on = 1, size = 8 << 20;

    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static inline void guest_send(int fd, const struct culvert_offload *offload, const uint8_t *bytes,
                              size_t len)
{
    uint8_t header[VIRTIO_NET_HEADER_LEN_SHORT];
    struct iovec iov[] = {{header, sizeof header}, {(void *)bytes, len}};

    virtio_net_write_short(header, offload);
    assert_int_equal(writev(fd, iov, 2), sizeof header + len);
}

/* The next frame that came in at the device (what the guest sent itself is left out): its length,
 * or 0 after `timeout_ms`. */
static inline size_t guest_receive(int fd, int timeout_ms, struct culvert_offload *ret_offload,
                                   uint8_t *bytes, size_t max)
{
    uint8_t header[VIRTIO_NET_HEADER_LEN_SHORT];
    struct pollfd pollfd = {.fd = fd, .events = POLLIN};

    *ret_offload = (struct culvert_offload){0};
    while (poll(&pollfd, 1, timeout_ms) > 0) {
        struct sockaddr_ll from = {0};
        struct iovec iov[] = {{header, sizeof header}, {bytes, max}};
        struct msghdr message = {
            .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = iov, .msg_iovlen = 2};
        ssize_t n = recvmsg(fd, &message, 0);

        assert_true(n > (ssize_t)sizeof header);
        if (from.sll_pkttype == PACKET_OUTGOING)
            continue;
        virtio_net_read(header, ret_offload);
        return (size_t)n - sizeof header;
    }
    return 0;
}

static inline size_t numbered(uint8_t *bytes, size_t len, uint32_t number)
{
    static const uint8_t to[6] = {2, 0, 0, 0, 0, 1}, from[6] = {2, 0, 0, 0, 0, 2};

    ethernet_write(bytes, to, from, TEST_TYPE);
    for (size_t i = ETHERNET_HEADER_LEN; i < len; i++)
        bytes[i] = (uint8_t)(i + number);
    store_be32(bytes + ETHERNET_HEADER_LEN, number);
    return len;
}

#endif
