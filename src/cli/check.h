/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_CHECK_H
#define CLI_CHECK_H

/* `culvert check [OPTIONS] FILE.json`: exit status 0, 1 if the policy is faulty, 2 for bad usage.
 */
int cli_check(int argc, char **argv);

#endif
