/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_ENGINE_PAPER_GUEST_H
#define TESTS_ENGINE_PAPER_GUEST_H

/* A guest that writes its frames by hand, at an engine in this process, through the public API. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <culvert/engine.h>

#define PROMPT_MS 1000 /* of a loaded machine; it takes less than one */

struct guest {
    struct culvert_engine *engine;
    struct culvert_shared_state *state;
    uint8_t subnet; /* 10.SUBNET.2.0/24 */
};

uint64_t now_ms(void);

/* An engine that lets the guest reach this host; `publish` may be NULL. */
void guest_begin(struct guest *guest, uint8_t subnet, const char *publish);
void guest_plug(struct guest *guest);
/* Both, and it runs. */
void guest_start(struct guest *guest, uint8_t subnet, const char *publish);
void stops_promptly(struct guest *guest);

/* False: the ring is full, the frame is gone. */
bool guest_send(struct guest *guest, struct culvert_frame *frame);
bool ask_for_gateway(struct guest *guest);
void gateway_answers(struct guest *guest);
/* A segment to the gateway, which stands for this host's loopback. */
void send_segment(struct guest *guest, uint16_t from, uint16_t to, uint8_t flags, uint32_t seq,
                  uint32_t ack);
/* Into an empty frame of 42 bytes: of a datagram to the gateway, `len` bytes from its UDP header
 * on, whose checksum is left undone. */
void write_udp_headers(const struct guest *guest, struct culvert_frame *frame, uint16_t from,
                       uint16_t to, uint16_t len);
/* The next frame for the guest that has this type; others are passed over. */
struct culvert_frame *await_frame(struct guest *guest, uint16_t type);

int listen_on_loopback(int backlog, uint16_t *ret_port);
int connect_to_loopback(uint16_t port, int flags);
uint16_t free_port(void);

/* A test's setup and teardown: descriptors and threads are as many as before. */
int count_what_there_is(void **state);
int nothing_is_left(void **state);

#endif
