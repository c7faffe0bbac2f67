/* SPDX-License-Identifier: Apache-2.0 */
/* The control queue (virtio 1.2, 5.1.6.5). A cable with one machine at its other end filters
 * nothing, so the receive mode and address filters are acknowledged and mean nothing; the number of
 * pairs is checked, and taken note of by steering following the queues that are used. */
#include <errno.h>
#include <string.h>

#include "netdev/vhost_user_internal.h"
#include "wire/bytes.h"

#define PIECES_MAX  64u
#define COMMAND_LEN 4u /* class, command, and a number at most */
#define AT_ONCE     16

static uint8_t answer_to(const struct vhost_user *device, const uint8_t *command, size_t len)
{
    if (len < 2)
        return VIRTIO_NET_ERR;
    switch (command[0]) {
    case VIRTIO_NET_CTRL_RX:
    case VIRTIO_NET_CTRL_MAC:
    case VIRTIO_NET_CTRL_ANNOUNCE:
        return VIRTIO_NET_OK;
    case VIRTIO_NET_CTRL_MQ: {
        uint16_t pairs = len >= COMMAND_LEN ? load_le16(command + 2) : 0;

        return vhost_user_has(device, VIRTIO_NET_F_MQ) &&
                       command[1] == VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET && pairs >= 1 &&
                       pairs <= VHOST_PAIRS
                   ? VIRTIO_NET_OK
                   : VIRTIO_NET_ERR;
    }
    default:
        return VIRTIO_NET_ERR;
    }
}

/* The first bytes of the readable pieces; how many there are. */
static size_t read_command(const struct iovec *iov, unsigned pieces, uint8_t *to)
{
    size_t len = 0;

    for (unsigned i = 0; i < pieces && len < COMMAND_LEN; i++) {
        size_t n = iov[i].iov_len < COMMAND_LEN - len ? iov[i].iov_len : COMMAND_LEN - len;

        memcpy(to + len, iov[i].iov_base, n);
        len += n;
    }
    return len;
}

static int take_command(struct vhost_user *device, struct vhost_ring *ring)
{
    struct iovec iov[PIECES_MAX];
    uint8_t command[COMMAND_LEN];
    struct vhost_chain chain;
    int r = vhost_ring_chain(ring, 0, VHOST_BOTH, iov, PIECES_MAX, &chain);

    if (r < 0)
        return r == -EMSGSIZE ? -EBADMSG : r;
    if (chain.readable == chain.pieces)
        return -EBADMSG; /* nowhere to answer */
    vhost_ring_take(ring, 1);
    *(uint8_t *)iov[chain.readable].iov_base =
        answer_to(device, command, read_command(iov, chain.readable, command));
    vhost_ring_give_back(ring, chain.head, 1);
    return 0;
}

void vhost_control(struct vhost_user *device, struct vhost_queue *queue)
{
    int r = 1;

    for (int i = 0; i < AT_ONCE && r > 0; i++) {
        r = vhost_ring_available(&queue->ring);
        if (r > 0 && (r = take_command(device, &queue->ring)) == 0)
            r = 1;
    }
    if (r < 0)
        vhost_user_fail(device, vhost_ring_reason(r));
}
