/* SPDX-License-Identifier: Apache-2.0 */
/* A policy document, from its first byte to its first 0; the rest is what every list file holds. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/names.h"
#include "policy/review.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

struct list {
    const uint8_t *data;
    size_t size;
};

static int read_list(void *ctx, const char *path, char **ret, size_t *ret_len)
{
    const struct list *list = ctx;
    (void)path;
    if (list->size == 0)
        return -ENOENT;
    *ret = malloc(list->size);
    check(*ret != NULL);
    memcpy(*ret, list->data, list->size);
    *ret_len = list->size;
    return 0;
}

static void check_message(const char *message, size_t size)
{
    check(memchr(message, '\0', size) != NULL && message[0] != '\0' && !strchr(message, '\n'));
    for (; *message; message++)
        check(*message >= ' ' && *message <= '~');
}

static void found(void *ctx, const struct review_finding *finding)
{
    const struct policy *policy = ctx;
    check(policy_rule_text(policy, finding->rule) && policy_rule_text(policy, finding->by));
}

static void use(struct policy_builder *builder)
{
    struct policy *policy = policy_build_at(builder, 1, 1798761600);
    struct dns_name name;
    check(policy != NULL);
    check(name_from_guest("www.example.com", 15, &name) == 0);
    (void)policy_judge_query(policy, &name);
    check(policy_review(builder, 1798761600, found, policy) == 0);
    policy_free(policy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = size ? memchr(data, '\0', size) : NULL;
    size_t len = zero ? (size_t)(zero - data) : size;
    struct list list = {zero ? zero + 1 : data + size, zero ? size - len - 1 : 0};
    struct policy_builder *builder = policy_builder_new();
    char message[256] = "";

    check(builder != NULL);
    policy_builder_files(builder, read_list, &list);
    int r = policy_builder_document(builder, size ? (const char *)data : "", len, "/etc/p.json",
                                    message, sizeof message);
    if (r == 0)
        r = policy_builder_check(builder, message, sizeof message);
    check(r == 0 || r == -EINVAL);
    if (r == 0)
        use(builder);
    else
        check_message(message, sizeof message);
    policy_builder_free(builder);
    return 0;
}
