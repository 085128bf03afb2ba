/* SPDX-License-Identifier: MIT */
/* buffers.c - registering, unregistering and listing, and what each must answer. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "world.h"

static bool has_feature(const struct device *d)
{
	return d->flags & UBLK_F_SHMEM_ZC;
}

/* The stock driver hangs if it must freeze a queue whose requests wait for a server. */
static bool may_change(const struct device *d)
{
	return d->life != NONE && (world->ours || d->life == ADDED || d->life == LIVE);
}

int find_used(const struct device *d)
{
	unsigned int first = below(NR_BUFFERS);

	for (unsigned int i = 0; i < NR_BUFFERS; i++)
		if (d->buffers[(first + i) % NR_BUFFERS].used)
			return (int)((first + i) % NR_BUFFERS);
	return -1;
}

void forget_buffer(struct device *d, unsigned int index)
{
	d->buffers[index].used = false;
}

unsigned long nr_registered_pages(void)
{
	unsigned long nr = 0;

	for (unsigned int d = 0; d < NR_DEVICES; d++)
		for (unsigned int i = 0; i < NR_BUFFERS; i++) /* foreign ones are not pinned */
			if (world->devices[d].buffers[i].used &&
			    !is_foreign(&world->devices[d].buffers[i]))
				nr += world->devices[d].buffers[i].nr;
	return nr;
}

long pinned_pages(void)
{
	char name[64];
	long n, nr = 0;
	FILE *f;
	int fd = open("/proc/sys/vm/stat_refresh", O_WRONLY);

	/* the counters are per processor */
	if (fd >= 0) {
		if (write(fd, "1", 1) != 1)
			wrong("stat_refresh: %s", strerror(errno));
		close(fd);
	}
	f = fopen("/proc/vmstat", "r");
	if (!f)
		wrong("/proc/vmstat: %s", strerror(errno));
	while (fscanf(f, "%63s %ld", name, &n) == 2) {
		if (strcmp(name, "nr_foll_pin_acquired") == 0)
			nr += n;
		if (strcmp(name, "nr_foll_pin_released") == 0)
			nr -= n;
	}
	fclose(f);
	return nr;
}

/* ---- registering ---- */

static unsigned int page_of(enum view view, unsigned int at)
{
	return view == SHUFFLED ? world->order[at] : at;
}

static bool is_registered(const struct device *d, unsigned int page)
{
	for (unsigned int i = 0; i < NR_BUFFERS; i++)
		for (unsigned int n = 0; d->buffers[i].used && n < d->buffers[i].nr; n++)
			if (!d->buffers[i].ended && d->buffers[i].pages[n] == page)
				return true;
	return false;
}

/* The lowest free index, or an errno. */
static int must_answer(const struct device *d, enum view view, unsigned int first, unsigned int nr,
		       uint32_t flags)
{
	if (!has_feature(d))
		return -EOPNOTSUPP;
	if (view == READ_ONLY && !(flags & UAPI_SHMEM_BUF_READ_ONLY))
		return -EFAULT;
	if (first + nr > NR_PAGES)
		return -EFAULT;
	for (unsigned int i = 0; i < nr; i++)
		if (is_registered(d, page_of(view, first + i)))
			return -EEXIST;
	for (int i = 0;; i++)
		if (!d->buffers[i].used)
			return i;
}

int register_pages(struct device *d, enum view view, unsigned int first, unsigned int nr,
		   uint32_t flags)
{
	struct uapi_shmem_buf_reg reg = { .addr = (uintptr_t)world->views[view] + first * PAGE,
					  .len = nr * PAGE,
					  .flags = flags };
	int must = must_answer(d, view, first, nr, flags), is;

	if (must >= 0) { /* requests may come before the answer does */
		struct buffer *b = &d->buffers[must];

		b->ended = false;
		b->pid = 0;
		b->read_only = flags & UAPI_SHMEM_BUF_READ_ONLY;
		b->nr = nr;
		b->view = view == SHUFFLED ? SHUFFLED : IN_ORDER;
		b->first = first;
		for (unsigned int i = 0; i < nr; i++)
			b->pages[i] = page_of(view, first + i);
		b->used = true;
	}
	is = command(d, UBLK_U_CMD_REG_BUF, &reg, sizeof(reg), 0);
	expect(is, must, "REG_BUF");
	return is;
}

void step_register(struct device *d)
{
	uint32_t flags = one_in(6) ? UAPI_SHMEM_BUF_READ_ONLY : 0;
	enum view view = one_in(8) ? READ_ONLY : (enum view)below(2);
	unsigned int first = below(NR_PAGES);
	unsigned int nr = 1 + below(one_in(4) ? NR_PAGES : 6);

	if (!may_change(d))
		return;
	if (first + nr > NR_PAGES && !one_in(8))
		nr = NR_PAGES - first;
	trace("register %u pages from %u of view %d, flags %u", nr, first, view, flags);
	register_pages(d, view, first, nr, flags);
	if (d->life == LIVE && one_in(3))
		request_somewhere(d);
}

void step_register_wrong(struct device *d)
{
	struct uapi_shmem_buf_reg reg = { .addr = (uintptr_t)world->views[IN_ORDER], .len = PAGE };
	uintptr_t at = (uintptr_t)&reg;
	int must = -EINVAL;

	if (!may_change(d))
		return;
	switch (below(7)) {
	case 0:
		reg.flags = 2 << below(31);
		break;
	case 1:
		reg.reserved = 1;
		break;
	case 2:
		reg.len = 0;
		break;
	case 3:
		reg.len += 512;
		break;
	case 4:
		reg.addr += 512;
		break;
	case 5:
		reg.len = UAPI_SHMEM_BUF_SIZE_MAX + PAGE;
		break;
	default:
		at = 8;
		must = -EFAULT;
	}
	trace("register nonsense: %llx, %llx, %x, %x", (unsigned long long)reg.addr,
	      (unsigned long long)reg.len, reg.flags, reg.reserved);
	expect(command_raw(UBLK_U_CMD_REG_BUF, d->number, at, sizeof(reg), 0),
	       has_feature(d) ? must : -EOPNOTSUPP, "REG_BUF of nonsense");
}

/* ---- unregistering ---- */

void step_unregister(struct device *d)
{
	int used = find_used(d);
	uint64_t index = used < 0 || one_in(5) ? below(NR_BUFFERS) : (uint64_t)used;
	int must;

	if (!may_change(d))
		return;
	if (world->ours && one_in(12))
		index |= 1ULL << (16 + below(48));
	must = !has_feature(d)			  ? -EOPNOTSUPP
	       : index > UAPI_SHMEM_BUF_INDEX_MAX ? -EINVAL
	       : d->buffers[index].used		  ? 0
						  : -ENOENT;
	trace("unregister %llx", (unsigned long long)index);
	expect(command(d, UBLK_U_CMD_UNREG_BUF, NULL, 0, index), must, "UNREG_BUF");
	if (!must)
		forget_buffer(d, (unsigned int)index);
}

static struct io_uring_sqe *prepare(struct io_uring *ring, struct device *d, int ctrl_fd,
				    unsigned int index)
{
	struct uapi_ctrl_cmd cmd = { .dev_id = d->number,
				     .queue_id = UINT16_MAX,
				     .data = { index } };
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	if (!sqe)
		wrong("fuzzer: no entry");
	memset(sqe, 0, 2 * sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = ctrl_fd;
	sqe->off = UBLK_U_CMD_UNREG_BUF;
	sqe->user_data = index;
	memcpy(&sqe->addr3, &cmd, sizeof(cmd));
	return sqe;
}

/* All at once, through a ring of few entries, each of which is reused at once. */
void step_unregister_many(struct device *d)
{
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	unsigned int nr = 0;
	int fd;

	if (!may_change(d) || !has_feature(d) || !world->ours)
		return;
	for (unsigned int i = 0; i < NR_PAGES; i++)
		if (!is_registered(d, i) && one_in(2))
			register_pages(d, IN_ORDER, i, 1, 0);
	trace("unregister all at once");
	fd = open("/dev/ublk-control", O_RDWR | O_CLOEXEC);
	if (fd < 0 || io_uring_queue_init(4, &ring, IORING_SETUP_SQE128))
		wrong("fuzzer: %s", strerror(errno));
	for (unsigned int i = 0; i < NR_BUFFERS; i++) {
		if (!d->buffers[i].used)
			continue;
		prepare(&ring, d, fd, i);
		io_uring_submit(&ring);
		nr++;
	}
	while (nr--) {
		if (io_uring_wait_cqe(&ring, &cqe))
			wrong("fuzzer: wait");
		expect(cqe->res, 0, "one of many UNREG_BUF");
		forget_buffer(d, (unsigned int)cqe->user_data);
		io_uring_cqe_seen(&ring, cqe);
	}
	io_uring_queue_exit(&ring);
	close(fd);
}

/* ---- listing ---- */

static void check_info(const struct device *d, const struct uapi_shmem_buf_info *info)
{
	const struct buffer *b = &d->buffers[info->index % NR_BUFFERS];
	uint32_t flags = (b->read_only ? UAPI_SHMEM_BUF_READ_ONLY : 0) |
			 (is_foreign(b) ? UAPI_SHMEM_BUF_FOREIGN : 0) |
			 (b->ended ? UAPI_SHMEM_BUF_ENDED : 0);

	if (info->index >= NR_BUFFERS || !b->used || info->len != b->nr * PAGE ||
	    (info->flags & ~(b->ended ? UAPI_SHMEM_BUF_DYING : 0)) != flags || !info->nr_runs ||
	    info->nr_runs > b->nr || info->pid != b->pid)
		wrong("LIST_BUFS: index %u, %llu bytes, flags %x, %u runs", info->index,
		      (unsigned long long)info->len, info->flags, info->nr_runs);
}

void step_list(struct device *d)
{
	struct uapi_shmem_buf_info infos[NR_BUFFERS];
	unsigned int most = 1 + below(NR_BUFFERS), first = below(NR_BUFFERS), must = 0, at = first;
	int is;

	if (d->life == NONE || !world->ours)
		return;
	trace("list %u from %u", most, first);
	is = command(d, UAPI_CMD_LIST_BUFS, infos, (uint16_t)(most * sizeof(*infos)), first);
	if (!(d->flags & UAPI_F_SHMEM_LIST)) {
		expect(is, -EOPNOTSUPP, "LIST_BUFS without the flag");
		return;
	}
	check_foreign(d);
	for (unsigned int i = first; i < NR_BUFFERS; i++)
		must += d->buffers[i].used && must < most;
	expect(is, (int)must, "LIST_BUFS");
	for (unsigned int i = 0; i < must; i++) {
		check_info(d, &infos[i]);
		if (infos[i].index < at)
			wrong("LIST_BUFS: index %u, which is under %u", infos[i].index, at);
		at = infos[i].index + 1;
	}
	expect(command(d, UAPI_CMD_LIST_BUFS, infos, sizeof(*infos), 65536 + below(9)), -EINVAL,
	       "LIST_BUFS from too high an index");
	expect(command(d, UAPI_CMD_LIST_BUFS, infos, sizeof(*infos) - 1, 0), -EINVAL,
	       "LIST_BUFS into too little");
}

/* ---- all at a time ---- */

#define NR_STORMERS 3U
#define STORM_STEPS 30U

struct stormer {
	struct device *d;
	uint64_t random;
	pthread_t thread;
};

static uint64_t next(uint64_t *random)
{
	*random = *random * 6364136223846793005ULL + 1442695040888963407ULL;
	return *random >> 33;
}

static void one_of_storm(struct stormer *s, struct uapi_shmem_buf_info *infos)
{
	struct uapi_shmem_buf_reg reg = { .addr = (uintptr_t)world->views[next(&s->random) % 2] +
						  next(&s->random) % (NR_PAGES - 4) * PAGE,
					  .len = (1 + next(&s->random) % 4) * PAGE };
	struct device *d = s->d;
	int ret;

	switch (next(&s->random) % 8) {
	case 0:
	case 1:
	case 2:
		ret = command(d, UBLK_U_CMD_REG_BUF, &reg, sizeof(reg), 0);
		if (ret < 0 && ret != -EEXIST)
			wrong("REG_BUF in a storm: %d", ret);
		break;
	case 3:
	case 4:
		ret = command(d, UBLK_U_CMD_UNREG_BUF, NULL, 0, next(&s->random) % 8);
		if (ret && ret != -ENOENT)
			wrong("UNREG_BUF in a storm: %d", ret);
		break;
	case 5:
		ret = command(d, UAPI_CMD_LIST_BUFS, infos, sizeof(*infos) * NR_BUFFERS, 0);
		if (ret < 0 && ret != -EOPNOTSUPP)
			wrong("LIST_BUFS in a storm: %d", ret);
		break;
	default:
		/* what it hands over is nobody's to say now; that it ends is */
		if (d->life == LIVE && pwrite(d->disk_fd, (void *)(uintptr_t)reg.addr, reg.len,
					      (off_t)(next(&s->random) % (NR_SLOTS - 1) *
						      IO_BYTES)) != (ssize_t)reg.len)
			wrong("a write in a storm: %s", strerror(errno));
	}
}

static void *storm(void *arg)
{
	struct stormer *s = arg;
	struct uapi_shmem_buf_info infos[NR_BUFFERS];

	for (unsigned int i = 0; i < STORM_STEPS; i++)
		one_of_storm(s, infos);
	return NULL;
}

/* Several at a time; afterwards nothing is registered, whatever there was. */
void step_storm(struct device *d)
{
	struct stormer stormers[NR_STORMERS];

	if (!may_change(d) || !has_feature(d))
		return;
	trace("a storm");
	d->may_be_unknown = true;
	for (unsigned int i = 0; i < NR_STORMERS; i++) {
		stormers[i] = (struct stormer){ .d = d, .random = draw() };
		pthread_create(&stormers[i].thread, NULL, storm, &stormers[i]);
	}
	for (unsigned int i = 0; i < NR_STORMERS; i++)
		pthread_join(stormers[i].thread, NULL);
	for (unsigned int i = 0; i < NR_BUFFERS; i++) {
		int ret = command(d, UBLK_U_CMD_UNREG_BUF, NULL, 0, i);

		if (ret && ret != -ENOENT)
			wrong("UNREG_BUF after a storm: %d", ret);
		forget_buffer(d, i);
	}
	d->may_be_unknown = false;
}
