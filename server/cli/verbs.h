/* SPDX-License-Identifier: MIT */
/* verbs.h - the verbs of ublkzc, each in verb_NAME.c. */
#ifndef UBLKZC_SERVER_CLI_VERBS_H
#define UBLKZC_SERVER_CLI_VERBS_H

#include "command.h"

extern const struct command command_add;
extern const struct command command_serve;
extern const struct command command_del;
extern const struct command command_recover;
extern const struct command command_upgrade;
extern const struct command command_resize;
extern const struct command command_list;
extern const struct command command_stat;
extern const struct command command_run;
extern const struct command command_attach;
extern const struct command command_detach; /* verb_attach.c */
extern const struct command command_clients;
extern const struct command command_doctor;
extern const struct command command_engines;
extern const struct command command_features;
extern const struct command command_completion;

/* Not for users.  What a keeper starts in place of a server that died or left, and before an
 * upgrade to learn whether the program could take over: verb_add.c, keeper.h.  And what the
 * manual is made with: verb_completion.c. */
extern const struct command command_take_over;
extern const struct command command_rehearse;
extern const struct command command_manual;

/* Stop @device's server and remove it; 0, or a negative errno when that has been said.  verb_del.c */
int del_unless_in_use(unsigned int device);

#endif
