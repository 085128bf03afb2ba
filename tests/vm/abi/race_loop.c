/* SPDX-License-Identifier: MIT */
/*
 * race_loop.c - lookups, registrations and lists as close together as they can be, for a kernel
 * that detects data races.
 *
 * Requests are in one page, buffers come and go in others of the same block of physical pages:
 * what a registration changes is what the next lookup loads.  Nothing is verified; the other
 * tests do.  debug-kernel/inside runs it for some seconds.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

#define NR_PAGES_TRIED 512U
#define NR_REGISTRARS 2U

static struct abi_server server;
static atomic_bool stop;
static uint8_t *pages[1 + NR_REGISTRARS]; /* of one block; the first is the requests' */
static atomic_ulong nr_registered, nr_requests, nr_lists;

static int leave(struct abi_server *s, const struct ublksrv_io_desc *iod, uint16_t tag)
{
	(void)s;
	(void)tag;
	return (int)(iod->nr_sectors << 9);
}

/* The same device, by a ring of the thread's own. */
static struct abi_server open_again(void)
{
	struct abi_server s = { .device = server.device };

	if (ctrl_open(&s.ctrl))
		abort();
	return s;
}

static void *registrar(void *page)
{
	struct abi_server s = open_again();

	while (!stop) {
		int index = abi_reg(&s, page, PAGE, 0);

		if (index < 0 || abi_unreg(&s, (unsigned int)index))
			abort();
		nr_registered++;
	}
	ctrl_close(&s.ctrl);
	return NULL;
}

static void *lister(void *unused)
{
	struct uapi_shmem_buf_info infos[8];
	struct abi_server s = open_again();

	while (!stop && ctrl_list_bufs(&s.ctrl, s.device, 0, infos, 8) >= 0)
		nr_lists++;
	ctrl_close(&s.ctrl);
	return unused;
}

static void *client(void *unused)
{
	while (!stop) {
		if (pwrite(server.disk_fd, pages[0], PAGE, ABI_TEST_OFFSET) != (ssize_t)PAGE)
			abort();
		nr_requests++;
	}
	return unused;
}

/* Pages of one block of 512, as lookups go by. */
static bool find_pages(void)
{
	uint8_t *p = shared_pages(NR_PAGES_TRIED);
	unsigned int nr = 0;

	for (unsigned int i = 0; i < NR_PAGES_TRIED && nr <= NR_REGISTRARS; i++) {
		uint8_t *page = p + (size_t)i * PAGE;

		*page = 1;
		if (nr && frame_of(page) >> 9 != frame_of(pages[0]) >> 9)
			nr = 0;
		pages[nr++] = page;
	}
	return nr > NR_REGISTRARS;
}

int main(int argc, char **argv)
{
	pthread_t threads[NR_REGISTRARS + 2];
	unsigned int nr = 0;

	if (argc != 2 || atoi(argv[1]) <= 0) {
		fprintf(stderr, "usage: race_loop SECONDS\n");
		return 2;
	}
	if (!find_pages()) {
		fprintf(stderr, "race_loop: no pages beside each other\n");
		return 1;
	}
	/* the kernel's own driver has no lists */
	if (abi_add(&server, ZC_FLAGS | UAPI_F_SHMEM_LIST))
		add_zc(&server);
	if (abi_reg(&server, pages[0], PAGE, 0) < 0)
		return 1;
	server.handler = leave;
	abi_start(&server);
	pthread_create(&threads[nr++], NULL, client, NULL);
	pthread_create(&threads[nr++], NULL, lister, NULL);
	for (unsigned int i = 0; i < NR_REGISTRARS; i++)
		pthread_create(&threads[nr++], NULL, registrar, pages[1 + i]);
	sleep((unsigned int)atoi(argv[1]));
	stop = true;
	while (nr)
		pthread_join(threads[--nr], NULL);
	printf("%lu requests beside %lu registrations and %lu lists\n", nr_requests, nr_registered,
	       nr_lists);
	abi_del(&server);
	return !nr_requests || !nr_registered;
}
