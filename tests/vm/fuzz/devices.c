/* SPDX-License-Identifier: MIT */
/* devices.c - control commands on devices, and what each must answer in each state. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "world.h"

#define EXTENSIONS                                                                                 \
	(UAPI_F_SHMEM_LIST | UAPI_F_SHMEM_SEGS | UAPI_F_SHMEM_FOREIGN | UAPI_F_SHMEM_HINTS)
#define EVENTUALLY 60000 /* milliseconds, of a slow machine */

static enum life driver_life(struct device *d, struct ublksrv_ctrl_dev_info *info)
{
	expect(command(d, UBLK_U_CMD_GET_DEV_INFO, info, sizeof(*info), 0), 0, "GET_DEV_INFO");
	return info->state == UBLK_S_DEV_LIVE	    ? LIVE
	       : info->state == UBLK_S_DEV_QUIESCED ? QUIESCED
						    : ADDED;
}

static void bring_up(struct device *d);

/* ---- adding ---- */

static uint64_t random_flags(void)
{
	static const uint64_t common[] = {
		UBLK_F_USER_COPY,     UBLK_F_USER_RECOVERY, UBLK_F_USER_RECOVERY_REISSUE,
		UBLK_F_SHMEM_ZC,      UAPI_F_SHMEM_LIST,    UAPI_F_SHMEM_SEGS,
		UAPI_F_SHMEM_FOREIGN, UAPI_F_SHMEM_HINTS
	};
	static const uint64_t rare[] = { UBLK_F_SUPPORT_ZERO_COPY,
					 UBLK_F_URING_CMD_COMP_IN_TASK,
					 UBLK_F_NEED_GET_DATA,
					 UBLK_F_ZONED,
					 UBLK_F_UNPRIVILEGED_DEV,
					 1ULL << 57,
					 1ULL << 63 };
	uint64_t flags = 0;

	if (!one_in(4)) /* what we are here for */
		flags = UBLK_F_SHMEM_ZC | UBLK_F_USER_COPY | UAPI_F_SHMEM_LIST;
	for (size_t i = 0; i < sizeof(common) / sizeof(common[0]); i++)
		if (one_in(2))
			flags |= common[i];
	/* later drivers have rules of their own for these */
	for (size_t i = 0; world->is_612 && i < sizeof(rare) / sizeof(rare[0]); i++)
		if (one_in(12))
			flags |= rare[i];
	if (!world->is_612 && !(flags & UBLK_F_USER_RECOVERY))
		flags &= ~(uint64_t)UBLK_F_USER_RECOVERY_REISSUE;
	if (flags & UBLK_F_SHMEM_ZC || one_in(3))
		return flags;
	return flags & ~EXTENSIONS;
}

/* What ADD_DEV makes of flags: an errno, or 0 and what they become. */
static int added_flags(uint64_t *flags)
{
	uint64_t f = *flags & world->features;

	f &= ~(uint64_t)UBLK_F_UNPRIVILEGED_DEV; /* root needs it not */
	if (f & UBLK_F_USER_COPY)
		f &= ~(uint64_t)UBLK_F_NEED_GET_DATA;
	if (world->ours) {
		if (f & UBLK_F_SHMEM_ZC && f & UBLK_F_NEED_GET_DATA)
			return -EINVAL;
		if (f & EXTENSIONS && !(f & UBLK_F_SHMEM_ZC))
			return -EINVAL;
		if (f & UAPI_F_SHMEM_FOREIGN && !(f & UAPI_F_SHMEM_LIST))
			return -EINVAL;
		if (f & UAPI_F_SHMEM_SEGS && (!(f & UBLK_F_USER_COPY) || f & UBLK_F_ZONED))
			return -EINVAL;
	}
	if (f & UBLK_F_ZONED && !(f & UBLK_F_USER_COPY))
		return -EINVAL;
	if (world->is_612)
		f &= ~(uint64_t)UBLK_F_SUPPORT_ZERO_COPY;
	*flags = f | UBLK_F_CMD_IOCTL_ENCODE | UBLK_F_URING_CMD_COMP_IN_TASK;
	return 0;
}

static void check_added(struct device *d, const struct ublksrv_ctrl_dev_info *info, uint64_t flags)
{
	if (info->flags != flags)
		wrong("ADD_DEV: flags are %llx, not %llx", (unsigned long long)info->flags,
		      (unsigned long long)flags);
	if (info->nr_hw_queues > MAX_QUEUES || info->queue_depth != d->depth ||
	    info->max_io_buf_bytes != IO_BYTES || info->state != UBLK_S_DEV_DEAD)
		wrong("ADD_DEV: %u queues of %u, %u bytes, state %u", info->nr_hw_queues,
		      info->queue_depth, info->max_io_buf_bytes, info->state);
}

void step_add(struct device *d)
{
	struct ublksrv_ctrl_dev_info info = {
		.nr_hw_queues = (uint16_t)(one_in(20) ? 0 : 1 + below(MAX_QUEUES)),
		.queue_depth = (uint16_t)(one_in(20) ? 4097 * below(2) : 1 + below(MAX_DEPTH)),
		.max_io_buf_bytes = IO_BYTES,
		.dev_id = UINT32_MAX,
		.flags = random_flags(),
		.state = (uint16_t)below(3),
	};
	uint64_t flags = info.flags;
	int must = added_flags(&flags), is;

	if (d->life != NONE)
		return;
	if (!info.nr_hw_queues || !info.queue_depth || info.queue_depth > UBLK_MAX_QUEUE_DEPTH)
		must = -EINVAL;
	trace("add %u queues of %u, flags %llx", info.nr_hw_queues, info.queue_depth,
	      (unsigned long long)info.flags);
	/* Linux 7's own search for partitions is not the fuzzer's request */
	info.flags |= world->features & UBLK_F_NO_AUTO_PART_SCAN;
	flags |= world->features & UBLK_F_NO_AUTO_PART_SCAN;
	d->depth = info.queue_depth;
	is = command_raw(UBLK_U_CMD_ADD_DEV, UINT32_MAX, (uintptr_t)&info, sizeof(info), 0);
	if (!world->is_612 && !is) /* it may set more */
		flags |= info.flags & ~(flags | EXTENSIONS | UBLK_F_SHMEM_ZC);
	expect(is, must, "ADD_DEV");
	if (must)
		return;
	check_added(d, &info, flags);
	d->number = info.dev_id;
	d->flags = flags;
	d->nr_queues = info.nr_hw_queues;
	d->fetched = NO_SERVER;
	d->has_params = d->was_ready = false;
	/* zones are for other tests */
	d->life = flags & UBLK_F_ZONED ? SPENT : ADDED;
	if (d->life == ADDED && !one_in(4))
		bring_up(d);
}

/* ---- parameters ---- */

static struct uapi_params good_params(void)
{
	return (struct uapi_params){
		.len = sizeof(struct uapi_params),
		.types = UBLK_PARAM_TYPE_BASIC,
		.basic = {
			.attrs = below(2) ? UBLK_ATTR_VOLATILE_CACHE : 0,
			.logical_bs_shift = 9,
			.physical_bs_shift = (uint8_t)(9 + below(4)),
			.io_opt_shift = 12,
			.io_min_shift = 9,
			.max_sectors = IO_BYTES >> 9,
			.dev_sectors = DISK_BYTES >> 9,
		},
	};
}

static void make_bad(struct uapi_params *p)
{
	switch (below(7)) {
	case 0:
		p->basic.logical_bs_shift = 8;
		break;
	case 1:
		p->basic.logical_bs_shift = 13;
		break;
	case 2:
		p->basic.logical_bs_shift = 12;
		p->basic.physical_bs_shift = 9;
		break;
	case 3:
		p->basic.max_sectors = (IO_BYTES >> 9) + 1;
		break;
	case 4:
		p->basic.max_sectors = 7;
		break;
	case 5:
		p->types = UBLK_PARAM_TYPE_DISCARD;
		break;
	default:
		p->types |= UBLK_PARAM_TYPE_DISCARD; /* with a granularity of 0 */
	}
}

void step_params(struct device *d)
{
	struct uapi_params p = good_params();
	bool bad = one_in(3);
	int must;

	if (d->life == NONE || d->life == SPENT)
		return;
	if (bad)
		make_bad(&p);
	must = d->life == ADDED ? (bad ? -EINVAL : 0) : -EACCES;
	trace("%s parameters", bad ? "bad" : "good");
	expect(command(d, UBLK_U_CMD_SET_PARAMS, &p, sizeof(p), 0), must, "SET_PARAMS");
	if (d->life == ADDED) {
		d->has_params = !bad;
		d->params = p;
	}
}

/* ---- servers ---- */

void spawn_server(struct device *d, unsigned int nr_fetch)
{
	int status = 0;
	pid_t pid;

	d->serving = false;
	d->nr_held = 0;
	d->nr_fetch = nr_fetch;
	pid = fork();
	if (pid < 0)
		wrong("fork: %s", strerror(errno));
	if (!pid)
		serve(d);
	d->server = pid; /* by the parent alone: the memory is shared */
	while (!d->serving) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			wrong("the server ended before it served, status %x", (unsigned int)status);
		usleep(200);
	}
	d->fetched = nr_fetch == d->depth * d->nr_queues ? ALL : SOME;
	d->was_ready = d->was_ready || d->fetched == ALL;
}

void reap_server(struct device *d)
{
	kill(d->server, SIGKILL);
	waitpid(d->server, NULL, 0);
	d->server = 0;
	d->fetched = NO_SERVER;
}

void step_serve(struct device *d)
{
	bool some = one_in(8);

	if ((d->life != ADDED && d->life != RECOVERING) || d->fetched != NO_SERVER)
		return;
	trace(some ? "a server that fetches on some tags" : "a server");
	spawn_server(d, some ? below(d->depth * d->nr_queues) : d->depth * d->nr_queues);
}

static void close_disk(struct device *d)
{
	if (d->disk_fd >= 0)
		close(d->disk_fd);
	d->disk_fd = -1;
}

/* And wait until the driver knows. */
void kill_server(struct device *d)
{
	struct ublksrv_ctrl_dev_info info;
	bool was_live = d->life == LIVE;

	reap_server(d);
	for (int i = 0; was_live && driver_life(d, &info) == LIVE; i++) {
		if (i > EVENTUALLY)
			wrong("the driver does not notice that the server is dead");
		usleep(1000);
	}
	if (d->life == LIVE)
		d->life = d->flags & UBLK_F_USER_RECOVERY ? QUIESCED : SPENT;
	else if (d->life == RECOVERING)
		d->life = QUIESCED;
	else
		d->life = SPENT;
	if (d->life == SPENT)
		close_disk(d);
}

void step_kill(struct device *d)
{
	if (d->fetched == NO_SERVER)
		return;
	trace("kill the server");
	kill_server(d);
}

/* ---- starting and stopping ---- */

static void open_disk(struct device *d)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/sys/block/ublkb%u/queue/nomerges", d->number);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, "2", 1) != 1)
		wrong("%s: %s", path, strerror(errno));
	close(fd);
	snprintf(path, sizeof(path), "/dev/ublkb%u", d->number);
	d->disk_fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (d->disk_fd < 0)
		wrong("%s: %s", path, strerror(errno));
}

/* It had a server, but has none any more: what that one has fetched with is gone. */
static void start_spent(struct device *d)
{
	int ret;

	if (!d->was_ready || !d->has_params || !world->ours || !world->is_612)
		return;
	trace("start it without a server");
	ret = command(d, UBLK_U_CMD_START_DEV, NULL, 0, (uint64_t)getpid());
	if (ret != -EEXIST) /* its disk may be on its way out */
		expect(ret, -ECANCELED, "START_DEV without a server");
}

void step_start(struct device *d)
{
	bool bad_pid = one_in(8);
	int must = 0;

	if (d->life == SPENT)
		start_spent(d);
	if (d->life == NONE || d->life == SPENT)
		return;
	if (bad_pid || !d->has_params)
		must = -EINVAL;
	else if (d->life != ADDED)
		must = -EEXIST;
	/* it would wait for a server */
	if (must != -EINVAL && d->fetched != ALL)
		return;
	trace("start");
	expect(command(d, UBLK_U_CMD_START_DEV, NULL, 0,
		       bad_pid	   ? (uint64_t) - (int64_t)below(2)
		       : d->server ? (uint64_t)d->server
				   : (uint64_t)getpid()),
	       must, "START_DEV");
	if (must)
		return;
	d->life = LIVE;
	open_disk(d);
}

/* The rest of the way without detours: most of what can go wrong is behind it. */
static void bring_up(struct device *d)
{
	d->params = good_params();
	expect(command(d, UBLK_U_CMD_SET_PARAMS, &d->params, sizeof(d->params), 0), 0,
	       "SET_PARAMS");
	d->has_params = true;
	trace("bring it up");
	spawn_server(d, d->depth * d->nr_queues);
	expect(command(d, UBLK_U_CMD_START_DEV, NULL, 0, (uint64_t)d->server), 0, "START_DEV");
	d->life = LIVE;
	open_disk(d);
}

void step_stop(struct device *d)
{
	if (d->life == NONE)
		return;
	trace("stop");
	if (one_in(2))
		close_disk(d);
	expect(command(d, UBLK_U_CMD_STOP_DEV, NULL, 0, 0), 0, "STOP_DEV");
	d->life = SPENT;
	close_disk(d);
}

void delete_device(struct device *d, bool wait)
{
	unsigned int op = wait ? UBLK_U_CMD_DEL_DEV : UBLK_U_CMD_DEL_DEV_ASYNC;

	if (wait)
		close_disk(d);
	/* the driver waits until the char device is closed */
	if (wait && d->server && d->fetched != ALL)
		reap_server(d);
	expect(command(d, op, NULL, 0, 0), 0, wait ? "DEL_DEV" : "DEL_DEV_ASYNC");
	close_disk(d);
	if (d->server)
		reap_server(d);
	d->life = NONE;
	d->flags = 0;
	for (unsigned int i = 0; i < NR_BUFFERS; i++)
		d->buffers[i].used = false;
}

void step_delete(struct device *d)
{
	bool wait = one_in(2);

	if (d->life == NONE)
		return;
	trace(wait ? "delete" : "delete, without waiting");
	delete_device(d, wait);
}

/* ---- recovery ---- */

void begin_recovery(struct device *d)
{
	int ret = -EBUSY;

	/* the character device is closed by and by */
	for (int i = 0; ret == -EBUSY && i < EVENTUALLY; i++) {
		ret = command(d, UBLK_U_CMD_START_USER_RECOVERY, NULL, 0, 0);
		if (ret == -EBUSY)
			usleep(1000);
	}
	expect(ret, 0, "START_USER_RECOVERY");
	d->was_ready = false; /* and it is waited for again */
	d->life = RECOVERING;
}

void end_recovery(struct device *d)
{
	expect(command(d, UBLK_U_CMD_END_USER_RECOVERY, NULL, 0, (uint64_t)d->server), 0,
	       "END_USER_RECOVERY");
	d->life = LIVE;
}

void step_begin_recovery(struct device *d)
{
	int ret;

	if (d->life == NONE)
		return;
	trace("begin recovery");
	if (d->life == QUIESCED) {
		begin_recovery(d);
		return;
	}
	ret = command(d, UBLK_U_CMD_START_USER_RECOVERY, NULL, 0, 0);
	if (!(d->flags & UBLK_F_USER_RECOVERY))
		expect(ret, -EINVAL, "START_USER_RECOVERY without the flag");
	else if (d->life == RECOVERING && d->fetched == NO_SERVER && ret == 0)
		return; /* once more */
	else
		expect(ret, -EBUSY, "START_USER_RECOVERY of a device that is served");
}

void step_end_recovery(struct device *d)
{
	int ret;

	if (d->life == NONE || d->life == SPENT)
		return;
	if (d->life == RECOVERING && d->fetched == ALL) {
		trace("end recovery");
		end_recovery(d);
	} else if (d->life == LIVE) {
		trace("end a recovery that has not begun");
		ret = command(d, UBLK_U_CMD_END_USER_RECOVERY, NULL, 0, (uint64_t)getpid());
		if (!world->is_612 && ret == -EINVAL)
			return; /* Linux 7 looks at the pid first */
		expect(ret, d->flags & UBLK_F_USER_RECOVERY ? -EBUSY : -EINVAL,
		       "END_USER_RECOVERY of a live device");
	}
}

/* ---- questions, and nonsense ---- */

static void ask_for_info(struct device *d)
{
	struct ublksrv_ctrl_dev_info info;
	enum life is = driver_life(d, &info);
	enum life must = d->life == LIVE				? LIVE
			 : d->life == QUIESCED || d->life == RECOVERING ? QUIESCED
									: ADDED;

	if (is != must || info.flags != d->flags || info.dev_id != d->number ||
	    info.queue_depth != d->depth || info.nr_hw_queues != d->nr_queues)
		wrong("GET_DEV_INFO: state %u, flags %llx, number %u, %u of %u", info.state,
		      (unsigned long long)info.flags, info.dev_id, info.nr_hw_queues,
		      info.queue_depth);
}

static void ask_for_params(struct device *d)
{
	struct uapi_params p = { .len = sizeof(p) };

	expect(command(d, UBLK_U_CMD_GET_PARAMS, &p, sizeof(p), 0), 0, "GET_PARAMS");
	if (d->has_params && d->life != SPENT &&
	    (memcmp(&p.basic, &d->params.basic, sizeof(p.basic)) != 0 ||
	     (p.types & ~(uint32_t)UAPI_PARAM_TYPE_DEVT) != d->params.types))
		wrong("GET_PARAMS: not those that were set");
}

void step_ask(struct device *d)
{
	uint64_t mask[16] = { 0 };

	if (d->life == NONE)
		return;
	trace("ask");
	ask_for_info(d);
	ask_for_params(d);
	expect(command(d, UBLK_U_CMD_GET_QUEUE_AFFINITY, mask, sizeof(mask), below(d->nr_queues)),
	       0, "GET_QUEUE_AFFINITY");
	expect(command(d, UBLK_U_CMD_GET_QUEUE_AFFINITY, mask, sizeof(mask), d->nr_queues), -EINVAL,
	       "GET_QUEUE_AFFINITY of a queue that is none");
}

void step_nonsense(struct device *d)
{
	static const unsigned int asking[] = { UBLK_U_CMD_GET_DEV_INFO, UBLK_U_CMD_GET_PARAMS,
					       UBLK_U_CMD_GET_FEATURES };
	unsigned int op = asking[below(3)];

	switch (d->life == NONE ? below(2) : below(5)) {
	case 0:
		trace("a device that is none");
		expect(command_raw(UBLK_U_CMD_START_DEV + below(4), 1000000 + below(1000), 0, 0, 0),
		       -ENODEV, "a command to a device that is none");
		break;
	case 1:
		trace("another magic");
		expect(command_raw(op + (1 << 8), d->number, 0, 0, 0), -EOPNOTSUPP,
		       "another magic");
		break;
	case 2:
		trace("an unknown command");
		expect(command_raw((op & ~0xffU) | 0x77, d->number, 0, 0, 0), -EOPNOTSUPP,
		       "an unknown command");
		break;
	case 3:
		trace("no address");
		expect(command_raw(op, d->number, 0, 64, 0), -EINVAL, "no address");
		break;
	default:
		trace("an address that is none");
		if (op == UBLK_U_CMD_GET_FEATURES)
			expect(command_raw(op, 0, 8, 8, 0), -EFAULT, "GET_FEATURES to nowhere");
		else
			expect(command_raw(op, d->number, 8, 64, 0), -EFAULT,
			       "an answer to nowhere");
	}
}
