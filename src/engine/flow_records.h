/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_FLOW_RECORDS_H
#define ENGINE_FLOW_RECORDS_H

/* What admitted the open flows that were looked into: the name each one bore, and the name of its
 * pin. It outlives the pin, so that the flow can be judged again when the policy is replaced. A
 * flow that was never looked into has no record. One thread. */

#include <stdbool.h>

#include "engine/judgement.h"
#include "wire/dns.h"

/* The names that a record is read into: a subject borrows them. */
struct flow_names {
    struct dns_name name, held;
};

/* `subject` was judged, and `verdict` admitted it: what is to be known of it later. To be freed by
 * free(); NULL: ENOMEM. */
struct flow_record *flow_record_new(const struct subject *subject,
                                    const struct policy_verdict *verdict);
/* Fills name_state, name and held of `subject`. */
void flow_record_read(const struct flow_record *record, struct flow_names *names,
                      struct subject *subject);

/* The records of TCP flows. */
struct flow_records {
    struct flow_record **by_index; /* flow_handle's */
    uint32_t count;
};

void flow_records_free(struct flow_records *records);

/* `subject` was judged: `verdict` admitted it. 0 or -ENOMEM. */
int flow_records_keep(struct flow_records *records, struct flow_handle flow,
                      const struct subject *subject, const struct policy_verdict *verdict);
/* Fills name_state, name and held of `subject`. False: there is no record, nothing is filled. */
bool flow_records_find(const struct flow_records *records, struct flow_handle flow,
                       struct flow_names *names, struct subject *subject);
/* The flow has ended. */
void flow_records_forget(struct flow_records *records, struct flow_handle flow);

#endif
