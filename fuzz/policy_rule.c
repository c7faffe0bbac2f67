/* SPDX-License-Identifier: Apache-2.0 */
/* A line is a rule or its fault can be shown; and what parses compiles and can be asked. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/names.h"
#include "policy/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void check_message(const char *message, size_t size)
{
    check(memchr(message, '\0', size) != NULL && message[0] != '\0');
    for (; *message; message++)
        check(*message >= ' ' && *message <= '~');
}

static void ask(const struct policy *policy)
{
    struct policy_world world = {.is_host_address = NULL};
    struct dns_name name;
    check(name_from_guest("www.example.com", 15, &name) == 0);
    for (unsigned state = 0; state < 4; state++) {
        struct policy_query query = {.protocol = POLICY_TCP,
                                     .address = ip_address_v4(htonl(0x5db8d822)),
                                     .port = 443,
                                     .name_state = (enum policy_name_state)state,
                                     .name = &name,
                                     .held = &name};
        struct policy_verdict verdict = policy_judge(policy, &world, &query);
        check(verdict.rule == UINT32_MAX || policy_rule_text(policy, verdict.rule) != NULL);
    }
    (void)policy_judge_query(policy, &name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct policy_builder *builder = policy_builder_new();
    char *text = calloc(1, size + 1), message[200] = "";

    check(builder && text);
    memcpy(text, data, size); /* not strndup(): sanitizers take that to read a byte more */
    int r = policy_builder_add(builder, text, NULL, message, sizeof message);
    check(r == 0 || r == -EINVAL);
    if (r == -EINVAL)
        check_message(message, sizeof message);
    struct policy *policy = r == 0 ? policy_build(builder, 1) : NULL;
    if (policy)
        ask(policy);
    policy_free(policy);
    policy_builder_free(builder);
    free(text);
    return 0;
}
