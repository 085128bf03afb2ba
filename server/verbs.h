/* SPDX-License-Identifier: MIT */
/* verbs.h - one function per verb; argv[0] is the verb. Returns the exit status. */
#ifndef UBLKZC_SERVER_VERBS_H
#define UBLKZC_SERVER_VERBS_H

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

#endif
