/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/flow_records.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/pins.h"

#define RECORDS_AT_FIRST 64u

/* As small as its names, which is why they are not dns_names. */
struct flow_record {
    uint32_t generation; /* of a TCP flow's handle */
    uint8_t state;       /* enum policy_name_state */
    uint8_t name_len, held_len;
    uint8_t bytes[]; /* the name's, then the held one's */
};

static void read_name(const uint8_t *bytes, uint8_t len, struct dns_name *ret)
{
    ret->len = len;
    memcpy(ret->bytes, bytes, len);
}

static struct flow_record *record_of(const struct flow_names *names, enum policy_name_state state)
{
    struct flow_record *record = malloc(sizeof *record + (size_t)names->name.len + names->held.len);

    if (!record)
        return NULL;
    record->generation = 0;
    record->state = (uint8_t)state;
    record->name_len = names->name.len;
    record->held_len = names->held.len;
    memcpy(record->bytes, names->name.bytes, names->name.len);
    memcpy(record->bytes + names->name.len, names->held.bytes, names->held.len);
    return record;
}

struct flow_record *flow_record_new(const struct subject *subject,
                                    const struct policy_verdict *verdict)
{
    struct flow_names names = {.name.len = 0};

    if (subject->name)
        names.name = *subject->name;
    if (verdict->pin)
        pin_name(verdict->pin, &names.held);
    else if (subject->held)
        names.held = *subject->held;
    return record_of(&names, subject->name_state);
}

void flow_record_read(const struct flow_record *record, struct flow_names *names,
                      struct subject *subject)
{
    read_name(record->bytes, record->name_len, &names->name);
    read_name(record->bytes + record->name_len, record->held_len, &names->held);
    subject->name_state = (enum policy_name_state)record->state;
    subject->name = record->name_len ? &names->name : NULL;
    subject->held = record->held_len ? &names->held : NULL;
}

static bool make_room(struct flow_records *records, uint32_t index)
{
    uint32_t count = records->count ? records->count : RECORDS_AT_FIRST;
    struct flow_record **by_index;

    if (index < records->count)
        return true;
    while (count <= index)
        count *= 2;
    by_index = realloc(records->by_index, count * sizeof *by_index);
    if (!by_index)
        return false;
    memset(by_index + records->count, 0, (count - records->count) * sizeof *by_index);
    records->by_index = by_index;
    records->count = count;
    return true;
}

int flow_records_keep(struct flow_records *records, struct flow_handle flow,
                      const struct subject *subject, const struct policy_verdict *verdict)
{
    struct flow_record *record = flow_record_new(subject, verdict);

    if (!record || !make_room(records, flow.index)) {
        free(record);
        return -ENOMEM;
    }
    record->generation = flow.generation;
    free(records->by_index[flow.index]);
    records->by_index[flow.index] = record;
    return 0;
}

bool flow_records_find(const struct flow_records *records, struct flow_handle flow,
                       struct flow_names *names, struct subject *subject)
{
    const struct flow_record *record =
        flow.index < records->count ? records->by_index[flow.index] : NULL;

    if (!record || record->generation != flow.generation)
        return false;
    flow_record_read(record, names, subject);
    return true;
}

void flow_records_forget(struct flow_records *records, struct flow_handle flow)
{
    if (flow.index >= records->count)
        return;
    free(records->by_index[flow.index]);
    records->by_index[flow.index] = NULL;
}

void flow_records_free(struct flow_records *records)
{
    for (uint32_t i = 0; i < records->count; i++)
        free(records->by_index[i]);
    free(records->by_index);
    *records = (struct flow_records){0};
}
