/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CULVERT_FRAME_H
#define CULVERT_FRAME_H

/** @file
 * An Ethernet frame with the facts of its virtio-net header.
 *
 * A frame is private linear bytes (`data`, `len`: at least the protocol headers, often all of it)
 * followed by segments, each a view into a reference-counted buffer. The headers of a queued frame
 * never change; buffers behind it may be shared by several frames (a retransmission is a new frame
 * over the same buffers).
 *
 * Ownership: every frame has references; whoever holds one may read. culvert_ring_push() takes the
 * caller's reference when it returns true. Threads: a frame may be written by the one thread that
 * made it until it is pushed; _ref, _unref and reading are allowed from any thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/** Largest frame: 65,535 bytes of IPv6 payload, 40 of its header, 14 of Ethernet, 4 of a VLAN tag.
 */
#define CULVERT_FRAME_MAX 65593u

/** Flags of struct culvert_offload; values as in virtio 1.2, section 5.1.6. */
enum culvert_offload_flag {
    CULVERT_OFFLOAD_NEEDS_CSUM =
        1, /**< checksum from csum_start to the end, store at + csum_offset */
    CULVERT_OFFLOAD_DATA_VALID = 2, /**< checksums were verified by the sender's side */
};

/** Values of gso_type; as in virtio 1.2, section 5.1.6. */
enum culvert_gso {
    CULVERT_GSO_NONE = 0,
    CULVERT_GSO_TCPV4 = 1,
    CULVERT_GSO_UDP = 3, /**< legacy IPv4 fragmentation offload; accepted, never produced */
    CULVERT_GSO_TCPV6 = 4,
    CULVERT_GSO_UDP_L4 = 5, /**< the payload is many datagrams of gso_size bytes */
    CULVERT_GSO_ECN = 0x80, /**< may be or-ed to the TCP types */
};

/** The virtio-net header's facts, in host byte order; each netdev converts. All zero: a plain
 * frame. */
struct culvert_offload {
    uint8_t flags;        /**< enum culvert_offload_flag */
    uint8_t gso_type;     /**< enum culvert_gso */
    uint16_t hdr_len;     /**< bytes of headers in front of the payload (a hint) */
    uint16_t gso_size;    /**< payload bytes of each segment; 0 without GSO */
    uint16_t csum_start;  /**< from the frame's first byte */
    uint16_t csum_offset; /**< from csum_start */
};

/** A reference-counted piece of memory. Made by culvert_buffer_new() or by an engine's pools. */
struct culvert_buffer {
    uint8_t *data;
    size_t capacity; /**< bytes at data */
    uint32_t refs;   /**< touched only by _ref and _unref */
    uint32_t user;   /**< the owner's to use */
    /** Called by the last _unref, from whichever thread that is; must free or recycle the buffer.
     */
    void (*release)(struct culvert_buffer *, void *arg);
    void *release_arg;
};

/** A view into a buffer; holds one reference on it. */
struct culvert_segment {
    struct culvert_buffer *buffer;
    uint8_t *base;
    size_t len;
};

struct culvert_frame {
    uint8_t *data;   /**< the linear bytes; begins with the Ethernet header */
    size_t len;      /**< of the linear bytes */
    size_t capacity; /**< of the linear bytes */
    struct culvert_offload offload;
    uint16_t segment_count;
    uint16_t segment_capacity;
    /** The segments lie in memory that the guest may change, and waits to have back (vhost-user):
     * bytes that are judged, or kept beyond the batch, are copied first. */
    bool borrowed;
    uint32_t refs;                    /**< touched only by _ref and _unref */
    struct culvert_segment *segments; /**< what follows data[len - 1] */
    uint64_t user;                    /**< the producer's to use (a vhost-user descriptor, say) */
    /** Called by the last _unref with the segments already given back, from whichever thread that
     * is; must free or recycle the frame. */
    void (*release)(struct culvert_frame *, void *arg);
    void *release_arg;
};

/** A frame with one reference and `capacity` linear bytes (len 0, no segments, room for 4), or NULL
 * with errno ENOMEM. Any thread. */
struct culvert_frame *culvert_frame_new(size_t capacity);
/** One more reference; returns its argument. Any thread. */
struct culvert_frame *culvert_frame_ref(struct culvert_frame *frame);
/** One reference less; the last one releases. Accepts NULL; returns NULL. Any thread. */
struct culvert_frame *culvert_frame_unref(struct culvert_frame *frame);
/** The same as culvert_frame_unref(). */
struct culvert_frame *culvert_frame_free(struct culvert_frame *frame);
/** Total bytes, segments included. */
size_t culvert_frame_len(const struct culvert_frame *frame);
/** Fills at most `max` iovecs with the whole frame, in order; returns how many a complete view
 * needs (more than max: the view is cut). */
size_t culvert_frame_iov(const struct culvert_frame *frame, struct iovec *iov, size_t max);
/** As _iov, for the bytes [offset, offset + len) only. `offset + len` beyond the frame is cut. */
size_t culvert_frame_slice(const struct culvert_frame *frame, size_t offset, size_t len,
                           struct iovec *iov, size_t max);
/** Appends a view of [base, base + len) in `buffer`, taking one new reference on the buffer.
 * Returns 0, or -ENOSPC when all segments are in use. */
int culvert_frame_append(struct culvert_frame *frame, struct culvert_buffer *buffer, uint8_t *base,
                         size_t len);

/** A buffer with one reference, or NULL with errno ENOMEM. Any thread. */
struct culvert_buffer *culvert_buffer_new(size_t capacity);
struct culvert_buffer *culvert_buffer_ref(struct culvert_buffer *buffer);
/** Accepts NULL; returns NULL. Any thread. */
struct culvert_buffer *culvert_buffer_unref(struct culvert_buffer *buffer);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
