/* SPDX-License-Identifier: Apache-2.0 */
/* Refusals are gathered by the rule that would allow them: a name's addresses and its lookups make
 * one line. There are at most so many kinds; what comes beyond is counted only. */
#include "cli/summary.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_MAX   256
#define LINES_MAX  10
#define WHAT_MAX   72
#define REMEDY_MAX 400
#define BEHIND_MAX 200

struct row {
    uint64_t count;
    bool passed; /* by --audit */
    char what[WHAT_MAX];
    char remedy[REMEDY_MAX]; /* "": none */
    char behind[BEHIND_MAX]; /* the rule that refused: the remedy must stand before it. "": none */
};

struct summary {
    struct row rows[ROWS_MAX];
    size_t row_count;
    uint64_t others; /* refusals of no row */
};

struct summary *summary_new(void)
{
    return calloc(1, sizeof(struct summary));
}

struct summary *summary_free(struct summary *summary)
{
    free(summary);
    return NULL;
}

/* ---- gathering ---- */

static const char *protocol_name(const struct culvert_event *event)
{
    return event->protocol == IPPROTO_TCP ? "tcp" : event->protocol == IPPROTO_UDP ? "udp" : "ping";
}

static void describe_flow(const struct culvert_event *event, char what[WHAT_MAX])
{
    bool incoming = event->direction == CULVERT_EVENT_INGRESS;
    unsigned number = incoming ? event->guest_port : event->remote_port;
    char port[16] = "", name[48] = "";

    if (event->protocol != IPPROTO_ICMP)
        snprintf(port, sizeof port, " port %u", number);
    if (event->name)
        snprintf(name, sizeof name, strlen(event->name) < 44 ? " (%s)" : " (%.40s...)",
                 event->name);
    snprintf(what, WHAT_MAX, "%s %s %s%s%s", protocol_name(event), incoming ? "from" : "to",
             event->remote_address, port, name);
}

static void describe(const struct culvert_event *event, char what[WHAT_MAX])
{
    const char *name = event->name ? event->name : "";
    const char *dots = strlen(name) < 48 ? "" : "...";

    if (event->protocol != 0)
        describe_flow(event, what);
    else if (event->remote_address)
        snprintf(what, WHAT_MAX, "address %s of %.20s%s", event->remote_address, name,
                 strlen(name) > 20 ? "..." : "");
    else
        snprintf(what, WHAT_MAX, "lookup of %.48s%s", name, dots);
}

/* Nobody misses the names of private addresses: programs ask for them by the way. */
static bool is_of_interest(const struct culvert_event *event)
{
    switch (event->kind) {
    case CULVERT_EVENT_DENIED:
    case CULVERT_EVENT_DROPPED:
    case CULVERT_EVENT_WOULD_DENY:
    case CULVERT_EVENT_DNS_DENIED:
    case CULVERT_EVENT_DNS_REMOVED:
        return strcmp(event->reason, "dns_private_address") != 0;
    default:
        return false;
    }
}

static bool is_alike(const struct row *a, const struct row *b)
{
    if (a->passed != b->passed || strcmp(a->remedy, b->remedy) != 0)
        return false;
    return a->remedy[0] != '\0' || strcmp(a->what, b->what) == 0;
}

static struct row row_of(const struct culvert_event *event)
{
    struct row row = {.count = event->count, .passed = event->kind == CULVERT_EVENT_WOULD_DENY};
    bool by_rule = strstr(event->reason, "_rule") || strstr(event->reason, "dns_denied");

    describe(event, row.what);
    snprintf(row.remedy, sizeof row.remedy, "%s", event->remedy ? event->remedy : "");
    if (event->rule_text && by_rule)
        snprintf(row.behind, sizeof row.behind, "%s", event->rule_text);
    return row;
}

void summary_note(void *arg, const struct culvert_event *event)
{
    struct summary *summary = arg;

    if (event->kind == CULVERT_EVENT_LOST)
        summary->others += event->count;
    if (!is_of_interest(event))
        return;
    struct row row = row_of(event);

    for (size_t i = 0; i < summary->row_count; i++) {
        if (is_alike(&summary->rows[i], &row)) {
            summary->rows[i].count += row.count;
            return;
        }
    }
    if (summary->row_count < ROWS_MAX)
        summary->rows[summary->row_count++] = row;
    else
        summary->others += row.count;
}

/* ---- telling ---- */

static int by_count(const void *a, const void *b)
{
    const struct row *x = a, *y = b;

    return x->count < y->count ? 1 : x->count > y->count ? -1 : strcmp(x->what, y->what);
}

static void print_row(FILE *file, const struct row *row)
{
    fprintf(file, "culvert: %7llu  %-42s  ", (unsigned long long)row->count, row->what);
    if (row->remedy[0] == '\0')
        fputs("no rule can", file);
    else
        fprintf(file, "--rule '%s'", row->remedy);
    if (row->remedy[0] != '\0' && row->behind[0] != '\0')
        fprintf(file, " before '%s'", row->behind);
    fputc('\n', file);
}

/* Those that passed, or those that did not. */
static void print_rows(FILE *file, const struct summary *summary, bool passed)
{
    size_t shown = 0, left = 0;

    for (size_t i = 0; i < summary->row_count; i++) {
        if (summary->rows[i].passed != passed)
            continue;
        if (shown == LINES_MAX) {
            left++;
            continue;
        }
        if (shown++ == 0)
            fputs(passed ? "culvert: let through by --audit; without it this would have been "
                           "denied, and what would allow it:\n"
                         : "culvert: denied, and what would allow it:\n",
                  file);
        print_row(file, &summary->rows[i]);
    }
    if (left > 0)
        fprintf(file, "culvert: and %zu more; --events FILE records them all\n", left);
}

char *summary_text(struct summary *summary)
{
    char *text = NULL;
    size_t len;
    FILE *file = open_memstream(&text, &len);

    if (!file)
        return NULL;
    qsort(summary->rows, summary->row_count, sizeof summary->rows[0], by_count);
    print_rows(file, summary, false);
    print_rows(file, summary, true);
    if (summary->others > 0)
        fprintf(file, "culvert: %llu further refusals were too many to tell apart\n",
                (unsigned long long)summary->others);
    if (fclose(file) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
