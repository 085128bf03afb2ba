/* SPDX-License-Identifier: MIT */
/*
 * log.c - a formatter small enough to run inside malloc.
 *
 * vsnprintf may allocate and takes locale locks; this one touches only its
 * arguments and the caller's buffer.
 */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *log_name = "ublkzc";
static enum log_level log_level_max = LOG_WARN;
static int log_fd = 2;
static int (*log_may)(int fd);
static unsigned int (*log_begin)(enum log_level level, char *buf, unsigned int size);

struct text {
	char *buf;
	unsigned int size; /* bytes at buf, at least 1 */
	unsigned int len;
};

static void put_char(struct text *t, char c)
{
	if (t->len + 1 < t->size)
		t->buf[t->len++] = c;
}

static void put_string(struct text *t, const char *s)
{
	if (!s)
		s = "(null)";
	while (*s)
		put_char(t, *s++);
}

static void put_number(struct text *t, unsigned long long n, unsigned int base)
{
	char digits[24];
	unsigned int nr = 0;

	do {
		digits[nr++] = "0123456789abcdef"[n % base];
		n /= base;
	} while (n);
	while (nr)
		put_char(t, digits[--nr]);
}

static void put_signed(struct text *t, long long n)
{
	if (n < 0)
		put_char(t, '-');
	put_number(t, n < 0 ? 0 - (unsigned long long)n : (unsigned long long)n, 10);
}

/* @longs: 0 int, 1 long or size_t, 2 long long */
static unsigned long long next_unsigned(va_list *args, int longs)
{
	if (longs == 2)
		return va_arg(*args, unsigned long long);
	return longs ? va_arg(*args, unsigned long) : va_arg(*args, unsigned int);
}

static long long next_signed(va_list *args, int longs)
{
	if (longs == 2)
		return va_arg(*args, long long);
	return longs ? va_arg(*args, long) : va_arg(*args, int);
}

static void put_conversion(struct text *t, char c, int longs, va_list *args)
{
	switch (c) {
	case 's':
		put_string(t, va_arg(*args, const char *));
		break;
	case 'c':
		put_char(t, (char)va_arg(*args, int));
		break;
	case 'd':
	case 'i':
		put_signed(t, next_signed(args, longs));
		break;
	case 'u':
		put_number(t, next_unsigned(args, longs), 10);
		break;
	case 'x':
		put_number(t, next_unsigned(args, longs), 16);
		break;
	case 'p':
		put_string(t, "0x");
		put_number(t, (uintptr_t)va_arg(*args, void *), 16);
		break;
	default:
		put_char(t, c);
	}
}

static void format_text(struct text *t, const char *format, va_list *args)
{
	for (; *format; format++) {
		int longs = 0;

		if (*format != '%') {
			put_char(t, *format);
			continue;
		}
		for (format++; *format == 'l' || *format == 'z'; format++)
			longs++;
		if (!*format)
			break;
		put_conversion(t, *format, longs, args);
	}
}

unsigned int log_format(char *buf, unsigned int size, const char *format, ...)
{
	struct text t = { .buf = buf, .size = size };
	va_list args;

	va_start(args, format);
	format_text(&t, format, &args);
	va_end(args);
	buf[t.len] = '\0';
	return t.len;
}

void log_init(const char *name, enum log_level level)
{
	log_name = name;
	log_level_max = level;
}

void log_set_fd(int fd)
{
	log_fd = fd;
}

void log_ask(int (*may)(int fd))
{
	log_may = may;
}

void log_prefix(unsigned int (*prefix)(enum log_level level, char *buf, unsigned int size))
{
	log_begin = prefix;
}

int log_enabled(enum log_level level)
{
	return level <= log_level_max;
}

static void write_line(enum log_level level, const char *format, va_list *args, int err)
{
	char line[LOG_LINE_MAX];
	struct text t = { .buf = line, .size = sizeof(line) - 1 };
	const char *text;

	if (log_may && !log_may(log_fd))
		return;
	if (log_begin)
		t.len = log_begin(level, line, t.size);
	put_string(&t, log_name);
	put_string(&t, ": ");
	format_text(&t, format, args);
	if (err) {
		put_string(&t, ": ");
		text = strerrordesc_np(-err);
		if (text)
			put_string(&t, text);
		else
			put_signed(&t, err);
	}
	line[t.len++] = '\n';
	syscall(SYS_write, log_fd, line, (size_t)t.len);
}

void log_line(enum log_level level, const char *format, ...)
{
	int saved = errno;
	va_list args;

	if (!log_enabled(level))
		return;
	va_start(args, format);
	write_line(level, format, &args, 0);
	va_end(args);
	errno = saved;
}

int log_error(int err, const char *format, ...)
{
	int saved = errno;
	va_list args;

	va_start(args, format);
	write_line(LOG_ERROR, format, &args, err);
	va_end(args);
	errno = saved;
	return err;
}
