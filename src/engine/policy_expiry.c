/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation
 *
 * A policy in which a rule ends is replaced by one without that rule, at that second. This thread
 * exists while an engine has, or had, such a policy. It sleeps on a timer of the wall clock, which
 * also reports that the clock was set; so it never wakes before it is needed.
 *
 * The next policy is built some time ahead, in proportion to what building took, and handed over
 * when its time has come: a long list does not prolong a rule. When the clock is set back behind
 * the moment a policy was built for, rules that had ended live again, and it is built anew. */

#include "engine/policy_expiry.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/wake.h"
#include "engine/internal.h"

#define SECOND     INT64_C(1000000000)
#define LEAD_MIN   (SECOND / 50)
#define RETRY      SECOND                       /* after -ENOMEM */
#define FAR_FUTURE (INT64_C(200) * 365 * 86400) /* s: a timer that only tells of a set clock */

struct policy_expiry {
    struct culvert_engine *engine;
    pthread_t thread;
    bool started;
    bool ending; /* set by policy_expiry_free() */
    int timer;
    struct culvert_wake wake; /* another policy is in force, or the end */

    struct policy *next; /* built ahead, for when the one of generation `follows` expires; NULL */
    uint32_t follows;
    int64_t next_built_at;
};

/* The policy in force, as far as it matters here. */
struct outlook {
    struct policy_source *source; /* a reference, or NULL */
    uint32_t generation;
    int64_t expires, built_at; /* s */
    int64_t lead;              /* ns */
};

static struct outlook look(struct culvert_engine *engine)
{
    struct policy_swap *swap = &engine->swap;
    struct outlook outlook;

    pthread_mutex_lock(&swap->lock);
    outlook = (struct outlook){
        .source = policy_source_ref(swap->source),
        .generation = swap->facts.generation,
        .expires = policy_expires(engine->policy),
        .built_at = swap->built_at,
        .lead = LEAD_MIN + 2 * (int64_t)swap->build_time,
    };
    pthread_mutex_unlock(&swap->lock);
    return outlook;
}

static void forget_next(struct policy_expiry *expiry)
{
    expiry->next = policy_free(expiry->next);
}

static int build_next(struct policy_expiry *expiry, const struct outlook *outlook, int64_t at)
{
    forget_next(expiry);
    expiry->next = policy_build_at(outlook->source->builder, 1, at);
    expiry->follows = outlook->generation;
    expiry->next_built_at = at;
    return expiry->next ? 0 : -ENOMEM;
}

static int put_next(struct policy_expiry *expiry)
{
    struct policy *next = expiry->next;
    int r;

    expiry->next = NULL;
    r = policy_swap_follow(expiry->engine, next, expiry->follows, expiry->next_built_at);
    return r == -ESTALE ? 0 : r;
}

/* In ns; the far future for what does not fit. */
static int64_t moment_of(int64_t seconds)
{
    return seconds >= INT64_MAX / SECOND ? POLICY_EXPIRY_NEVER : seconds * SECOND;
}

static int64_t step(struct policy_expiry *expiry, const struct outlook *outlook, int64_t now)
{
    const int64_t second = now / SECOND, due = moment_of(outlook->expires);
    const bool set_back = second < outlook->built_at;

    if (expiry->next && expiry->follows != outlook->generation)
        forget_next(expiry);
    if (!outlook->source || (due == POLICY_EXPIRY_NEVER && !set_back))
        return POLICY_EXPIRY_NEVER;
    if (!set_back && now < due - outlook->lead)
        return due - outlook->lead;
    if (set_back || !expiry->next) {
        const int64_t at = set_back || second > outlook->expires ? second : outlook->expires;

        if (build_next(expiry, outlook, at) < 0)
            return now + RETRY;
    }
    if (!set_back && now < due)
        return due;
    return put_next(expiry) < 0 ? now + RETRY : now; /* what comes next? */
}

int64_t policy_expiry_step(struct policy_expiry *expiry, int64_t now)
{
    struct outlook outlook = look(expiry->engine);
    int64_t again = step(expiry, &outlook, now);

    policy_source_unref(outlook.source);
    return again;
}

/* ---- the thread ---- */

static int64_t wall_clock(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * SECOND + ts.tv_nsec;
}

static void sleep_until(struct policy_expiry *expiry, int64_t until)
{
    struct itimerspec when = {.it_value = {.tv_sec = FAR_FUTURE}};
    struct pollfd fds[] = {{.fd = expiry->timer, .events = POLLIN},
                           {.fd = culvert_wake_fd(&expiry->wake), .events = POLLIN}};
    uint64_t times;

    if (until / SECOND < FAR_FUTURE)
        when.it_value = (struct timespec){until / SECOND, until % SECOND};
    if (timerfd_settime(expiry->timer, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &when, NULL) <
        0)
        return; /* ECANCELED: the clock was set meanwhile */
    (void)poll(fds, 2, -1);
    (void)!read(expiry->timer, &times, sizeof times); /* ECANCELED: the clock was set */
    culvert_wake_drain(&expiry->wake);
}

static void *expiry_thread(void *arg)
{
    struct policy_expiry *expiry = arg;

    while (!__atomic_load_n(&expiry->ending, __ATOMIC_ACQUIRE)) {
        int64_t now = wall_clock(), again = policy_expiry_step(expiry, now);

        if (again > now)
            sleep_until(expiry, again);
    }
    return NULL;
}

struct policy_expiry *policy_expiry_new(struct culvert_engine *engine)
{
    struct policy_expiry *expiry = calloc(1, sizeof *expiry);
    int r;

    if (!expiry)
        return NULL;
    expiry->engine = engine;
    expiry->timer = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    r = expiry->timer < 0 ? -errno : wake_init(&expiry->wake);
    if (r == 0)
        return expiry;
    close_fd(expiry->timer);
    free(expiry);
    errno = -r;
    return NULL;
}

/* It takes no signal: they are the program's. */
static int thread_start(struct policy_expiry *expiry)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&expiry->thread, NULL, expiry_thread, expiry);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    expiry->started = r == 0;
    if (r == 0)
        pthread_setname_np(expiry->thread, "culvert-expiry");
    return -r;
}

int policy_expiry_ensure(struct culvert_engine *engine)
{
    struct policy_expiry *expiry;
    int r;

    if (engine->swap.expiry)
        return 0;
    expiry = policy_expiry_new(engine);
    if (!expiry)
        return -errno;
    r = thread_start(expiry);
    if (r < 0)
        policy_expiry_free(expiry);
    else
        engine->swap.expiry = expiry;
    return r;
}

void policy_expiry_notice(struct culvert_engine *engine)
{
    if (engine->swap.expiry)
        culvert_wake_signal(&engine->swap.expiry->wake);
}

struct policy_expiry *policy_expiry_free(struct policy_expiry *expiry)
{
    if (!expiry)
        return NULL;
    __atomic_store_n(&expiry->ending, true, __ATOMIC_RELEASE);
    culvert_wake_signal(&expiry->wake);
    if (expiry->started)
        pthread_join(expiry->thread, NULL);
    forget_next(expiry);
    wake_fini(&expiry->wake);
    close_fd(expiry->timer);
    free(expiry);
    return NULL;
}
