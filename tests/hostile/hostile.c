/* SPDX-License-Identifier: MIT */
/*
 * hostile.c - usage: hostile --list | hostile NAME FILE
 *
 * Status 0: well, 77: not possible here, anything else: the attack succeeded.
 */
#include "hostile.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *path;

static const struct attack *const rooms[] = { pinned_attacks, fork_attacks,   lock_attacks,
					      kernel_attacks, memory_attacks, identity_attacks,
					      stack_attacks,  child_attacks,  other_attacks,
					      advice_attacks };

void skip(const char *why)
{
	fprintf(stderr, "  skipped: %s\n", why);
	_exit(77);
}

const char *file(void)
{
	return path;
}

int open_direct(void)
{
	int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);

	if (fd < 0 && errno == EINVAL)
		fd = open(path, O_RDWR | O_CLOEXEC);
	CHECK(fd >= 0);
	return fd;
}

unsigned char *aligned(size_t len, unsigned char value)
{
	void *p;

	CHECK(posix_memalign(&p, 4096, len) == 0);
	return memset(p, value, len);
}

unsigned char *mapped(size_t len, unsigned char value)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return memset(p, value, len);
}

bool all_are(const unsigned char *p, size_t len, unsigned char value)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != value)
			return false;
	return true;
}

pid_t child(void)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	return pid;
}

void expect_well(pid_t pid)
{
	int status;

	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status));
	CHECK(WEXITSTATUS(status) == 0);
}

unsigned int nr_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int nr = 0;

	CHECK(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr - 3; /* ".", ".." and the directory itself */
}

unsigned long proc_kib(const char *name, const char *field)
{
	size_t len = strlen(field);
	unsigned long kib = 0;
	char line[256];
	FILE *f = fopen(name, "r");

	CHECK(f);
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, field, len) == 0 && line[len] == ':')
			kib = strtoul(line + len + 1, NULL, 10);
	fclose(f);
	return kib;
}

double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

double patience(void)
{
	const char *value = getenv("HOSTILE_PATIENCE");

	return value ? strtod(value, NULL) : 1;
}

int main(int argc, char **argv)
{
	const struct rlimit no_core = { 0, 0 };
	bool list = argc == 2 && strcmp(argv[1], "--list") == 0;

	setrlimit(RLIMIT_CORE, &no_core);
	for (size_t i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++)
		for (const struct attack *a = rooms[i]; a->name; a++) {
			if (list)
				printf("%-28s %s%s\n", a->name, a->what, a->slow ? " (slow)" : "");
			if (list || argc != 3 || strcmp(argv[1], a->name) != 0)
				continue;
			path = argv[2];
			a->run();
			return 0;
		}
	if (list)
		return 0;
	fputs("usage: hostile --list | hostile NAME FILE\n", stderr);
	return 2;
}
