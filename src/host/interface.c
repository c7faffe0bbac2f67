/* SPDX-License-Identifier: Apache-2.0 */
/* The seal is a table of family "netdev", named after the interface, with one chain at its ingress
 * hook whose policy is to drop. The kernel hands packets to packet sockets before it asks that
 * hook, and to bridges, ARP, IPv4 and IPv6 after it. The table is not bound to this process: if the
 * process is killed it stays, and the guest stays cut off, until the next one replaces it. */
#include "host/interface.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <limits.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

/* ---- up, and large enough ---- */

static int change(int fd, unsigned long request, struct ifreq *interface, const char *command,
                  char *message, size_t size)
{
    int r;

    if (ioctl(fd, request, interface) == 0)
        return 0;
    r = -errno;
    snprintf(message, size, "it cannot be set up: %s; have it done before: ip link set dev %s %s",
             strerror(-r), interface->ifr_name, command);
    return r;
}

int interface_prepare(const char *name, uint32_t mtu, bool exactly, char *message, size_t size)
{
    _cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq interface = {0};
    char command[32];
    int r;

    snprintf(interface.ifr_name, sizeof interface.ifr_name, "%s", name);
    if (fd < 0 || ioctl(fd, SIOCGIFMTU, &interface) < 0) {
        r = -errno;
        snprintf(message, size, "%s",
                 r == -ENODEV ? "no such interface; make it first, or name its --netns"
                              : strerror(-r));
        return r;
    }
    if (interface.ifr_mtu < (int)mtu || (exactly && interface.ifr_mtu != (int)mtu)) {
        interface.ifr_mtu = (int)mtu;
        snprintf(command, sizeof command, "mtu %u", mtu);
        r = change(fd, SIOCSIFMTU, &interface, command, message, size);
        if (r < 0)
            return r;
    }
    if (ioctl(fd, SIOCGIFFLAGS, &interface) < 0)
        return -errno;
    if (interface.ifr_flags & IFF_UP)
        return 0;
    interface.ifr_flags |= IFF_UP;
    return change(fd, SIOCSIFFLAGS, &interface, "up", message, size);
}

/* ---- the seal ---- */

struct batch {
    struct mnl_nlmsg_batch *messages;
    char buffer[8192];
    char table[IFNAMSIZ + 16];
    uint32_t sequence;
};

static struct nlmsghdr *batch_next(struct batch *batch, int type, int flags, int family)
{
    struct nlmsghdr *message = mnl_nlmsg_put_header(mnl_nlmsg_batch_current(batch->messages));
    struct nfgenmsg *general = mnl_nlmsg_put_extra_header(message, sizeof *general);

    message->nlmsg_type = (uint16_t)type;
    message->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
    message->nlmsg_seq = batch->sequence++;
    general->nfgen_family = (uint8_t)family;
    general->version = NFNETLINK_V0;
    return message;
}

static void put_border(struct batch *batch, int type)
{
    struct nfgenmsg *general = mnl_nlmsg_get_payload(batch_next(batch, type, 0, AF_UNSPEC));

    general->res_id = htons(NFNL_SUBSYS_NFTABLES);
    mnl_nlmsg_batch_next(batch->messages);
}

static void put_table(struct batch *batch, int type, int flags)
{
    struct nlmsghdr *message =
        batch_next(batch, NFNL_SUBSYS_NFTABLES << 8 | type, flags, NFPROTO_NETDEV);

    mnl_attr_put_strz(message, NFTA_TABLE_NAME, batch->table);
    mnl_nlmsg_batch_next(batch->messages);
}

static void put_chain(struct batch *batch, const char *interface)
{
    struct nlmsghdr *message = batch_next(batch, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWCHAIN,
                                          NLM_F_CREATE | NLM_F_ACK, NFPROTO_NETDEV);
    struct nlattr *hook;

    mnl_attr_put_strz(message, NFTA_CHAIN_TABLE, batch->table);
    mnl_attr_put_strz(message, NFTA_CHAIN_NAME, "ingress");
    hook = mnl_attr_nest_start(message, NFTA_CHAIN_HOOK);
    mnl_attr_put_u32(message, NFTA_HOOK_HOOKNUM, htonl(NF_NETDEV_INGRESS));
    mnl_attr_put_u32(message, NFTA_HOOK_PRIORITY, htonl((uint32_t)INT_MIN));
    mnl_attr_put_strz(message, NFTA_HOOK_DEV, interface);
    mnl_attr_nest_end(message, hook);
    mnl_attr_put_u32(message, NFTA_CHAIN_POLICY, htonl(NF_DROP));
    mnl_attr_put_strz(message, NFTA_CHAIN_TYPE, "filter");
    mnl_nlmsg_batch_next(batch->messages);
}

/* Reads answers up to the one with an error, or the acknowledgement of the batch's last change. */
static int await_answer(struct mnl_socket *socket)
{
    char buffer[8192];

    for (;;) {
        ssize_t n = mnl_socket_recvfrom(socket, buffer, sizeof buffer);
        int r;

        if (n < 0)
            return -errno;
        r = mnl_cb_run(buffer, (size_t)n, 0, mnl_socket_get_portid(socket), NULL, NULL);
        if (r < 0)
            return -errno;
        if (r == MNL_CB_STOP)
            return 0;
    }
}

static int send_batch(struct batch *batch)
{
    struct mnl_socket *socket = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
    int r = 0;

    if (!socket)
        return -errno;
    if (mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0 ||
        mnl_socket_sendto(socket, mnl_nlmsg_batch_head(batch->messages),
                          mnl_nlmsg_batch_size(batch->messages)) < 0)
        r = -errno;
    else
        r = await_answer(socket);
    mnl_socket_close(socket);
    return r;
}

/* Replaces the table, or takes it away. */
static int change_table(const char *interface, bool seal)
{
    struct batch batch = {.sequence = 1};
    int r;

    snprintf(batch.table, sizeof batch.table, "culvert_%.15s", interface);
    batch.messages = mnl_nlmsg_batch_start(batch.buffer, sizeof batch.buffer / 2);
    if (!batch.messages)
        return -ENOMEM;
    put_border(&batch, NFNL_MSG_BATCH_BEGIN);
    if (seal) {
        put_table(&batch, NFT_MSG_NEWTABLE, NLM_F_CREATE);
        put_table(&batch, NFT_MSG_DELTABLE, 0);
        put_table(&batch, NFT_MSG_NEWTABLE, NLM_F_CREATE);
        put_chain(&batch, interface);
    } else {
        put_table(&batch, NFT_MSG_DELTABLE, NLM_F_ACK);
    }
    put_border(&batch, NFNL_MSG_BATCH_END);
    r = send_batch(&batch);
    mnl_nlmsg_batch_stop(batch.messages);
    return r;
}

/* Is there another interface that is up, loopback excepted? */
static bool has_neighbours(const char *name)
{
    _cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct if_nameindex *all = if_nameindex();
    bool found = fd < 0 || !all;

    for (struct if_nameindex *i = all; !found && i->if_index != 0; i++) {
        struct ifreq interface = {0};

        snprintf(interface.ifr_name, sizeof interface.ifr_name, "%s", i->if_name);
        if (strcmp(i->if_name, name) != 0 && ioctl(fd, SIOCGIFFLAGS, &interface) == 0)
            found = (interface.ifr_flags & IFF_UP) && !(interface.ifr_flags & IFF_LOOPBACK);
    }
    if (all)
        if_freenameindex(all);
    return found;
}

static bool is_loopback(const char *name)
{
    _cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq interface = {0};

    snprintf(interface.ifr_name, sizeof interface.ifr_name, "%s", name);
    return fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &interface) == 0 &&
           (interface.ifr_flags & IFF_LOOPBACK);
}

int interface_seal(const char *name, char *message, size_t size)
{
    int r;

    if (is_loopback(name)) {
        snprintf(message, size,
                 "it is the machine's own loopback, which would be cut off; name "
                 "the interface that leads to the guest");
        return -EINVAL;
    }
    r = change_table(name, true);
    if (r == 0 || !has_neighbours(name))
        return 0;
    snprintf(message, size,
             "the host's own stack would see the guest's frames and might route them around the "
             "policy, and nftables cannot keep them from it (%s); move the interface to a "
             "namespace of its own, and name that with --netns",
             strerror(-r));
    return -EOPNOTSUPP;
}

int interface_unseal(const char *name, char *message, size_t size)
{
    int r = change_table(name, false);

    if (r < 0)
        snprintf(message, size, "the seal cannot be taken away: %s", strerror(-r));
    return r;
}
