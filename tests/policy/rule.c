/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/rule.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void describe_target(const struct rule_target *target, char *text, size_t size)
{
    char address[IP_ADDRESS_TEXT_MAX], name[NAME_SHOWN_MAX + 2];
    switch (target->kind) {
    case RULE_TARGET_ANY:
        snprintf(text, size, "any");
        break;
    case RULE_TARGET_GROUP:
        snprintf(text, size, "%s", rule_group_name(target->group));
        break;
    case RULE_TARGET_PREFIX:
        snprintf(text, size, "%s/%u", ip_address_format(&target->prefix.address, address),
                 target->prefix.length);
        break;
    case RULE_TARGET_NAME:
        snprintf(text, size, "<%s>", name_pattern_show(target->pattern, name));
        break;
    case RULE_TARGET_SET:
        snprintf(text, size, "@%s", target->set);
        break;
    }
}

/* The rule in one spelling: "allow tcp,udp to any,public,10.0.0.0/104 port 1-2,3-3". */
static void describe(const struct rule *rule, char *text, size_t size)
{
    static const char *const actions[] = {"allow", "deny", "drop"};
    size_t used = 0;
#define PUT(...) used += (size_t)snprintf(text + used, used < size ? size - used : 0, __VA_ARGS__)
    PUT("%s %s%s%s %s", actions[rule->action], rule->protocols & POLICY_TCP ? "t" : "",
        rule->protocols & POLICY_UDP ? "u" : "", rule->protocols & POLICY_ICMP ? "i" : "",
        rule->direction == POLICY_EGRESS ? "to" : "from");
    for (size_t i = 0; i < rule->target_count; i++) {
        const struct rule_target *target = &rule->targets[i];
        PUT("%s", i ? "," : " ");
        describe_target(target, text + used, size - used);
        used += strlen(text + used);
    }
    for (size_t i = 0; i < rule->port_count; i++)
        PUT("%s%u-%u", i ? "," : " port ", rule->ports[i].low, rule->ports[i].high);
    for (size_t i = 0; i < rule->widening_count; i++) {
        PUT("%s", i ? "," : " in ");
        describe_target(&rule->widening[i], text + used, size - used);
        used += strlen(text + used);
    }
#undef PUT
}

static const struct {
    const char *rule, *meaning;
} GOOD[] = {
    {"allow to any", "allow tui to any"},
    {"deny to any", "deny tui to any"},
    {"reject to any", "deny tui to any"},
    {"drop to any", "drop tui to any"},
    {"allow any to any", "allow tui to any"},
    {"allow tcp to any", "allow t to any"},
    {"allow udp to any", "allow u to any"},
    {"allow icmp to any", "allow i to any"},
    {"allow from any", "allow tui from any"},
    {"deny tcp from private port 22", "deny t from private port 22-22"},
    {"ALLOW TCP TO PUBLIC PORT 443", "allow t to public port 443-443"},
    {"allow to public", "allow tui to public"},
    {"allow to private", "allow tui to private"},
    {"allow to link-local", "allow tui to link-local"},
    {"allow to metadata", "allow tui to metadata"},
    {"allow to multicast", "allow tui to multicast"},
    {"allow to host", "allow tui to host"},
    {"allow to dns", "allow tui to dns"},
    {"allow to public,private,dns", "allow tui to public,private,dns"},
    {"allow to public , private,\tdns", "allow tui to public,private,dns"},
    {"  allow\tto   any  ", "allow tui to any"},
    {"allow to any # everything", "allow tui to any"},
    {"allow to any#everything", "allow tui to any"},
    {"allow to any port 80 #, 443", "allow tu to any port 80-80"},
    {"allow to 1.2.3.4", "allow tui to 1.2.3.4/128"},
    {"allow to 1.2.3.4/32", "allow tui to 1.2.3.4/128"},
    {"allow to 10.0.0.0/8", "allow tui to 10.0.0.0/104"},
    {"allow to 0.0.0.0/0", "allow tui to 0.0.0.0/96"},
    {"allow to 10.0.0.0/8,fd00::/8,::1", "allow tui to 10.0.0.0/104,fd00::/8,::1/128"},
    {"allow to ::/0", "allow tui to ::/0"},
    {"allow to fd00::1", "allow tui to fd00::1/128"},
    {"allow to [fd00::1]", "allow tui to fd00::1/128"},
    {"allow to [fd00::]/8", "allow tui to fd00::/8"},
    {"allow to [fd00::/8]", "allow tui to fd00::/8"},
    {"allow to 64:ff9b::/96", "allow tui to 64:ff9b::/96"},
    {"allow to 2001:DB8::/32", "allow tui to 2001:db8::/32"},
    {"allow to any port 1", "allow tu to any port 1-1"},
    {"allow to any port 65535", "allow tu to any port 65535-65535"},
    {"allow to any port 1-65535", "allow tu to any port 1-65535"},
    {"allow to any port 80,443", "allow tu to any port 80-80,443-443"},
    {"allow to any port 80, 443 ,8000-8100", "allow tu to any port 80-80,443-443,8000-8100"},
    {"allow udp to dns port 53", "allow u to dns port 53-53"},
    {"allow any to any port 53", "allow tu to any port 53-53"},
    {"allow to any port 00080", "allow tu to any port 80-80"},
    {"allow to example.com", "allow tui to <example.com>"},
    {"allow to EXAMPLE.Com.", "allow tui to <example.com>"},
    {"allow tcp to *.Example.com port 443", "allow t to <*.example.com> port 443-443"},
    {"allow to *.example.com.", "allow tui to <*.example.com>"},
    {"allow to api-*.example.com", "allow tui to <api-*.example.com>"},
    {"allow to s3.*.amazonaws.com", "allow tui to <s3.*.amazonaws.com>"},
    {"allow to *-eu.example.com", "allow tui to <*-eu.example.com>"},
    {"allow to _dmarc.example.com", "allow tui to <_dmarc.example.com>"},
    {"allow to xn--bcher-kva.example", "allow tui to <xn--bcher-kva.example>"},
    {"allow to b\xc3\xbc"
     "cher.example",
     "allow tui to <xn--bcher-kva.example>"},
    {"allow to *.B\xc3\x9c"
     "CHER.example",
     "allow tui to <*.xn--bcher-kva.example>"},
    {"allow to intranet.", "allow tui to <intranet>"},
    {"allow to *.internal", "allow tui to <*.internal>"},
    {"allow to 1und1.example", "allow tui to <1und1.example>"},
    {"allow to 10.0.0.1.example", "allow tui to <10.0.0.1.example>"},
    {"allow to a.test, 10.0.0.0/8,*.b.test", "allow tui to <a.test>,10.0.0.0/104,<*.b.test>"},
    {"allow to *.s3.amazonaws.com", "allow tui to <*.s3.amazonaws.com>"},
    {"deny to *.zip", "deny tui to <*.zip>"},
    {"drop to *.co.uk port 80", "drop tu to <*.co.uk> port 80-80"},
    {"allow to @web", "allow tui to @web"},
    {"deny udp to @file:/etc/list port 53", "deny u to @file:/etc/list port 53-53"},
    {"allow from @clients port 22", "allow tu from @clients port 22-22"},
    {"allow tcp to git.corp.example in 10.0.0.0/8",
     "allow t to <git.corp.example> in 10.0.0.0/104"},
    {"allow to *.corp.example port 443 in private, host,1.2.3.4",
     "allow tu to <*.corp.example> port 443-443 in private,host,1.2.3.4/128"},
    {"allow to @web in any", "allow tui to @web in any"},
};

static void rules_mean_what_they_say(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof GOOD / sizeof GOOD[0]; i++) {
        struct rule rule;
        char message[256] = "", meaning[256];
        if (rule_parse(GOOD[i].rule, &rule, message, sizeof message) != 0)
            fail_msg("%s: %s", GOOD[i].rule, message);
        describe(&rule, meaning, sizeof meaning);
        if (strcmp(meaning, GOOD[i].meaning) != 0)
            fail_msg("%s: means \"%s\", not \"%s\"", GOOD[i].rule, meaning, GOOD[i].meaning);
        assert_string_equal(rule.text, GOOD[i].rule);
        rule_clear(&rule);
    }
}

static const struct {
    const char *rule;
    unsigned column;
    const char *says; /* a part of the message */
} BAD[] = {
    {"", 1, "empty"},
    {"   ", 1, "empty"},
    {"allow to any\ndeny to any", 13, "one line"},
    {"allow to any\r\n", 13, "one line"},
    {"alow to any", 1, "did you mean \"allow\""},
    {"permit to any", 1, "expected an action (allow, deny or drop), not \"permit\""},
    {"  dney to any", 3, "did you mean \"deny\""},
    {", to any", 1, "expected an action"},
    {"allow", 6, "ends where"},
    {"allow any", 10, "ends where \"to\""},
    {"allow tcp", 10, "ends where \"to\" or \"from\""},
    {"allow tpc to any", 7, "did you mean \"tcp\""},
    {"allow icmpv6 to any", 7, "did you mean \"icmp\""},
    {"allow sctp to any", 7, "did you mean \"tcp\""},
    {"allow tcp any", 11, "expected \"to\" or \"from\", not \"any\""},
    {"allow 10.0.0.0/8", 7, "expected \"to\", \"from\" or a protocol"},
    {"allow tcp form any", 11, "did you mean \"from\""},
    {"allow to", 9, "a target is missing"},
    {"allow to ", 10, "a target is missing"},
    {"allow to # any", 10, "a target is missing"},
    {"allow to port 80", 10, "a target is missing"},
    {"allow to any,", 14, "a target is missing"},
    {"allow to ,any", 10, "a target is missing"},
    {"allow to any,,dns", 14, "a target is missing"},
    {"allow to pubilc", 10, "unknown target \"pubilc\"; did you mean \"public\""},
    {"allow to privat", 10, "did you mean \"private\""},
    {"allow to linklocal", 10, "did you mean \"link-local\""},
    {"allow to metdata", 10, "did you mean \"metadata\""},
    {"allow to hots", 10, "did you mean \"host\""},
    {"allow to any,public,dsn", 21, "did you mean \"dns\""},
    {"allow to localhost", 10, "group \"host\""},
    {"allow to *", 10, "write \"any\""},
    {"allow to all", 10, "write \"any\""},
    {"allow to internet", 10, "group \"public\""},
    {"allow to lan", 10, "group \"private\""},
    {"allow to banana", 10, "unknown target \"banana\": write any"},
    {"allow to printer", 10, "a domain name (one without a dot in it ends in one: \"printer.\")"},
    {"allow to *.com", 10, "reaches beyond one owner's names"},
    {"allow tcp to 1.2.3.4,*.co.uk port 80", 22, "reaches beyond one owner's names"},
    {"allow to ex*.com", 10, "reaches beyond one owner's names"},
    {"allow to example.*", 10, "reaches beyond one owner's names"},
    {"allow to *.kobe.jp", 10, "reaches beyond one owner's names"},
    {"allow to *.", 10, "write \"any\""},
    {"allow to *.*", 10, "write \"any\""},
    {"allow to *.a*.example.com", 10, "one '*' is all"},
    {"allow to a**.example.com", 10, "one '*' is all"},
    {"allow to example..com", 10, "empty label"},
    {"allow to .example.com", 10, "empty label"},
    {"allow to example.com..", 10, "empty label"},
    {"allow to exam!ple.com", 10, "is no domain name"},
    {"allow to example.com/path", 10, "no paths"},
    {"allow to example.com:443", 10, "write \"example.com port 443\""},
    {"allow to *.example.com:443", 10, "write \"*.example.com port 443\""},
    {"allow to example.123", 10, "ends in a number"},
    {"allow to example.0x7f", 10, "ends in a number"},
    {"allow to aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example", 10,
     "above 63 bytes"},
    {"allow to b\xc3\xbc*.example", 10, "among ASCII letters only"},
    {"allow to b\xc3.example", 10, "no international domain name"},
    {"allow from example.com", 12, "has an address and no name"},
    {"deny from 10.0.0.0/8,*.example.com", 22, "has an address and no name"},
    {"allow to @", 10, "is no set"},
    {"allow to @a/b", 10, "is no set"},
    {"allow to @file:", 10, "the path is missing"},
    {"allow to 10.0.0.0/8 in private", 21, "\"in\" widens a domain target"},
    {"allow to any in private", 14, "\"in\" widens a domain target"},
    {"deny to a.test in private", 16, "holds for every address"},
    {"allow to a.test in b.test", 20, "no names"},
    {"allow to a.test in", 19, "a target is missing"},
    {"allow to a.test in private port 80", 28, "\"port\" stands before \"in\""},
    {"allow to a.test port 80 in private in host", 36, "one \"in\""},
    {"allow to a.test in private host", 28, "separate targets by commas"},
    {"allow to a.test b.test", 17, "separate targets by commas"},
    {"allow to 1.2.3.4:443", 10, "write \"1.2.3.4 port 443\""},
    {"allow to [fd00::1]:443", 10, "write \"fd00::1 port 443\""},
    {"allow to https://example.com", 10, "is a URL"},
    {"allow to 1.2.3.4 port", 22, "a port is missing"},
    {"allow to any port 80,", 22, "a port is missing"},
    {"allow to any port ,80", 19, "a port is missing"},
    {"allow to any port 0", 19, "is no port"},
    {"allow to any port 65536", 19, "is no port"},
    {"allow to any port 655350", 19, "is no port"},
    {"allow to any port 99999999999999999999", 19, "is no port"},
    {"allow to any port https", 19, "is no port"},
    {"allow to any port -80", 19, "is no port"},
    {"allow to any port 80-", 19, "is no port"},
    {"allow to any port 0-80", 19, "is no port"},
    {"allow to any port 80-81-82", 19, "is no port"},
    {"allow to any port 80:90", 19, "is no port"},
    {"allow to any port 90-80", 19, "upside down: write 80-90"},
    {"allow to any port 80 - 90", 22, "separate ports by commas"},
    {"allow to any port 80 443", 22, "separate ports by commas"},
    {"allow to any port 80 port 443", 22, "a rule has one \"port\""},
    {"allow to any 443", 14, "write \"port\" in front of ports"},
    {"allow to 10.0.0.0/8 10.1.0.0/16", 21, "separate targets by commas"},
    {"allow to public private", 17, "separate targets by commas"},
    {"allow to any prot 80", 14, "did you mean \"port\""},
    {"allow to any ports 80", 14, "did you mean \"port\""},
    {"allow to any port 80 now", 22, "expected \"in\" or the end of the rule, not \"now\""},
    {"allow to any if", 14, "did you mean \"in\""},
    {"allow icmp to any port 80", 19, "icmp has no ports"},
};

static void faulty_rules_say_what_where_and_the_mend(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        struct rule rule = {.target_count = 77};
        char message[512] = "", column[32];
        int r = rule_parse(BAD[i].rule, &rule, message, sizeof message);
        if (r != -EINVAL)
            fail_msg("\"%s\": %d", BAD[i].rule, r);
        snprintf(column, sizeof column, "column %u: ", BAD[i].column);
        if (strncmp(message, column, strlen(column)) != 0 || !strstr(message, BAD[i].says))
            fail_msg("\"%s\": \"%s\", expected %s\"%s\"", BAD[i].rule, message, column,
                     BAD[i].says);
        assert_null(strchr(message, '\n'));
        assert_int_equal(rule.target_count, 77);
    }
}

static void a_comment_alone_is_no_rule(void **state)
{
    struct rule rule;
    char message[128];
    (void)state;
    assert_int_equal(rule_parse("# deny to any", &rule, message, sizeof message), -ENODATA);
    assert_int_equal(rule_parse(" \t#", &rule, message, sizeof message), -ENODATA);
}

static void control_characters_never_reach_a_message(void **state)
{
    struct rule rule;
    char message[256];
    (void)state;
    assert_int_equal(rule_parse("allow to \x1b[31mred", &rule, message, sizeof message), -EINVAL);
    assert_null(strchr(message, '\x1b'));
    assert_int_equal(rule_parse("\x07llow to any", &rule, message, sizeof message), -EINVAL);
    assert_null(strchr(message, '\x07'));
    assert_int_equal(rule_parse("allow to \xc3\xa4*.example", &rule, message, sizeof message),
                     -EINVAL);
    assert_null(strchr(message, '\xc3'));
}

static void an_endless_word_is_refused_and_cut_in_the_message(void **state)
{
    struct rule rule;
    char text[600], message[256];
    (void)state;
    memset(text, 'a', sizeof text);
    memcpy(text, "allow to ", 9);
    text[sizeof text - 1] = '\0';
    assert_int_equal(rule_parse(text, &rule, message, sizeof message), -EINVAL);
    assert_non_null(strstr(message, "too long"));
    text[9 + 255] = '\0';
    assert_int_equal(rule_parse(text, &rule, message, sizeof message), -EINVAL);
    assert_non_null(strstr(message, "..."));
}

static void a_small_message_buffer_is_respected(void **state)
{
    (void)state;
    for (size_t size = 0; size < 80; size++) {
        struct rule rule;
        char message[96];
        memset(message, 'Z', sizeof message);
        assert_int_equal(rule_parse("alow to any", &rule, message, size), -EINVAL);
        for (size_t i = size; i < sizeof message; i++)
            assert_int_equal(message[i], 'Z');
        if (size > 0)
            assert_non_null(memchr(message, '\0', size));
    }
}

static void every_truncation_of_a_rule_parses_or_says_why(void **state)
{
    static const char whole[] = "allow tcp to 10.0.0.0/8,[fd00::]/8, public port 80,8000-8100 # x";
    (void)state;
    for (size_t len = 0; len < sizeof whole; len++) {
        struct rule rule;
        char *text = strndup(whole, len), message[256] = "";
        int r = rule_parse(text, &rule, message, sizeof message);
        if (r == 0)
            rule_clear(&rule);
        else
            assert_true(r == -EINVAL && message[0] != '\0');
        free(text);
    }
}

static void hundreds_of_targets_and_ports_fit_in_one_rule(void **state)
{
    struct rule rule;
    char text[20000] = "deny to ", message[256];
    size_t used = strlen(text);
    (void)state;
    for (unsigned i = 0; i < 500; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s10.1.%u.%u", i ? "," : "",
                                 i / 256, i % 256);
    used += (size_t)snprintf(text + used, sizeof text - used, " port ");
    for (unsigned i = 0; i < 500; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%u", i ? "," : "", i + 1);
    assert_int_equal(rule_parse(text, &rule, message, sizeof message), 0);
    assert_int_equal(rule.target_count, 500);
    assert_int_equal(rule.port_count, 500);
    assert_int_equal(rule.ports[499].low, 500);
    rule_clear(&rule);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_mean_what_they_say),
        cmocka_unit_test(faulty_rules_say_what_where_and_the_mend),
        cmocka_unit_test(a_comment_alone_is_no_rule),
        cmocka_unit_test(control_characters_never_reach_a_message),
        cmocka_unit_test(an_endless_word_is_refused_and_cut_in_the_message),
        cmocka_unit_test(a_small_message_buffer_is_respected),
        cmocka_unit_test(every_truncation_of_a_rule_parses_or_says_why),
        cmocka_unit_test(hundreds_of_targets_and_ports_fit_in_one_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
