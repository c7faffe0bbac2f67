/* SPDX-License-Identifier: Apache-2.0 */
/* The simulator's endpoint against itself over the faulty wire: what the stack is measured with
 * must itself be right. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cable.h"
#include "endpoint.h"

struct pair {
    struct schedule schedule;
    struct cable link[2];
    struct endpoint end[2];
    uint8_t scratch[65536];
    char what[256];
    unsigned frames;
};

static struct endpoint *other(struct pair *p, const struct endpoint *e)
{
    return e == &p->end[0] ? &p->end[1] : &p->end[0];
}

static struct pair *current; /* cmocka's state would be as global */

static void emits(void *ctx, const struct segment *s, const struct packet_style *style)
{
    struct endpoint *e = ctx;
    struct pair *p = current;
    p->frames++;
    cable_send(&p->link[e == &p->end[1]], packet_build(s, style));
}

static void goes_wrong(void *ctx, const char *what)
{
    (void)ctx;
    if (!current->what[0])
        snprintf(current->what, sizeof(current->what), "%s", what);
}

static void arrives(void *ctx, const struct packet *packet)
{
    struct segment s;
    struct icmp_error error;
    const char *what = NULL;
    enum packet_kind kind = packet_parse(packet, &s, &error, &what);
    if (kind == PACKET_TCP)
        endpoint_input(ctx, &s);
}

static struct endpoint_config config_of(struct rng *rng, int side, uint64_t key)
{
    struct ip_address a = ip_address_v4(htonl(0x0a000201)), b = ip_address_v4(htonl(0x0a000202));
    return (struct endpoint_config){
        .passive = side == 1,
        .address = side ? b : a,
        .peer_address = side ? a : b,
        .port = (uint16_t)(1000 + side),
        .peer_port = (uint16_t)(1001 - side),
        .iss = (uint32_t)rng_next(rng),
        .ts_offset = (uint32_t)rng_next(rng),
        .mss = 1460,
        .wscale = rng_chance(rng, 500) ? (int)rng_between(rng, 0, 10) : -1,
        .sack = rng_chance(rng, 500),
        .dsack = rng_chance(rng, 500),
        .timestamps = rng_chance(rng, 500),
        .tx_total = rng_scaled(rng, 0, 100000),
        .tx_key = key + (uint64_t)side,
        .rx_key = key + 1 - (uint64_t)side,
        .mtu = 1500,
        .gso_max = rng_chance(rng, 500) ? 30000 : 0,
        .random_sizes = rng_chance(rng, 300),
        .cwnd = rng_scaled(rng, 3000, 200000),
        .rcvbuf = rng_scaled(rng, 1, 100000),
        .read_interval = rng_chance(rng, 300) ? rng_scaled(rng, 1 * US, 5 * MS) : 0,
        .read_chunk = 10000,
        .delayed_ack = rng_chance(rng, 500) ? 40 * MS : 0,
        .ack_every = 2,
        .close_after_peer = side == 1,
        .abort_time = NEVER,
        .abort_at_tx = NEVER,
        .abort_at_rx = NEVER,
        .vanish_time = NEVER,
        .min_rto = 300 * MS,
        .syn_tries = 20,
        .tries = 50,
        .probe_with_data = rng_chance(rng, 500),
        .time_wait = 120 * SEC,
    };
}

static void talk(uint64_t seed, const struct cable_config *link)
{
    struct pair *p = calloc(1, sizeof(*p));
    struct rng rng = {.state = rng_mix(seed)};
    assert_non_null(p);
    current = p;
    schedule_init(&p->schedule, SEC);
    for (int side = 0; side < 2; side++) {
        struct endpoint_config config = config_of(&rng, side, seed * 2);
        endpoint_init(&p->end[side], &config, &p->schedule, rng_fork(&rng));
        p->end[side].scratch = p->scratch;
        p->end[side].emit = emits;
        p->end[side].wrong = goes_wrong;
        p->end[side].ctx = &p->end[side];
    }
    cable_init(&p->link[0], &p->schedule, rng_fork(&rng), link, arrives, &p->end[1]);
    cable_init(&p->link[1], &p->schedule, rng_fork(&rng), link, arrives, &p->end[0]);
    endpoint_start(&p->end[1]);
    endpoint_start(&p->end[0]);
    while (schedule_next(&p->schedule) < 4 * 3600 * SEC && !p->what[0]) {
        p->schedule.now = schedule_next(&p->schedule);
        schedule_run_one(&p->schedule);
    }
    for (int side = 0; side < 2; side++) {
        const struct endpoint *e = &p->end[side];
        if (p->what[0] || e->result != RESULT_DONE || e->rcv_nxt != other(p, e)->config.tx_total)
            fail_msg("seed %llu, side %d: %s, %s; sent %llu of %llu, acked %llu, window %llu, "
                     "received %llu of %llu, %u frames, tries %u",
                     (unsigned long long)seed, side, p->what, endpoint_result_name(e->result),
                     (unsigned long long)e->max, (unsigned long long)e->config.tx_total,
                     (unsigned long long)e->una, (unsigned long long)e->snd_wnd,
                     (unsigned long long)e->rcv_nxt,
                     (unsigned long long)other(p, e)->config.tx_total, p->frames, e->tries);
    }
    assert_int_equal(p->schedule.count, 0);
    schedule_fini(&p->schedule);
    free(p);
}

static void two_endpoints_understand_each_other(void **state)
{
    (void)state;
    const struct cable_config link = {.delay = MS};
    for (uint64_t seed = 1; seed <= 100; seed++)
        talk(seed, &link);
}

static void two_endpoints_survive_loss_and_disorder(void **state)
{
    (void)state;
    const struct cable_config link = {.delay = MS,
                                      .jitter = MS,
                                      .loss = 50,
                                      .duplicate = 20,
                                      .reorder = 50,
                                      .reorder_delay = 10 * MS,
                                      .stale = 10,
                                      .split = true};
    for (uint64_t seed = 1; seed <= 100; seed++)
        talk(seed, &link);
}

static void a_stream_is_a_function_of_its_position(void **state)
{
    (void)state;
    uint8_t bytes[100];
    stream_fill(7, 3, bytes, sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++)
        assert_int_equal(bytes[i], stream_byte(7, 3 + i));
    assert_int_equal(stream_matches(7, 3, bytes, sizeof(bytes)), sizeof(bytes));
    bytes[61] ^= 1;
    assert_int_equal(stream_matches(7, 3, bytes, sizeof(bytes)), 61);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_is_a_function_of_its_position),
        cmocka_unit_test(two_endpoints_understand_each_other),
        cmocka_unit_test(two_endpoints_survive_loss_and_disorder),
    };
    return cmocka_run_group_tests_name("sim-selftest", tests, NULL, NULL);
}
