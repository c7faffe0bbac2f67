/* SPDX-License-Identifier: Apache-2.0 */

/* Theory of operation
 *
 *     culvert                              child (later init)
 *     sandbox_begin: clone, write maps ──▶ TAP made, its descriptor sent
 *     builds its engine                    addresses, /proc, /etc, masks
 *     sandbox_take_tap                 ◀──
 *     starts the engine
 *     sandbox_go                       ──▶ fork, exec COMMAND
 *
 * Both halves take about as long, and neither waits for the other before it must. Whichever dies,
 * the other sees end of file, or PDEATHSIG.
 *
 * The TAP is made persistent, although nothing outlives its network namespace: closing a TAP that
 * is not removes the device there and then, 15 to 40 ms of waiting in the kernel for everybody to
 * have forgotten it. A persistent one goes with the namespace, which the kernel takes down in the
 * background once its last process and the TAP's descriptor are gone. */

#include "cli/sandbox.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "host/addresses.h"
#include "host/init.h"
#include "host/namespaces.h"
#include "host/private_etc.h"
#include "host/resolv_conf.h"
#include "netdev/tap.h"

#define INTERFACE "eth0"

struct child {
    const struct culvert_config *config;
    int peer;
    char *resolv_conf; /* the host's own; NULL: none */
};

static _Noreturn void fail(const char *what, int error, const char *mend)
{
    dprintf(STDERR_FILENO, "culvert: %s: %s%s\n", what, strerror(error < 0 ? -error : error), mend);
    _exit(INIT_FAILED);
}

static void note(const struct child *child, const char *what, int error)
{
    if (!child->config->quiet)
        dprintf(STDERR_FILENO, "culvert: note: %s: %s\n", what, strerror(-error));
}

/* ---- the device ---- */

static const char *tun_mend(int error)
{
    switch (error) {
    case ENOENT:
        return "; make it: modprobe tun, or mknod /dev/net/tun c 10 200";
    case EACCES:
        return "; give users access to it: chmod 0666 /dev/net/tun";
    case EPERM:
        return "; the surrounding container must be given the device c 10:200";
    default:
        return "";
    }
}

static int make_tap(void)
{
    int fd = tap_open(INTERFACE, IFF_TUN_EXCL, NULL);

    if (fd < 0)
        fail("cannot make a TAP device with /dev/net/tun", -fd, tun_mend(-fd));
    if (ioctl(fd, TUNSETPERSIST, 1) < 0)
        fail("cannot keep the TAP device", errno, "");
    return fd;
}

static void send_descriptor(int peer, int fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = (char[]){0}, .iov_len = 1};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);

    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(cmsg), &fd, sizeof fd);
    if (sendmsg(peer, &message, MSG_NOSIGNAL) < 0)
        _exit(INIT_FAILED); /* culvert is gone */
}

/* ---- the network ---- */

static struct in6_addr in6(const struct ip_address *address)
{
    struct in6_addr a;

    memcpy(&a, address->bytes, sizeof a);
    return a;
}

static void configure_network(const struct culvert_config *config)
{
    struct host_network network = {
        .interface = INTERFACE,
        .mtu = config->mtu,
        .address4 = {config->ipv4.guest.be32[3]},
        .gateway4 = {config->ipv4.gateway.be32[3]},
        .prefix4 = config->ipv4.prefix,
        .ipv6 = config->ipv6_mode == CONFIG_IPV6_ON,
        .address6 = in6(&config->ipv6.guest),
        .gateway6 = in6(&config->ipv6.gateway),
        .prefix6 = config->ipv6.prefix,
        .ping_gid = getegid(),
    };
    char message[256];

    memcpy(network.mac, config->mac, sizeof network.mac);
    if (addresses_configure(&network, message, sizeof message) < 0) {
        dprintf(STDERR_FILENO, "culvert: %s\n", message);
        _exit(INIT_FAILED);
    }
}

/* ---- names ---- */

/* The texts of the addresses that appear in the two files. */
struct address_texts {
    char guest4[IP_ADDRESS_TEXT_MAX], gateway4[IP_ADDRESS_TEXT_MAX], dns4[IP_ADDRESS_TEXT_MAX];
    char guest6[IP_ADDRESS_TEXT_MAX], gateway6[IP_ADDRESS_TEXT_MAX], dns6[IP_ADDRESS_TEXT_MAX];
};

static void format_addresses(const struct culvert_config *config, struct address_texts *ret)
{
    ip_address_format(&config->ipv4.guest, ret->guest4);
    ip_address_format(&config->ipv4.gateway, ret->gateway4);
    ip_address_format(&config->ipv4.dns, ret->dns4);
    ip_address_format(&config->ipv6.guest, ret->guest6);
    ip_address_format(&config->ipv6.gateway, ret->gateway6);
    ip_address_format(&config->ipv6.dns, ret->dns6);
}

static char *make_hosts(const struct culvert_config *config, const struct address_texts *texts)
{
    struct names_entry entries[6 + CONFIG_DNS_HOSTS_MAX];
    char dns_hosts[CONFIG_DNS_HOSTS_MAX][IP_ADDRESS_TEXT_MAX], hostname[65] = "localhost";
    bool ipv6 = config->ipv6_mode == CONFIG_IPV6_ON;
    size_t count = 0;

    gethostname(hostname, sizeof hostname - 1);
    entries[count++] = (struct names_entry){texts->gateway4, "host.culvert.internal"};
    if (ipv6)
        entries[count++] = (struct names_entry){texts->gateway6, "host.culvert.internal"};
    for (size_t i = 0; i < config->dns_host_count; i++)
        entries[count++] =
            (struct names_entry){ip_address_format(&config->dns_hosts[i].address, dns_hosts[i]),
                                 config->dns_hosts[i].name};
    entries[count++] = (struct names_entry){"127.0.0.1", "localhost"};
    entries[count++] = (struct names_entry){"::1", "localhost"};
    entries[count++] = (struct names_entry){texts->guest4, hostname};
    if (ipv6)
        entries[count++] = (struct names_entry){texts->guest6, hostname};
    return hosts_text(entries, count);
}

static void configure_names(const struct child *child)
{
    struct address_texts texts;
    _cleanup_free_ char *resolv_conf = NULL, *hosts = NULL;
    int r = -ENOMEM;

    format_addresses(child->config, &texts);

    const char *nameservers[] = {
        texts.dns4, child->config->ipv6_mode == CONFIG_IPV6_ON ? texts.dns6 : NULL, NULL};

    resolv_conf = resolv_conf_text(child->resolv_conf, nameservers);
    hosts = make_hosts(child->config, &texts);
    if (resolv_conf && hosts)
        r = private_etc_mount(resolv_conf, hosts);
    if (r < 0)
        fail("cannot give the command its own /etc/resolv.conf", r, "");
    r = private_etc_mask_resolvers();
    if (r < 0)
        note(child, "sockets of the host's resolvers stay visible", r);
}

/* ---- both sides ---- */

static void await_go(int peer)
{
    char byte;

    if (recv(peer, &byte, 1, 0) != 1)
        _exit(INIT_FAILED); /* culvert is gone, or has said why it does not go on */
}

static _Noreturn void run_child(struct child *child, char *const *argv, const sigset_t *mask)
{
    const struct culvert_config *config = child->config;
    int tap = make_tap(), r;

    send_descriptor(child->peer, tap);
    close(tap);
    r = namespaces_mount_proc();
    if (r < 0)
        note(child, "/proc stays the host's", r);
    if (config->hostname[0] && sethostname(config->hostname, strlen(config->hostname)) < 0)
        fail("cannot set the host name", errno, "");
    configure_network(config);
    configure_names(child);
    r = namespaces_ignore_setuid();
    if (r < 0)
        note(child, "programs with set-uid bits or capabilities will not start", r);
    await_go(child->peer);
    init_run(&(struct init_command){.argv = argv, .mask = mask});
}

int sandbox_begin(struct sandbox *ret, const struct culvert_config *config, char *const *argv,
                  const sigset_t *mask, struct culvert_error *error)
{
    struct child child = {.config = config};
    pid_t pid = namespaces_clone(config->hostname[0] != '\0', &child.peer, error->message,
                                 sizeof error->message);

    if (pid < 0)
        return pid;
    if (pid == 0) {
        child.resolv_conf = text_file_read("/etc/resolv.conf");
        run_child(&child, argv, mask);
    }
    ret->init = pid;
    ret->peer = child.peer;
    return 0;
}

int sandbox_take_tap(struct sandbox *sandbox)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *cmsg;
    int fd;

    if (recvmsg(sandbox->peer, &message, MSG_CMSG_CLOEXEC) != 1)
        return -EPIPE;
    cmsg = CMSG_FIRSTHDR(&message);
    if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS || cmsg->cmsg_len != CMSG_LEN(sizeof fd))
        return -EPIPE;
    memcpy(&fd, CMSG_DATA(cmsg), sizeof fd);
    return fd;
}

void sandbox_go(struct sandbox *sandbox)
{
    (void)!send(sandbox->peer, "", 1, MSG_NOSIGNAL);
    sandbox->peer = close_fd(sandbox->peer);
}
