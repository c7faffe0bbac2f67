/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

/* One run of the simulator: a stack, its guest's endpoints on one side of a faulty wire, its hosts
 * on the other, and monitors that watch every frame the stack sends. Everything follows from a
 * `struct plan`, which follows from a scenario and a seed. */

#include "cable.h"
#include "endpoint.h"
#include "host.h"
#include "stack/internal.h"

struct flow_plan {
    uint64_t start;
    struct endpoint_config guest;
    struct host_config host;
    bool from_host;    /* a published port: the flow begins at the host */
    bool guest_resets; /* outcomes that are no fault: */
    bool host_resets;
    bool guest_vanishes;
    bool may_time_out; /* the guest's own patience may end it (silence) */
};

struct plan {
    const char *scenario;
    uint64_t seed;
    unsigned flows;
    uint32_t mtu;
    struct cable_config up, down;
    bool verify_checksums;
    bool cut_frames; /* guest's frames come with their headers cut up */
    size_t queue_budget;
    uint32_t max_flows;              /* 0: enough */
    uint64_t outage_at, outage_time; /* the guest's device is down for that long; NEVER: not */
    uint64_t new_mtu_at;             /* NEVER: not */
    uint32_t new_mtu;
    unsigned batch;                 /* events a batch at most */
    unsigned defer;                 /* permille of batches that defer their ACKs */
    unsigned idle_wakeups_most;     /* with `idle_from`: timers that may fire from then on */
    uint64_t idle_from, idle_until; /* NEVER */

    bool quiet;             /* nothing may be sent twice, by anybody */
    bool no_timeouts;       /* the stack's RTO may not fire */
    uint64_t done_by;       /* virtual time; NEVER: the general limit */
    unsigned drop_nth_data; /* the Nth frame with data towards the guest is lost; 0: none */
    unsigned drop_count;    /* and this many in a row from there */
    bool drop_last_data;    /* the first sending of the last byte towards the guest is lost */
    bool tail_probe_wanted;
    bool fast_retransmit_wanted;
};

struct world_options {
    bool verbose;
    FILE *trace, *pcap;
};

struct world_result {
    bool failed;
    char what[512];
    uint64_t ended_at;
    uint64_t bytes_up, bytes_down, frames_up, frames_down;
    struct counters counters;
};

void world_run(const struct plan *plan, struct flow_plan *flows,
               const struct world_options *options, struct world_result *ret);

#endif
