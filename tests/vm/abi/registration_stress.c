/* SPDX-License-Identifier: MIT */
/*
 * registration_stress.c - buffers come and go under I/O, at random, and every byte is checked.
 *
 * Each client does I/O in a memory file of its own; registrars register and unregister random,
 * overlapping parts of all the files.  The server serves matched requests in place, through
 * mappings of its own, so a wrong index or offset shows as wrong data, at either end.
 *
 * The server may see an index before its registrar has published it, or while the last owner's
 * entry is still there.  It knows from the client what memory is meant, so it waits for the
 * entry that fits; none that fits ever is the driver's error.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

#define NR_FILES 3U /* one client each */
#define FILE_PAGES 256U
#define NR_REGISTRARS 3U
#define NR_KEPT 6U /* registrations that a registrar has at a time */
#define MOST_PAGES 48U
#define SECONDS_DEFAULT 15
#define SPAN (ABI_TEST_BYTES / NR_FILES / PAGE * PAGE) /* of the disk, for each client */

struct file {
	int fd;
	uint8_t *server; /* where the server has it mapped */
};

/* What is registered: the offset in the file, and that it is published. */
struct entry {
	atomic_uint file; /* + 1; 0: nothing */
	atomic_ulong offset;
};

/* What a client has on its way. */
struct client {
	unsigned int file;
	uint8_t *mapped;
	atomic_ulong offset; /* in the file */
	atomic_uint version; /* of the data */
	uint64_t nr_done;
	int error;
	pthread_t thread;
};

static struct abi_server server;
static struct file files[NR_FILES];
static struct client clients[NR_FILES];
static struct entry entries[UAPI_SHMEM_BUF_INDEX_MAX + 1];
static atomic_bool stop;
static atomic_ullong nr_registered, nr_refused, nr_lost, nr_wrong;

static uint64_t stamp(uint64_t at, unsigned int version)
{
	return (at * 0x9e3779b97f4a7c15ULL) ^ version;
}

static void fill(uint8_t *p, uint64_t at, uint32_t bytes, unsigned int version)
{
	for (uint32_t i = 0; i < bytes; i += 8) {
		uint64_t value = stamp(at + i, version);

		memcpy(p + i, &value, 8);
	}
}

static bool is_filled(const uint8_t *p, uint64_t at, uint32_t bytes, unsigned int version)
{
	for (uint32_t i = 0; i < bytes; i += 8) {
		uint64_t value = stamp(at + i, version);

		if (memcmp(p + i, &value, 8) != 0)
			return false;
	}
	return true;
}

/* ---- the server ---- */

static uint8_t *in_place(const struct client *c, uint64_t addr)
{
	struct entry *e = &entries[uapi_shmem_index(addr)];

	for (int i = 0; i < 100000; i++) {
		if (e->file == c->file + 1 && e->offset + uapi_shmem_offset(addr) == c->offset)
			return files[c->file].server + c->offset;
		usleep(100);
	}
	nr_lost++;
	return NULL;
}

static int serve_checked(struct abi_server *s, const struct ublksrv_io_desc *iod, uint16_t tag)
{
	uint64_t at = iod->start_sector << 9;
	uint32_t bytes = iod->nr_sectors << 9;
	const struct client *c = &clients[(at - ABI_TEST_OFFSET) / SPAN];
	bool matched = iod->op_flags & UAPI_IO_F_SHMEM_ZC;
	uint8_t *bounce = matched ? NULL : malloc(bytes);
	uint8_t *data = matched ? in_place(c, iod->addr) : bounce;

	if (!data)
		return -EIO;
	s->nr_matched += matched;
	s->nr_copied += !matched;
	if (ublksrv_get_op(iod) == UBLK_IO_OP_READ) {
		fill(data, at, bytes, c->version);
		if (!matched)
			abi_give(s, tag, data, bytes);
	} else {
		if (!matched)
			abi_take(s, tag, data, bytes);
		if (!is_filled(data, at, bytes, c->version))
			nr_wrong++;
	}
	free(bounce);
	return (int)bytes;
}

/* ---- the clients ---- */

static int one_request(struct client *c, unsigned int *seed)
{
	uint32_t bytes = (uint32_t)(1 + rand_r(seed) % (8 * PAGE / 512)) * 512;
	uint64_t offset = (uint64_t)rand_r(seed) % (FILE_PAGES * PAGE - bytes) & ~511ULL;
	uint64_t at = ABI_TEST_OFFSET + c->file * SPAN +
		      ((uint64_t)rand_r(seed) % (SPAN - bytes) & ~511ULL);
	uint8_t *p = c->mapped + offset;

	c->offset = offset;
	c->version++;
	if (rand_r(seed) & 1) {
		fill(p, at, bytes, c->version);
		return pwrite(server.disk_fd, p, bytes, (off_t)at) == bytes ? 0 : -errno;
	}
	memset(p, 0, bytes);
	if (pread(server.disk_fd, p, bytes, (off_t)at) != bytes)
		return -errno;
	return is_filled(p, at, bytes, c->version) ? 0 : -EILSEQ;
}

static void *be_client(void *arg)
{
	struct client *c = arg;
	unsigned int seed = c->file + 1;

	while (!stop && !c->error) {
		c->error = one_request(c, &seed);
		c->nr_done++;
	}
	return NULL;
}

/* ---- the registrars ---- */

struct registrar {
	unsigned int seed;
	uint8_t *mapped[NR_FILES];
	int kept[NR_KEPT]; /* indices, or -1 */
	int error;
	pthread_t thread;
};

static int register_something(struct registrar *r)
{
	unsigned int file = (unsigned int)rand_r(&r->seed) % NR_FILES;
	size_t first = (size_t)rand_r(&r->seed) % FILE_PAGES;
	size_t nr = 1 + (size_t)rand_r(&r->seed) % MOST_PAGES;
	int index;

	if (nr > FILE_PAGES - first)
		nr = FILE_PAGES - first;
	index = abi_reg(&server, r->mapped[file] + first * PAGE, nr * PAGE,
			rand_r(&r->seed) % 8 ? 0 : UAPI_SHMEM_BUF_READ_ONLY);
	if (index == -EEXIST) {
		nr_refused++;
		return -1;
	}
	if (index < 0) {
		r->error = index;
		return -1;
	}
	while (entries[index].file) /* its last owner has yet to withdraw it */
		usleep(100);
	entries[index].offset = first * PAGE;
	entries[index].file = file + 1;
	nr_registered++;
	return index;
}

static void unregister(struct registrar *r, int index)
{
	int ret = abi_unreg(&server, (unsigned int)index);

	if (ret)
		r->error = ret;
	entries[index].file = 0;
}

static void *be_registrar(void *arg)
{
	struct registrar *r = arg;

	while (!stop && !r->error) {
		int *one = &r->kept[(unsigned int)rand_r(&r->seed) % NR_KEPT];

		if (*one < 0) {
			*one = register_something(r);
		} else {
			unregister(r, *one);
			*one = -1;
		}
	}
	return NULL;
}

/* ---- all together ---- */

static void make_files(void)
{
	for (unsigned int i = 0; i < NR_FILES; i++) {
		files[i].fd = memory_file(FILE_PAGES * PAGE, 0);
		files[i].server = map_file(files[i].fd, FILE_PAGES * PAGE);
		clients[i] = (struct client){
			.file = i,
			.mapped = map_file(files[i].fd, FILE_PAGES * PAGE),
		};
	}
}

static void start_registrar(struct registrar *r, unsigned int nr)
{
	*r = (struct registrar){ .seed = 100 + nr };
	for (unsigned int i = 0; i < NR_FILES; i++)
		r->mapped[i] = map_file(files[i].fd, FILE_PAGES * PAGE);
	for (unsigned int i = 0; i < NR_KEPT; i++)
		r->kept[i] = -1;
	pthread_create(&r->thread, NULL, be_registrar, r);
}

static void every_byte_is_right_while_buffers_come_and_go(void **state)
{
	const char *wanted = getenv("STRESS_SECONDS");
	struct registrar registrars[NR_REGISTRARS];
	unsigned long long nr_done = 0;

	(void)state;
	make_files();
	add_zc(&server);
	server.handler = serve_checked;
	abi_start(&server);
	for (unsigned int i = 0; i < NR_FILES; i++)
		pthread_create(&clients[i].thread, NULL, be_client, &clients[i]);
	for (unsigned int i = 0; i < NR_REGISTRARS; i++)
		start_registrar(&registrars[i], i);
	sleep(wanted ? (unsigned int)atoi(wanted) : SECONDS_DEFAULT);
	stop = true;
	for (unsigned int i = 0; i < NR_FILES; i++) {
		pthread_join(clients[i].thread, NULL);
		nr_done += clients[i].nr_done;
	}
	for (unsigned int i = 0; i < NR_REGISTRARS; i++)
		pthread_join(registrars[i].thread, NULL);
	print_message(
		"%llu requests, %llu matched, %llu copied; %llu registrations, %llu refused\n",
		nr_done, server.nr_matched, server.nr_copied, nr_registered, nr_refused);
	for (unsigned int i = 0; i < NR_FILES; i++)
		assert_int_equal(clients[i].error, 0);
	for (unsigned int i = 0; i < NR_REGISTRARS; i++)
		assert_int_equal(registrars[i].error, 0);
	assert_int_equal(nr_lost, 0);
	assert_int_equal(nr_wrong, 0);
	assert_true(server.nr_matched > 0 && server.nr_copied > 0);
	assert_true(nr_registered > 0 && nr_refused > 0);
	abi_del(&server); /* with whatever is still registered */
	assert_nothing_pinned();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_byte_is_right_while_buffers_come_and_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
