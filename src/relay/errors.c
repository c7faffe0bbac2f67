/* SPDX-License-Identifier: Apache-2.0 */
/* The error queue of a mapping's socket (IP_RECVERR): what routers and peers said about datagrams
 * sent earlier, quoted by the kernel with the address they were sent to. What concerns a peer of
 * the mapping goes to the stack, which makes an ICMP for the guest of it. */

#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <sys/socket.h>

#include "relay/internal.h"

#include <linux/errqueue.h>

#define ERRORS_A_TURN 64
#define QUOTE_MAX     1536 /* more than any ICMP error quotes */

struct queued_error {
    struct sock_extended_err error;
    struct ip_address offender; /* all zero: not told */
    struct ip_endpoint to;
    uint8_t quote[QUOTE_MAX];
    size_t quote_len;
};

/* False: nothing the guest should hear of. */
static bool problem_of_icmp4(uint8_t type, uint8_t code, enum icmp_problem *ret)
{
    if (type == ICMP_TIME_EXCEEDED) {
        *ret = ICMP_PROBLEM_TIME_EXCEEDED;
        return true;
    }
    if (type != ICMP_DEST_UNREACH)
        return false;
    switch (code) {
    case ICMP_NET_UNREACH:
    case ICMP_NET_UNKNOWN:
    case ICMP_NET_UNR_TOS:
        *ret = ICMP_PROBLEM_NET_UNREACHABLE;
        return true;
    case ICMP_PROT_UNREACH:
        *ret = ICMP_PROBLEM_PROTOCOL_UNREACHABLE;
        return true;
    case ICMP_PORT_UNREACH:
        *ret = ICMP_PROBLEM_PORT_UNREACHABLE;
        return true;
    case ICMP_FRAG_NEEDED:
        *ret = ICMP_PROBLEM_TOO_BIG;
        return true;
    case ICMP_NET_ANO:
    case ICMP_HOST_ANO:
    case ICMP_PKT_FILTERED:
        *ret = ICMP_PROBLEM_PROHIBITED;
        return true;
    default:
        *ret = ICMP_PROBLEM_HOST_UNREACHABLE;
        return true;
    }
}

static bool problem_of_icmp6(uint8_t type, uint8_t code, enum icmp_problem *ret)
{
    switch (type) {
    case ICMP6_TIME_EXCEEDED:
        *ret = ICMP_PROBLEM_TIME_EXCEEDED;
        return true;
    case ICMP6_PACKET_TOO_BIG:
        *ret = ICMP_PROBLEM_TOO_BIG;
        return true;
    case ICMP6_DST_UNREACH:
        break;
    default:
        return false;
    }
    switch (code) {
    case ICMP6_DST_UNREACH_NOROUTE:
        *ret = ICMP_PROBLEM_NET_UNREACHABLE;
        return true;
    case ICMP6_DST_UNREACH_NOPORT:
        *ret = ICMP_PROBLEM_PORT_UNREACHABLE;
        return true;
    case ICMP6_DST_UNREACH_ADDR:
    case ICMP6_DST_UNREACH_BEYONDSCOPE:
        *ret = ICMP_PROBLEM_HOST_UNREACHABLE;
        return true;
    default: /* prohibited, and the policies of RFC 4443 3.1 */
        *ret = ICMP_PROBLEM_PROHIBITED;
        return true;
    }
}

static bool problem_of(const struct sock_extended_err *error, enum icmp_problem *ret)
{
    if (error->ee_origin == SO_EE_ORIGIN_ICMP)
        return problem_of_icmp4(error->ee_type, error->ee_code, ret);
    if (error->ee_origin == SO_EE_ORIGIN_ICMP6)
        return problem_of_icmp6(error->ee_type, error->ee_code, ret);
    return false;
}

static bool is_loopback(const struct ip_address *address)
{
    if (ip_address_is_v4(address))
        return address->bytes[12] == 127;
    return IN6_IS_ADDR_LOOPBACK((const struct in6_addr *)(const void *)address->bytes);
}

/* The guest must not see the host's loopback: there, the gateway or the remote's other name speaks.
 */
static struct ip_address reporter_of(const struct queued_error *queued, const struct peer *peer)
{
    if (ip_address_equal(&queued->offender, &peer->real.address))
        return peer->remote.address;
    if (is_loopback(&queued->offender))
        return (struct ip_address){.be64 = {0, 0}};
    return queued->offender;
}

static void report(struct mapping *mapping, const struct queued_error *queued)
{
    struct icmp_report report = {
        .payload = queued->quote,
        .payload_len = queued->quote_len,
        .mtu = queued->error.ee_info,
    };
    const bool echo = mapping->protocol != IPPROTO_UDP;
    struct peer *peer =
        mapping_peer_of_real(mapping, &queued->to.address, echo ? 0 : queued->to.port);

    if (peer && !mapping_peer_may_answer(mapping, peer)) {
        count(mapping->relay->counters, COUNTER_relay_answer_denied);
        return;
    }
    if (!peer || !problem_of(&queued->error, &report.problem)) {
        count(mapping->relay->counters, COUNTER_relay_error_unrelated);
        return;
    }
    if (echo && !echo_quoted(mapping, queued->quote, queued->quote_len, &report)) {
        count(mapping->relay->counters, COUNTER_relay_error_unrelated);
        return;
    }
    if (report.problem != ICMP_PROBLEM_TOO_BIG)
        report.mtu = 0;
    report.key = mapping_key(mapping, peer);
    report.reporter = reporter_of(queued, peer);
    count(mapping->relay->counters, COUNTER_relay_error_reported);
    stack_icmp_report(mapping->relay->stack, &report);
}

static void parse_control(struct msghdr *msg, struct queued_error *queued)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        const bool v4 = c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR;
        const bool v6 = c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR;
        struct ip_endpoint offender;

        if ((!v4 && !v6) || c->cmsg_len < CMSG_LEN(sizeof queued->error))
            continue;
        memcpy(&queued->error, CMSG_DATA(c), sizeof queued->error);
        if (c->cmsg_len < CMSG_LEN(sizeof queued->error +
                                   (v4 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6))))
            continue;

        struct sockaddr_storage sa = {0};

        memcpy(&sa, CMSG_DATA(c) + sizeof queued->error,
               v4 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
        if (ip_endpoint_from_sockaddr((struct sockaddr *)&sa, &offender))
            queued->offender = offender.address;
    }
}

/* 0, or negative errno: -EAGAIN, there is none. */
static int dequeue(const struct mapping *mapping, struct queued_error *ret)
{
    union {
        struct cmsghdr align;
        char bytes[256];
    } control;
    struct sockaddr_storage to = {0};
    struct iovec iov = {ret->quote, sizeof ret->quote};
    struct msghdr msg = {
        .msg_name = &to,
        .msg_namelen = sizeof to,
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof control,
    };
    ssize_t got = recvmsg(mapping->fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT);

    if (got < 0)
        return -errno;
    ret->error = (struct sock_extended_err){.ee_origin = SO_EE_ORIGIN_NONE};
    ret->offender = (struct ip_address){.be64 = {0, 0}};
    ret->to = (struct ip_endpoint){.port = 0};
    ret->quote_len = (size_t)got;
    parse_control(&msg, ret);
    if (msg.msg_namelen)
        (void)ip_endpoint_from_sockaddr((struct sockaddr *)&to, &ret->to);
    return 0;
}

void mapping_drain_errors(struct mapping *mapping, uint32_t *ret_mtu)
{
    struct queued_error queued;

    mapping->error_pending = false;
    for (int i = 0; i < ERRORS_A_TURN; i++) {
        int r = dequeue(mapping, &queued);

        if (r == -EINTR)
            continue;
        if (r < 0)
            return;
        /* What send() said at once is told there. */
        if (queued.error.ee_origin != SO_EE_ORIGIN_LOCAL)
            report(mapping, &queued);
        else if (queued.error.ee_errno == EMSGSIZE && ret_mtu)
            *ret_mtu = queued.error.ee_info;
    }
    mapping->error_pending = true; /* more of them: next turn */
    if (list_empty(&mapping->ready))
        list_push_back(&mapping->relay->ready_mappings, &mapping->ready);
}
