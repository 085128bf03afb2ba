/* SPDX-License-Identifier: MIT */
/* verbs.h - one function per verb; argv[0] is the verb. Returns the exit status. */
#ifndef UBLKZC_SERVER_VERBS_H
#define UBLKZC_SERVER_VERBS_H

#include <stdbool.h>

#define EXIT_USAGE 2

int verb_add(int argc, char **argv);	  /* verb_add.c */
int verb_serve(int argc, char **argv);	  /* verb_add.c */
int verb_del(int argc, char **argv);	  /* verb_del.c */
int verb_list(int argc, char **argv);	  /* verb_list.c */
int verb_features(int argc, char **argv); /* verb_list.c */
int verb_attach(int argc, char **argv);	  /* verb_attach.c */
int verb_detach(int argc, char **argv);	  /* verb_attach.c */
int verb_run(int argc, char **argv);	  /* verb_run.c */
int verb_stat(int argc, char **argv);	  /* verb_stat.c */
int verb_resize(int argc, char **argv);	  /* verb_resize.c */
int verb_recover(int argc, char **argv);  /* verb_recover.c */
int verb_upgrade(int argc, char **argv);  /* verb_upgrade.c */

/* Not for users: what a keeper starts in place of a server, and before. */
int verb_take_over(int argc, char **argv); /* verb_add.c */
int verb_rehearse(int argc, char **argv);  /* verb_add.c */

/* Serve @device, which nobody serves; returns when it is live, or in the foreground
 * when it has stopped.  verb_add.c */
int recover_by_hand(unsigned int device, bool foreground);

#endif
