/* SPDX-License-Identifier: Apache-2.0 */
#include <culvert/shared_state.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "netdev/tap.h"
#include "wire/virtio_net.h"

/* From Linux 6.2; Debian 12's headers are older. The kernel wants both or none. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

static int configure_header(int fd)
{
    int len = VIRTIO_NET_HEADER_LEN, little_endian = 1;

    if (ioctl(fd, TUNSETVNETHDRSZ, &len) < 0 || ioctl(fd, TUNSETVNETLE, &little_endian) < 0)
        return -errno;
    return 0;
}

/* Asks for the most there is and comes down until the kernel agrees. UFO is never asked for. */
static int configure_offloads(int fd, uint32_t *ret_offloads)
{
    static const struct {
        unsigned long tun;
        uint32_t link;
    } levels[] = {
        {TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6,
         CULVERT_LINK_CSUM | CULVERT_LINK_TSO4 | CULVERT_LINK_TSO6 | CULVERT_LINK_ECN |
             CULVERT_LINK_USO},
        {TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN,
         CULVERT_LINK_CSUM | CULVERT_LINK_TSO4 | CULVERT_LINK_TSO6 | CULVERT_LINK_ECN},
        {TUN_F_CSUM, CULVERT_LINK_CSUM},
        {0, 0},
    };

    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        if (ioctl(fd, TUNSETOFFLOAD, levels[i].tun) == 0) {
            *ret_offloads = levels[i].link;
            return 0;
        }
        if (errno != EINVAL)
            return -errno;
    }
    return -EINVAL;
}

int tap_configure(int fd, uint32_t *ret_offloads)
{
    const int wanted = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    struct ifreq request = {0};
    int r, flags;

    if (ioctl(fd, TUNGETIFF, &request) < 0)
        return -errno;
    if ((request.ifr_flags & wanted) != wanted)
        return -EINVAL;
    flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    r = configure_header(fd);
    return r < 0 ? r : configure_offloads(fd, ret_offloads);
}

int tap_open(const char *name, unsigned flags, char ret_name[IF_NAMESIZE])
{
    _cleanup_close_ int fd = -1;
    struct ifreq request = {0};
    uint32_t offloads;
    int r;

    if (name && strlen(name) >= IF_NAMESIZE)
        return -ENAMETOOLONG;
    fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | flags);
    if (name)
        memcpy(request.ifr_name, name, strlen(name));
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        return -errno;
    r = tap_configure(fd, &offloads);
    if (r < 0)
        return r;
    if (ret_name) {
        memcpy(ret_name, request.ifr_name, IF_NAMESIZE);
        ret_name[IF_NAMESIZE - 1] = '\0';
    }
    return TAKE_FD(fd);
}
