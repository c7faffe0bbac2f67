/* SPDX-License-Identifier: Apache-2.0 */
/* The value of --publish: a range of ports, or "auto". */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/config_parse.h"

CONFIG_PARSER(publish)
{
    int r;

    if (strcmp(value, "auto") == 0) {
        config->publish_auto = true;
        return 0;
    }
    if (config->publish_count == CONFIG_PUBLISH_MAX) {
        snprintf(message, size, "at most %d may be given; ranges take one each",
                 CONFIG_PUBLISH_MAX);
        return -EINVAL;
    }
    r = publish_parse(value, &config->publish[config->publish_count], message, size);
    if (r == 0)
        config->publish_count++;
    return r;
}
