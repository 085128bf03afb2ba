/* SPDX-License-Identifier: MIT */
/*
 * log.h - one line to stderr, with write(2).
 *
 * No heap and no stdio streams, so that the preloaded library can use it
 * from inside malloc.  Lines longer than LOG_LINE_MAX are cut.  Thread-safe:
 * a line is one write.  errno is preserved.
 */
#ifndef UBLKZC_COMMON_LOG_H
#define UBLKZC_COMMON_LOG_H

#define LOG_LINE_MAX 1024 /* bytes, newline included */

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* @name (borrowed for ever) starts every line, as in "ublkzc: ...". */
void log_init(const char *name, enum log_level level);

/* Descriptor that lines go to; 2 unless told. */
void log_set_fd(int fd);

/*
 * Ask @may before each line whether it may be written to the descriptor now; NULL, as at
 * first: always.  For who lives in a process that is not its own.
 */
void log_ask(int (*may)(int fd));

/*
 * @prefix writes what each line begins with, before the name, into @buf and returns its length,
 * less than @size; NULL, as at first: nothing.
 */
void log_prefix(unsigned int (*prefix)(enum log_level level, char *buf, unsigned int size));

int log_enabled(enum log_level level);

/*
 * Format as printf, but only %s %d %i %u %x %c %p %% with the length
 * modifiers l, ll and z, no width and no precision.
 */
__attribute__((format(printf, 2, 3))) void log_line(enum log_level level, const char *format, ...);

/* As log_line(LOG_ERROR, ...) with ": " and the text of -@err behind it;
 * returns @err, so that "return log_error(ret, ...)" works. */
__attribute__((format(printf, 2, 3))) int log_error(int err, const char *format, ...);

/*
 * The formatter itself, for callers that build text in their own buffer.
 * Always terminates; returns the length stored, without the NUL.
 */
__attribute__((format(printf, 3, 4))) unsigned int log_format(char *buf, unsigned int size,
							      const char *format, ...);

#endif
