/* SPDX-License-Identifier: MIT */
/* stats.c - see stats.h. */
#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "common/log.h"
#include "sys.h"

static struct report own;
struct report *stats_report = &own;

/* Mapped in this process and, as it is shared, in its children. */
static struct report_file *file;

static void copy_text(char *to, const char *from, unsigned int size)
{
	log_format(to, size, "%s", from);
}

void stats_start(const char *program, const char *off_reason)
{
	/* Without a file nobody asks, and it would be a system call. */
	if (file)
		stats_report->pid = (int32_t)sys_getpid();
	copy_text(stats_report->program, program ? program : "?", sizeof(stats_report->program));
	if (off_reason)
		copy_text(stats_report->off_reason, off_reason, sizeof(stats_report->off_reason));
}

/* The next slot; the process's own memory when there is none left. */
static struct report *take_slot(void)
{
	unsigned int slot = atomic_fetch_add(&file->next, 1);

	return slot < REPORT_SLOTS ? &file->slots[slot] : &own;
}

static struct report_file *map_file(int fd)
{
	struct stat st;
	long map;

	/* Beyond the end of a shorter file there would be SIGBUS. */
	if (sys_fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != (off_t)REPORT_FILE_SIZE)
		return NULL;
	map = sys_mmap(NULL, REPORT_FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (sys_is_error(map))
		return NULL;
	if (((struct report_file *)map)->magic == REPORT_MAGIC &&
	    ((struct report_file *)map)->slot_size == sizeof(struct report) &&
	    ((struct report_file *)map)->nr_slots == REPORT_SLOTS)
		return (struct report_file *)map;
	sys_munmap((void *)map, REPORT_FILE_SIZE);
	return NULL;
}

void stats_use_file(const char *path)
{
	long fd = sys_call(SYS_openat, AT_FDCWD, (long)path, O_RDWR | O_CLOEXEC | O_NONBLOCK, 0, 0,
			   0);

	if (fd >= 0) {
		file = map_file((int)fd);
		sys_close((int)fd);
	}
	if (file)
		stats_report = take_slot();
	else
		/* Daemons outlive "ublkzc run"; others are in a root of their own. */
		log_line(fd == -ENOENT || fd == -EACCES ? LOG_INFO : LOG_WARN,
			 "UBLKZC_STATS_FILE='%s' is ignored: not made by ublkzc run", path);
}

bool stats_in_file(void)
{
	return file != NULL;
}

void stats_last_refusal(unsigned int reason)
{
	atomic_store_explicit(&stats_report->last_refusal, reason, memory_order_relaxed);
}

void stats_no_server(unsigned int device)
{
	atomic_store_explicit(&stats_report->no_server, device + 1, memory_order_relaxed);
	stat_add(STAT_NO_SERVER, 1);
}

void stats_captures(const char *text)
{
	copy_text(stats_report->captures, text, sizeof(stats_report->captures));
}

void stats_buffered_open(const char *path)
{
	if (!stats_report->buffered_path[0])
		copy_text(stats_report->buffered_path, path, sizeof(stats_report->buffered_path));
	stat_add(STAT_BUFFERED_OPENS, 1);
}

void stats_reset(void)
{
	const struct report *parent = stats_report;

	if (file)
		stats_report = take_slot();
	for (int i = 0; i < STAT_NR; i++)
		atomic_store_explicit(&stats_report->counters[i], 0, memory_order_relaxed);
	for (int shard = 0; shard < 1 << REPORT_SHARD_BITS; shard++)
		for (int i = 0; i < STAT_HOT_NR; i++)
			atomic_store_explicit(&stats_report->hot[shard].counters[i], 0,
					      memory_order_relaxed);
	if (parent != stats_report)
		stats_start(parent->program, NULL);
}

static void print_line(void *arg, const char *line)
{
	(void)arg;
	log_line(LOG_ERROR, "  %s", line);
}

void stats_print(void)
{
	log_line(LOG_ERROR, "%s, process %d", stats_report->program, (int)sys_getpid());
	report_counts(stats_report, print_line, NULL);
	report_advice(stats_report, print_line, NULL);
}
