/* SPDX-License-Identifier: Apache-2.0 */
/* UDP under rules by name, from a guest whose datagrams lie in memory that it goes on writing to,
 * as vhost-user's do. */

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../inspect/quic_client.h"
#include "paper_guest.h"

#define HEADERS 42

/* What the guest lent to its device. */
struct loan {
    uint8_t bytes[2048];
    struct culvert_buffer buffer;
    bool given_back;
};

static void give_back(struct culvert_buffer *buffer, void *arg)
{
    struct loan *loan = arg;

    (void)buffer;
    __atomic_store_n(&loan->given_back, true, __ATOMIC_RELEASE);
}

static struct guest guest;
static int server;
static uint16_t port;

static void set(struct culvert_config *config, const char *name, const char *value)
{
    struct culvert_error error = {""};

    if (culvert_config_set(config, name, value, &error) < 0)
        fail_msg("%s", error.message);
}

static int begin(void **state)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    struct culvert_config *config = culvert_config_new();
    struct culvert_error error = {""};

    count_what_there_is(state);
    server = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(getsockname(server, (struct sockaddr *)&sa, &len), 0);
    port = ntohs(sa.sin_port);

    set(config, "guest-ipv4", "10.7.2.100/24");
    set(config, "ipv6", "off");
    set(config, "profile", "none");
    set(config, "dns-host", "ok.test=10.7.2.2");
    set(config, "dns-host", "denied.test=10.7.2.2");
    set(config, "rule", "allow udp to ok.test");
    guest = (struct guest){.engine = culvert_engine_new(config, &error), .subnet = 7};
    if (!guest.engine)
        fail_msg("%s", error.message);
    culvert_config_free(config);
    guest.state = culvert_engine_shared_state(guest.engine);
    guest_plug(&guest);
    assert_int_equal(culvert_engine_start(guest.engine), 0);
    gateway_answers(&guest);
    return 0;
}

static int end(void **state)
{
    stops_promptly(&guest);
    close(server);
    return nothing_is_left(state);
}

/* The datagram in borrowed memory, its headers before it in private memory. */
static void lend_from(struct loan *loan, const struct datagram *datagram, uint16_t from)
{
    struct culvert_frame *frame = culvert_frame_new(HEADERS);
    const uint16_t len = (uint16_t)(8 + datagram->len);

    assert_true(datagram->len <= sizeof loan->bytes);
    *loan = (struct loan){.buffer = {.data = loan->bytes,
                                     .capacity = sizeof loan->bytes,
                                     .refs = 1,
                                     .release = give_back,
                                     .release_arg = loan}};
    memcpy(loan->bytes, datagram->bytes, datagram->len);
    write_udp_headers(&guest, frame, from, port, len);
    assert_int_equal(culvert_frame_append(frame, &loan->buffer, loan->bytes, datagram->len), 0);
    culvert_buffer_unref(&loan->buffer);
    frame->borrowed = true;
    assert_true(guest_send(&guest, frame));
}

static void lend(struct loan *loan, const struct datagram *datagram)
{
    lend_from(loan, datagram, 5000);
}

static bool was_returned(const struct loan *loan)
{
    return __atomic_load_n(&loan->given_back, __ATOMIC_ACQUIRE);
}

static void await_return(const struct loan *loan)
{
    for (int i = 0; i < 5000 && !was_returned(loan); i++)
        usleep(1000);
    assert_true(was_returned(loan));
}

static void arrives(const struct datagram *datagram)
{
    struct pollfd ready = {.fd = server, .events = POLLIN};
    uint8_t bytes[4096];

    assert_int_equal(poll(&ready, 1, 5000), 1);
    assert_int_equal(recv(server, bytes, sizeof bytes, 0), datagram->len);
    assert_memory_equal(bytes, datagram->bytes, datagram->len);
}

static void nothing_arrives(void)
{
    struct pollfd ready = {.fd = server, .events = POLLIN};

    assert_int_equal(poll(&ready, 1, 50), 0);
}

/* A hello in two datagrams. */
static void write_hello(struct datagram datagrams[2], struct quic_client *client, const char *name)
{
    uint8_t message[512];
    const size_t len = client_hello(message, sizeof message, name, 300);

    datagrams[0].len = datagrams[1].len = 0;
    add_crypto(&datagrams[0], client, 0, message, len / 2);
    add_crypto(&datagrams[1], client, len / 2, message + len / 2, len - len / 2);
}

static void what_is_held_is_private_and_keeps_nobodys_memory(void **state)
{
    struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");
    struct datagram datagrams[2];
    struct loan loans[2];

    (void)state;
    write_hello(datagrams, &client, "ok.test");
    lend(&loans[0], &datagrams[0]);
    await_return(&loans[0]);
    memset(loans[0].bytes, 0xee, sizeof loans[0].bytes);
    nothing_arrives();
    lend(&loans[1], &datagrams[1]);
    arrives(&datagrams[0]);
    arrives(&datagrams[1]);
    await_return(&loans[1]);
}

static void later_datagrams_of_such_a_flow_are_private_too(void **state)
{
    struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");
    struct datagram datagrams[2], later = {.bytes = "\x40 goes on", .len = 9};
    struct loan loans[3];

    (void)state;
    write_hello(datagrams, &client, "ok.test");
    for (int i = 0; i < 2; i++)
        lend(&loans[i], &datagrams[i]);
    arrives(&datagrams[0]);
    arrives(&datagrams[1]);
    lend(&loans[2], &later);
    arrives(&later);
    client = quic_client_of(QUIC_VERSION_1, "another1");
    write_hello(datagrams, &client, "denied.test");
    for (int i = 0; i < 2; i++) {
        await_return(&loans[i]);
        lend(&loans[i], &datagrams[i]);
    }
    nothing_arrives();
    for (int i = 0; i < 3; i++)
        await_return(&loans[i]);
}

/* A server that got the beginning would take the rest of another hello for its end. */
static void what_began_another_connection_does_not_leave_with_the_admitted_one(void **state)
{
    struct quic_client first = quic_client_of(QUIC_VERSION_1, "somebody");
    struct quic_client second = quic_client_of(QUIC_VERSION_1, "another1");
    struct datagram datagrams[2];
    struct loan loans[3];

    (void)state;
    write_hello(datagrams, &first, "denied.test");
    lend(&loans[0], &datagrams[0]);
    await_return(&loans[0]);
    nothing_arrives();
    write_hello(datagrams, &second, "ok.test");
    for (int i = 0; i < 2; i++) {
        lend(&loans[1 + i], &datagrams[i]);
        await_return(&loans[1 + i]);
    }
    arrives(&datagrams[0]);
    arrives(&datagrams[1]);
    nothing_arrives();
}

static void a_connection_that_left_is_not_read_from_its_beginning_again(void **state)
{
    struct quic_client first = quic_client_of(QUIC_VERSION_1, "somebody");
    struct quic_client second = quic_client_of(QUIC_VERSION_1, "another1");
    struct quic_client *const clients[] = {&first, &second};
    struct datagram datagrams[2];
    struct loan loan;

    (void)state;
    for (int n = 0; n < 2; n++) {
        write_hello(datagrams, clients[n], "ok.test");
        for (int i = 0; i < 2; i++) {
            lend(&loan, &datagrams[i]);
            await_return(&loan);
        }
        arrives(&datagrams[0]);
        arrives(&datagrams[1]);
    }
    write_hello(datagrams, &first, "ok.test");
    for (unsigned n = 0; n < 2; n++) {
        for (int i = 0; i < 2; i++) {
            lend_from(&loan, &datagrams[i], (uint16_t)(5000 + n)); /* nor from another port */
            await_return(&loan);
        }
        nothing_arrives();
    }
}

static void an_engine_may_end_while_datagrams_are_held(void **state)
{
    struct quic_client client = quic_client_of(QUIC_VERSION_1, "somebody");
    struct datagram datagrams[2];
    static struct loan loan;

    (void)state;
    write_hello(datagrams, &client, "ok.test");
    lend(&loan, &datagrams[0]);
    await_return(&loan);
    nothing_arrives();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
        TEST(what_is_held_is_private_and_keeps_nobodys_memory),
        TEST(later_datagrams_of_such_a_flow_are_private_too),
        TEST(what_began_another_connection_does_not_leave_with_the_admitted_one),
        TEST(a_connection_that_left_is_not_read_from_its_beginning_again),
        TEST(an_engine_may_end_while_datagrams_are_held),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
