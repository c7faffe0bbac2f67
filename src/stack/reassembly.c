/* SPDX-License-Identifier: Apache-2.0 */
/* Fragments from the guest, put together again (RFC 791 3.2, RFC 8200 4.5).
 *
 * Bytes are copied once into a frame that will be the datagram: a reference to the guest's frames
 * would keep its descriptors (vhost-user) and let it change what was checked. Everything is
 * bounded: SLOTS datagrams at a time, the oldest gives way; FRAMES_MAX frames of 64 KiB, counting
 * those handed up and still in use; RANGES_MAX holes; a lifetime from the first fragment.
 *
 * A slot knows which bytes have come as a sorted list of ranges that neither overlap nor touch. A
 * fragment that brings only known bytes with the same content is a duplicate and ignored. Any other
 * overlap, and any disagreement about the length, discards the datagram (RFC 5722, for both
 * families): the slot then stays, without a frame, to swallow the fragments still to come.
 *
 *     FREE ──fragment──▶ GATHERING ──complete──▶ FREE (the frame goes up)
 *       ▲                    │
 *       └──────timeout───────┴──overlap──▶ DISCARDED ──timeout──▶ FREE
 */

#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "stack/network.h"
#include "wire/ip.h"

#define SLOTS       32u
#define FRAMES_MAX  64u
#define RANGES_MAX  64u
#define LIFETIME4   (30 * SECOND_NS)
#define LIFETIME6   (60 * SECOND_NS) /* RFC 8200 4.5 */
#define PAYLOAD_MAX 65535u

enum slot_state {
    SLOT_FREE,
    SLOT_GATHERING,
    SLOT_DISCARDED,
};

struct range {
    uint32_t begin, end; /* [begin, end) of the payload */
};

struct slot {
    struct timer timer;
    struct reassembly *owner;
    enum slot_state state;
    uint64_t began;
    struct ip_address source, destination;
    uint32_t id;
    bool v6, checksum_known;
    uint8_t protocol, tos, ttl; /* of the first fragment, in the end */
    uint32_t total;             /* 0: the last fragment has not come */
    unsigned range_count;
    struct range ranges[RANGES_MAX];
    struct culvert_frame *frame;
};

struct reassembly {
    struct stack *stack;
    struct pool *frames;
    struct slot slots[SLOTS];
};

static void slot_free(struct slot *slot)
{
    timer_cancel(slot->owner->stack->timers, &slot->timer);
    slot->frame = culvert_frame_unref(slot->frame);
    slot->state = SLOT_FREE;
}

static void slot_discard(struct slot *slot)
{
    slot->frame = culvert_frame_unref(slot->frame);
    slot->state = SLOT_DISCARDED;
}

static void slot_expired(void *arg, struct timer *timer, uint64_t now)
{
    struct slot *slot = (struct slot *)((char *)timer - offsetof(struct slot, timer));

    (void)arg;
    (void)now;
    if (slot->state == SLOT_GATHERING)
        count(slot->owner->stack->counters, COUNTER_reassembly_timeout);
    slot_free(slot);
}

struct reassembly *reassembly_new(struct stack *stack)
{
    const struct pool_config frames = {
        .linear_capacity = ETHERNET_LEN + IPV6_HEADER_LEN + PAYLOAD_MAX,
        .max = FRAMES_MAX,
        .keep = 2,
    };
    struct reassembly *reassembly = calloc(1, sizeof *reassembly);

    if (!reassembly)
        return NULL;
    reassembly->stack = stack;
    reassembly->frames = pool_new(&frames);
    if (!reassembly->frames)
        return reassembly_free(reassembly);
    for (unsigned i = 0; i < SLOTS; i++) {
        reassembly->slots[i].owner = reassembly;
        timer_init(&reassembly->slots[i].timer, slot_expired);
    }
    return reassembly;
}

struct reassembly *reassembly_free(struct reassembly *reassembly)
{
    if (!reassembly)
        return NULL;
    for (unsigned i = 0; i < SLOTS; i++)
        if (reassembly->slots[i].state != SLOT_FREE)
            slot_free(&reassembly->slots[i]);
    if (reassembly->frames)
        pool_free(reassembly->frames);
    free(reassembly);
    return NULL;
}

/* IPv6 names a datagram without its protocol (RFC 8200 4.5). */
static bool slot_matches(const struct slot *slot, const struct fragment *fragment)
{
    return slot->state != SLOT_FREE && slot->id == fragment->id && slot->v6 == fragment->v6 &&
           (slot->v6 || slot->protocol == fragment->protocol) &&
           ip_address_equal(&slot->source, &fragment->source) &&
           ip_address_equal(&slot->destination, &fragment->destination);
}

static struct slot *slot_find(struct reassembly *reassembly, const struct fragment *fragment)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (slot_matches(&reassembly->slots[i], fragment))
            return &reassembly->slots[i];
    return NULL;
}

/* A free slot, or else the oldest, whose datagram is given up. */
static struct slot *slot_vacate(struct reassembly *reassembly)
{
    struct slot *oldest = &reassembly->slots[0];

    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *slot = &reassembly->slots[i];

        if (slot->state == SLOT_FREE)
            return slot;
        if (slot->began < oldest->began)
            oldest = slot;
    }
    count(reassembly->stack->counters, COUNTER_reassembly_full);
    slot_free(oldest);
    return oldest;
}

static struct slot *slot_begin(struct reassembly *reassembly, const struct fragment *fragment)
{
    struct stack *stack = reassembly->stack;
    struct culvert_frame *frame = pool_take_frame(reassembly->frames);
    struct slot *slot;

    if (!frame) {
        count(stack->counters, COUNTER_reassembly_no_memory);
        return NULL;
    }
    slot = slot_vacate(reassembly);
    slot->state = SLOT_GATHERING;
    slot->began = stack->now;
    slot->source = fragment->source;
    slot->destination = fragment->destination;
    slot->id = fragment->id;
    slot->v6 = fragment->v6;
    slot->protocol = fragment->protocol;
    slot->checksum_known = true;
    slot->total = 0;
    slot->range_count = 0;
    slot->frame = frame;
    timer_arm(stack->timers, &slot->timer, stack->now + (slot->v6 ? LIFETIME6 : LIFETIME4));
    return slot;
}

static uint8_t *slot_payload(const struct slot *slot)
{
    return slot->frame->data + ETHERNET_LEN + ip_header_len(slot->v6);
}

/* False: the fragments disagree about where the datagram ends. */
static bool agree_length(struct slot *slot, const struct fragment *fragment, uint32_t end)
{
    const uint32_t seen = slot->range_count ? slot->ranges[slot->range_count - 1].end : 0;

    if (fragment->more)
        return slot->total == 0 || end <= slot->total;
    if ((slot->total != 0 && slot->total != end) || seen > end)
        return false;
    slot->total = end;
    return true;
}

static bool same_bytes(const struct slot *slot, const struct fragment *fragment)
{
    const uint8_t *mine = slot_payload(slot) + fragment->offset;
    size_t at = fragment->frame_offset, left = fragment->len;

    while (left != 0) {
        const uint8_t *theirs;
        size_t n = frame_chunk(fragment->frame, at, &theirs);

        if (n == 0)
            return false;
        if (n > left)
            n = left;
        if (memcmp(mine, theirs, n) != 0)
            return false;
        mine += n;
        at += n;
        left -= n;
    }
    return true;
}

/* Adds [begin, end), which overlaps nothing, between the ranges `at` - 1 and `at`. */
static bool insert_range(struct slot *slot, unsigned at, uint32_t begin, uint32_t end)
{
    struct range *ranges = slot->ranges;
    bool joins_before = at > 0 && ranges[at - 1].end == begin;
    bool joins_after = at < slot->range_count && ranges[at].begin == end;

    if (joins_before && joins_after) {
        ranges[at - 1].end = ranges[at].end;
        slot->range_count--;
        memmove(&ranges[at], &ranges[at + 1], (slot->range_count - at) * sizeof *ranges);
    } else if (joins_before) {
        ranges[at - 1].end = end;
    } else if (joins_after) {
        ranges[at].begin = begin;
    } else {
        if (slot->range_count == RANGES_MAX)
            return false;
        memmove(&ranges[at + 1], &ranges[at], (slot->range_count - at) * sizeof *ranges);
        ranges[at] = (struct range){.begin = begin, .end = end};
        slot->range_count++;
    }
    return true;
}

enum addition {
    ADDITION_NEW,
    ADDITION_DUPLICATE,
    ADDITION_OVERLAP,
    ADDITION_TOO_MANY,
};

static enum addition add_range(struct slot *slot, const struct fragment *fragment)
{
    uint32_t begin = (uint32_t)fragment->offset, end = begin + (uint32_t)fragment->len;
    unsigned at = 0;

    while (at < slot->range_count && slot->ranges[at].end <= begin)
        at++;
    if (at < slot->range_count && slot->ranges[at].begin < end) {
        if (slot->ranges[at].begin <= begin && end <= slot->ranges[at].end &&
            same_bytes(slot, fragment))
            return ADDITION_DUPLICATE;
        return ADDITION_OVERLAP;
    }
    return insert_range(slot, at, begin, end) ? ADDITION_NEW : ADDITION_TOO_MANY;
}

/* False: the slot is no longer GATHERING, or nothing has changed. */
static bool slot_add(struct slot *slot, const struct fragment *fragment)
{
    struct counters *counters = slot->owner->stack->counters;
    enum addition addition = ADDITION_OVERLAP;

    if (agree_length(slot, fragment, (uint32_t)(fragment->offset + fragment->len)))
        addition = add_range(slot, fragment);
    switch (addition) {
    case ADDITION_NEW:
        return frame_copy(fragment->frame, fragment->frame_offset, fragment->len,
                          slot_payload(slot) + fragment->offset);
    case ADDITION_DUPLICATE:
        count(counters, COUNTER_reassembly_duplicate);
        return false;
    case ADDITION_OVERLAP:
        count(counters, COUNTER_reassembly_overlap);
        break;
    case ADDITION_TOO_MANY:
        count(counters, COUNTER_reassembly_too_many_holes);
        break;
    }
    slot_discard(slot);
    return false;
}

static void write_headers(const struct slot *slot, const struct culvert_frame *first)
{
    uint8_t *ip = slot->frame->data + ETHERNET_LEN;

    memcpy(slot->frame->data, first->data, ETHERNET_LEN);
    if (slot->v6) {
        ipv6_write(ip, &(struct ipv6_header){
                           .source = slot->source,
                           .destination = slot->destination,
                           .payload_len = (uint16_t)slot->total,
                           .traffic_class = slot->tos,
                           .next_header = slot->protocol,
                           .hop_limit = slot->ttl,
                       });
    } else {
        ipv4_write(ip, &(struct ipv4_header){
                           .source = slot->source,
                           .destination = slot->destination,
                           .id = (uint16_t)slot->id,
                           .total_len = (uint16_t)(IPV4_HEADER_LEN + slot->total),
                           .tos = slot->tos,
                           .ttl = slot->ttl,
                           .protocol = slot->protocol,
                       });
    }
}

/* Hands the datagram over and frees the slot. */
static void slot_complete(struct slot *slot, struct ip_packet *ret)
{
    size_t offset = ETHERNET_LEN + ip_header_len(slot->v6);

    slot->frame->len = offset + slot->total;
    *ret = (struct ip_packet){
        .frame = slot->frame,
        .ip_offset = ETHERNET_LEN,
        .offset = offset,
        .len = slot->total,
        .source = slot->source,
        .destination = slot->destination,
        .protocol = slot->protocol,
        .ttl = slot->ttl,
        .tos = slot->tos,
        .v6 = slot->v6,
        .checksum_known = slot->checksum_known,
        .reassembled = true,
    };
    slot->frame = NULL;
    slot_free(slot);
}

static bool is_complete(const struct slot *slot)
{
    return slot->total != 0 && slot->range_count == 1 && slot->ranges[0].begin == 0 &&
           slot->ranges[0].end == slot->total;
}

bool reassembly_input(struct reassembly *reassembly, const struct fragment *fragment,
                      struct ip_packet *ret_packet)
{
    struct counters *counters = reassembly->stack->counters;
    size_t limit = fragment->v6 ? PAYLOAD_MAX : PAYLOAD_MAX - IPV4_HEADER_LEN;
    struct slot *slot;

    if (fragment->len == 0 || fragment->len > limit || fragment->offset > limit - fragment->len) {
        count(counters, COUNTER_reassembly_bad_fragment);
        return false;
    }
    slot = slot_find(reassembly, fragment);
    if (!slot)
        slot = slot_begin(reassembly, fragment);
    if (!slot || slot->state == SLOT_DISCARDED || !slot_add(slot, fragment))
        return false;
    slot->checksum_known &= fragment->checksum_known;
    if (fragment->offset == 0) {
        slot->protocol = fragment->protocol; /* IPv6: the first fragment's decides */
        slot->tos = fragment->tos;
        slot->ttl = fragment->ttl;
    }
    if (!is_complete(slot))
        return false;
    write_headers(slot, fragment->frame);
    count(counters, COUNTER_reassembly_done);
    slot_complete(slot, ret_packet);
    return true;
}
