/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/event_text.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

/* A byte of UTF-8 that may only follow another. */
static bool is_continuation(uint8_t byte)
{
    return (byte & 0xc0) == 0x80;
}

/* Bytes of the character that begins here; 0: there is none that may be shown. */
static size_t character_len(const uint8_t *text)
{
    if (text[0] >= ' ' && text[0] < 0x7f)
        return 1;
    if (text[0] >= 0xc3 && text[0] <= 0xdf && is_continuation(text[1]))
        return 2; /* below 0xc3 0x80 only control characters and a few signs: escaped */
    if (text[0] > 0xe0 && text[0] <= 0xec && is_continuation(text[1]) && is_continuation(text[2]))
        return 3;
    return 0;
}

static bool is_showable(const char *text)
{
    const uint8_t *at = (const uint8_t *)text;

    while (*at != '\0') {
        size_t len = character_len(at);

        if (len == 0)
            return false;
        at += len;
    }
    return true;
}

/* What the user wrote, as it is if it can be shown so, else escaped; NULL stays NULL. */
static const char *show(const char *from, char *text, size_t size)
{
    if (!from)
        return NULL;
    size_t len = strlen(from);

    if (len >= size || !is_showable(from))
        return text_show(from, len, text, size);
    return memcpy(text, from, len + 1);
}

static void describe_rule(const struct event *event, const struct policy *policy,
                          struct event_texts *texts, struct culvert_event *ret)
{
    uint32_t rule = event->rule;

    ret->rule = UINT32_MAX;
    if (rule == UINT32_MAX || event->generation != policy_generation(policy))
        return;
    ret->rule = rule;
    ret->rule_text = show(policy_rule_text(policy, rule), texts->rule, sizeof texts->rule);
    ret->rule_id = show(policy_rule_id(policy, rule), texts->rule_id, sizeof texts->rule_id);
    ret->rule_where =
        show(policy_rule_where(policy, rule), texts->rule_where, sizeof texts->rule_where);
}

static void describe_flow(const struct event *event, struct event_texts *texts,
                          struct culvert_event *ret)
{
    const struct flow_key *key = &event->key;
    bool is_echo = key->protocol != IPPROTO_TCP && key->protocol != IPPROTO_UDP;

    if (key->protocol == 0 && event->reason != COUNTER_dns_rebinding)
        return;
    ret->remote_address = ip_address_format(&key->remote, texts->remote);
    if (key->protocol == 0)
        return;
    ret->protocol = is_echo ? IPPROTO_ICMP : key->protocol;
    ret->direction =
        event->direction == POLICY_EGRESS ? CULVERT_EVENT_EGRESS : CULVERT_EVENT_INGRESS;
    ret->guest_address = ip_address_format(&key->guest, texts->guest);
    if (!is_echo) {
        ret->remote_port = key->remote_port;
        ret->guest_port = key->guest_port;
    }
}

void event_describe(const struct event *event, uint64_t count, const struct policy *policy,
                    const struct policy_world *world, struct event_texts *texts,
                    struct culvert_event *ret)
{
    *ret = (struct culvert_event){
        .size = sizeof *ret,
        .kind = event->kind,
        .time = event->time,
        .count = count,
        .name_source = event->name_source,
        .question_type = event->question_type,
        .generation = event->generation,
    };
    describe_flow(event, texts, ret);
    describe_rule(event, policy, texts, ret);
    if (event->name_source != CULVERT_EVENT_NAME_NONE)
        ret->name = name_show(&event->name, texts->name);
    if (event->kind != CULVERT_EVENT_POLICY_REPLACED) {
        ret->reason = counter_name(event->reason);
        ret->sentence = counter_sentence(event->reason);
    }
    if (event->key.protocol != 0 || event->name_source == CULVERT_EVENT_NAME_QUESTION)
        ret->remedy = event_remedy(event, policy, world, texts->remedy);
}
