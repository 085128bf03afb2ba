/* SPDX-License-Identifier: MIT */
/*
 * newer_modes_test.c - the feature together with what ublk has got since Linux 6.12: requests
 * as io_uring's registered buffers, batches, several tasks for a queue, integrity data.
 *
 * Each mode is asked for by its feature bit; a driver without it skips the test.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "abi_helpers.h"

/* Of Linux 7.3's ublk_cmd.h, and of its io_uring.h. */
#define IO_REGISTER_IO_BUF _IOWR('u', 0x23, struct ublksrv_io_cmd)
#define IO_UNREGISTER_IO_BUF _IOWR('u', 0x24, struct ublksrv_io_cmd)
#define IO_PREP_IO_CMDS _IOWR('u', 0x25, struct batch_io)
#define IO_COMMIT_IO_CMDS _IOWR('u', 0x26, struct batch_io)
#define IO_FETCH_IO_CMDS _IOWR('u', 0x27, struct batch_io)
#define URING_CMD_MULTISHOT (1U << 1)
#define IO_F_INTEGRITY (1U << 18)
#define IO_INTEGRITY_OFFSET (1ULL << 62)
#define PARAM_TYPE_INTEGRITY (1U << 6)

struct batch_io {
	uint16_t q_id;
	uint16_t flags;
	uint16_t nr_elem;
	uint8_t elem_bytes;
	uint8_t reserved;
	uint64_t reserved2;
};

struct batch_element {
	uint16_t tag;
	uint16_t buf_index;
	int32_t result;
};

struct params_with_integrity {
	struct uapi_params params;
	uint32_t flags;
	uint16_t max_integrity_segments;
	uint8_t interval_exp;
	uint8_t metadata_size;
	uint8_t pi_offset;
	uint8_t csum_type;
	uint8_t tag_size;
	uint8_t pad[5];
};
#define METADATA_BYTES 8 /* for each block of 512 */

/* ---- a server for all of them ---- */

#define INTERNAL 0x1000U /* user_data of what is no request */
#define BUFFER_GROUP 1
#define NR_BUFFERS 8U
#define NR_TASKS 2U

static unsigned int nr_tasks;	  /* each has its share of the tags */
static unsigned int first_buffer; /* index for tag 0 in the ring's table of buffers */
static int fill_fd;
static atomic_uint served_by[NR_TASKS];

struct loop {
	struct abi_server *s;
	unsigned int task;
	struct io_uring ring;
	const struct ublksrv_io_desc *descriptors;
	bool waiting[ABI_DEPTH]; /* requests that have come */
	unsigned int nr_live;
	int internal_res;
	struct io_uring_buf_ring *tags_ring; /* batches */
	uint16_t tags[NR_BUFFERS][ABI_DEPTH];
};

static struct io_uring_sqe *char_command(struct loop *l, unsigned int op, uint64_t user_data)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&l->ring);

	if (!sqe)
		abort();
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->off = op;
	sqe->user_data = user_data;
	return sqe;
}

static void tag_command(struct loop *l, unsigned int op, uint16_t tag, int result, uint64_t addr,
			uint64_t user_data)
{
	struct io_uring_sqe *sqe = char_command(l, op, user_data);
	struct ublksrv_io_cmd *cmd = (struct ublksrv_io_cmd *)&sqe->addr3;

	cmd->tag = tag;
	cmd->result = result;
	cmd->addr = addr;
	if (l->s->flags & UBLK_F_AUTO_BUF_REG)
		sqe->addr = first_buffer + tag;
}

static void batch_command(struct loop *l, unsigned int op, struct batch_element *elements,
			  unsigned int nr)
{
	struct io_uring_sqe *sqe = char_command(l, op, INTERNAL);
	struct batch_io *batch = (struct batch_io *)&sqe->addr3;

	sqe->addr = (uintptr_t)elements;
	batch->nr_elem = (uint16_t)nr;
	batch->elem_bytes = sizeof(*elements);
}

static void fetch_batches(struct loop *l)
{
	struct io_uring_sqe *sqe = char_command(l, IO_FETCH_IO_CMDS, INTERNAL + 1);
	struct batch_io *batch = (struct batch_io *)&sqe->addr3;

	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->rw_flags = URING_CMD_MULTISHOT;
	sqe->buf_group = BUFFER_GROUP;
	batch->elem_bytes = sizeof(uint16_t);
}

static void give_tags_back(struct loop *l, unsigned int buffer)
{
	io_uring_buf_ring_add(l->tags_ring, l->tags[buffer], sizeof(l->tags[buffer]),
			      (unsigned short)buffer, io_uring_buf_ring_mask(NR_BUFFERS), 0);
	io_uring_buf_ring_advance(l->tags_ring, 1);
}

static void take_batch(struct loop *l, const struct io_uring_cqe *cqe)
{
	unsigned int buffer = cqe->flags >> IORING_CQE_BUFFER_SHIFT;

	if (cqe->res < 0 || !(cqe->flags & IORING_CQE_F_MORE)) {
		l->nr_live = 0;
		return;
	}
	if (!(cqe->flags & IORING_CQE_F_BUFFER))
		return;
	for (int i = 0; i < cqe->res / 2; i++)
		l->waiting[l->tags[buffer][i]] = true;
	give_tags_back(l, buffer);
}

static bool take_one(struct loop *l)
{
	struct __kernel_timespec tick = { .tv_nsec = 1000000 };
	struct io_uring_cqe *cqe;
	bool internal;

	if (io_uring_submit_and_wait_timeout(&l->ring, &cqe, 1, &tick, NULL) < 0 || !cqe)
		return false;
	internal = cqe->user_data == INTERNAL;
	if (internal)
		l->internal_res = cqe->res;
	else if (cqe->user_data == INTERNAL + 1)
		take_batch(l, cqe);
	else if (cqe->res == UBLK_IO_RES_ABORT)
		l->nr_live--;
	else if (cqe->res == UBLK_IO_RES_OK)
		l->waiting[cqe->user_data] = true;
	else
		abort();
	io_uring_cqe_seen(&l->ring, cqe);
	return internal;
}

/* The result of the command INTERNAL just queued. */
static int finish(struct loop *l)
{
	while (!take_one(l))
		;
	return l->internal_res;
}

static void fill_registered(struct loop *l, uint16_t tag, uint32_t bytes)
{
	struct io_uring_sqe *sqe;
	bool is_auto = l->s->flags & UBLK_F_AUTO_BUF_REG;

	if (!is_auto) {
		tag_command(l, IO_REGISTER_IO_BUF, tag, 0, tag, INTERNAL);
		assert_int_equal(finish(l), 0);
	}
	sqe = io_uring_get_sqe(&l->ring);
	assert_non_null(sqe);
	io_uring_prep_read_fixed(sqe, fill_fd, NULL, bytes, 0, tag);
	sqe->user_data = INTERNAL;
	assert_int_equal(finish(l), bytes);
	if (!is_auto) {
		tag_command(l, IO_UNREGISTER_IO_BUF, tag, 0, tag, INTERNAL);
		assert_int_equal(finish(l), 0);
	}
}

static int serve_request(struct loop *l, const struct ublksrv_io_desc *iod, uint16_t tag)
{
	struct abi_server *s = l->s;
	uint32_t bytes = iod->nr_sectors << 9;
	bool matched = iod->op_flags & (UAPI_IO_F_SHMEM_ZC | UAPI_IO_F_SHMEM_SEGS);
	bool tests_own = iod->start_sector << 9 >= ABI_TEST_OFFSET;
	static uint8_t fill[NR_TASKS][ABI_IO_BYTES];

	served_by[l->task]++;
	if (ublksrv_get_op(iod) != UBLK_IO_OP_READ && ublksrv_get_op(iod) != UBLK_IO_OP_WRITE)
		return 0;
	if (!matched && ublksrv_get_op(iod) == UBLK_IO_OP_READ) {
		if (s->flags & UBLK_F_USER_COPY) {
			memset(fill[l->task], ABI_FILL, bytes);
			abi_give(s, tag, fill[l->task], bytes);
		} else {
			fill_registered(l, tag, bytes);
		}
	}
	if (tests_own) {
		s->last_op_flags = iod->op_flags;
		s->last_addr = iod->addr;
		s->nr_matched += matched;
		s->nr_copied += !matched;
	}
	return (int)(matched && s->halve && bytes > PAGE ? bytes / 2 : bytes);
}

static void serve_waiting(struct loop *l)
{
	bool batch = l->s->flags & UBLK_F_BATCH_IO;
	struct batch_element done[ABI_DEPTH];
	unsigned int nr = 0;

	for (uint16_t tag = 0; tag < ABI_DEPTH; tag++) {
		int res;

		if (!l->waiting[tag])
			continue;
		if (l->s->hold && l->descriptors[tag].start_sector << 9 >= ABI_TEST_OFFSET) {
			l->s->nr_held = 1;
			continue;
		}
		l->waiting[tag] = false;
		res = serve_request(l, &l->descriptors[tag], tag);
		if (batch)
			done[nr++] = (struct batch_element){ .tag = tag, .result = res };
		else
			tag_command(l, UBLK_U_IO_COMMIT_AND_FETCH_REQ, tag, res, 0, tag);
	}
	if (nr) {
		batch_command(l, IO_COMMIT_IO_CMDS, done, nr);
		assert_int_equal(finish(l), nr * sizeof(done[0]));
	}
}

static void begin_batches(struct loop *l)
{
	struct io_uring_buf_reg reg = { .ring_entries = NR_BUFFERS, .bgid = BUFFER_GROUP };
	struct batch_element all[ABI_DEPTH] = { 0 };

	l->tags_ring = aligned_alloc(4096, 4096);
	assert_non_null(l->tags_ring);
	io_uring_buf_ring_init(l->tags_ring);
	reg.ring_addr = (uintptr_t)l->tags_ring;
	assert_int_equal(io_uring_register_buf_ring(&l->ring, &reg, 0), 0);
	for (unsigned int i = 0; i < NR_BUFFERS; i++)
		give_tags_back(l, i);
	for (uint16_t tag = 0; tag < ABI_DEPTH; tag++)
		all[tag].tag = tag;
	batch_command(l, IO_PREP_IO_CMDS, all, ABI_DEPTH);
	assert_int_equal(finish(l), 0);
	fetch_batches(l);
	l->nr_live = 1;
}

static void *serve_loop(void *arg)
{
	struct loop *l = arg;
	struct abi_server *s = l->s;

	l->descriptors = mmap(NULL, PAGE, PROT_READ, MAP_SHARED | MAP_POPULATE, s->char_fd, 0);
	assert_true(l->descriptors != MAP_FAILED);
	assert_int_equal(io_uring_queue_init(64, &l->ring, 0), 0);
	assert_int_equal(io_uring_register_files(&l->ring, &s->char_fd, 1), 0);
	assert_int_equal(io_uring_register_buffers_sparse(&l->ring, ABI_DEPTH), 0);
	if (s->flags & UBLK_F_BATCH_IO) {
		begin_batches(l);
	} else {
		for (uint16_t tag = (uint16_t)l->task; tag < ABI_DEPTH;
		     tag = (uint16_t)(tag + nr_tasks), l->nr_live++)
			tag_command(l, UBLK_U_IO_FETCH_REQ, tag, 0, 0, tag);
	}
	io_uring_submit(&l->ring);
	if (l->task == nr_tasks - 1)
		s->ready = true;
	while (l->nr_live) {
		take_one(l);
		serve_waiting(l);
	}
	io_uring_queue_exit(&l->ring);
	munmap((void *)l->descriptors, PAGE);
	free(l->tags_ring);
	return NULL;
}

static void *serve(void *arg)
{
	static struct loop loops[NR_TASKS];
	pthread_t others[NR_TASKS];

	memset(loops, 0, sizeof(loops));
	for (unsigned int i = 0; i < nr_tasks; i++) {
		loops[i].s = arg;
		loops[i].task = i;
		served_by[i] = 0;
		if (i)
			pthread_create(&others[i], NULL, serve_loop, &loops[i]);
	}
	serve_loop(&loops[0]);
	for (unsigned int i = 1; i < nr_tasks; i++)
		pthread_join(others[i], NULL);
	return NULL;
}

/* ---- what must be so in each mode ---- */

static void assert_unregistering_waits(struct abi_server *s, uint8_t *p, unsigned int index)
{
	struct unreg_call unreg = { .s = s, .index = index, .res = 1 };
	struct read_call read = { .s = s, .buf = p, .len = 4 * PAGE };
	pthread_t unreg_task, read_task;

	s->nr_held = 0;
	s->hold = true;
	pthread_create(&read_task, NULL, read_thread, &read);
	while (!s->nr_held)
		usleep(1000);
	pthread_create(&unreg_task, NULL, unreg_thread, &unreg);
	usleep(100000);
	assert_int_equal(unreg.res, 1);
	s->hold = false;
	pthread_join(read_task, NULL);
	pthread_join(unreg_task, NULL);
	assert_int_equal(read.res, 4 * PAGE);
	assert_int_equal(unreg.res, 0);
}

static void assert_short_completions_go_on(struct abi_server *s, uint8_t *p)
{
	unsigned long long before = s->nr_matched;

	if (!is_ours())
		return;
	s->halve = true;
	assert_true(read_matches(s, p, 16 * PAGE));
	s->halve = false;
	assert_true(s->nr_matched - before >= 3); /* 8, 4, 2, 1, 1 */
}

static void assert_serves(struct abi_server *s)
{
	uint8_t *p = shared_pages(32), *other = shared_pages(8);

	for (int i = 0; i < 3; i++) {
		assert_int_equal(abi_reg(s, p, 32 * PAGE, 0), 0);
		for (unsigned int n = 0; n < 2 * ABI_DEPTH; n++) {
			assert_true(read_matches(s, p + PAGE, 4 * PAGE));
			assert_last(s, 0, PAGE);
			assert_false(read_matches(s, other, 8 * PAGE));
		}
		assert_true(write_matches(s, p + 2 * PAGE, 2 * PAGE));
		assert_last(s, 0, 2 * PAGE);
		assert_false(write_matches(s, other, PAGE));
		assert_short_completions_go_on(s, p);
		assert_unregistering_waits(s, p, 0);
		assert_false(read_matches(s, p, 4 * PAGE));
	}
	munmap(p, 32 * PAGE);
	munmap(other, 8 * PAGE);
}

static void serves_with(uint64_t flags, unsigned int tasks)
{
	struct abi_server s;

	nr_tasks = tasks;
	add_with(&s, UBLK_F_SHMEM_ZC | flags);
	abi_start_with(&s, serve);
	assert_serves(&s);
	for (unsigned int i = 0; i < tasks; i++)
		assert_true(served_by[i] > 0);
	abi_del(&s);
	assert_nothing_pinned();
}

/* ---- the modes ---- */

static void requires_mode(uint64_t bits)
{
	if (offers_feature(bits))
		return;
	print_message("the driver does not offer it\n");
	skip();
}

static void requests_as_registered_buffers(void **state)
{
	(void)state;
	requires_mode(UBLK_F_SUPPORT_ZERO_COPY | UBLK_F_BUF_REG_OFF_DAEMON);
	serves_with(UBLK_F_SUPPORT_ZERO_COPY, 1);
	serves_with(UBLK_F_SUPPORT_ZERO_COPY | UBLK_F_USER_COPY, 1);
}

static void requests_registered_by_themselves(void **state)
{
	(void)state;
	requires_mode(UBLK_F_AUTO_BUF_REG);
	first_buffer = 0;
	serves_with(UBLK_F_AUTO_BUF_REG, 1);
	serves_with(UBLK_F_AUTO_BUF_REG | UBLK_F_USER_COPY, 1);
}

/* The server never gets such a request, and nothing may be held for it. */
static void requests_that_cannot_be_registered(void **state)
{
	struct abi_server s;
	uint8_t *p = shared_pages(4);

	(void)state;
	requires_mode(UBLK_F_AUTO_BUF_REG);
	nr_tasks = 1;
	add_with(&s, UBLK_F_SHMEM_ZC | UBLK_F_AUTO_BUF_REG);
	first_buffer = 1000; /* behind the end of the table */
	abi_start_with(&s, serve);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0);
	assert_int_equal(pread(s.disk_fd, p, 4 * PAGE, ABI_TEST_OFFSET), -1);
	assert_int_equal(errno, EIO);
	assert_int_equal(abi_unreg(&s, 0), 0);
	assert_nothing_pinned();
	abi_del(&s);
	first_buffer = 0;
	munmap(p, 4 * PAGE);
}

static void several_tasks_for_a_queue(void **state)
{
	(void)state;
	requires_mode(UBLK_F_PER_IO_DAEMON);
	serves_with(UBLK_F_USER_COPY, NR_TASKS);
}

static void batches(void **state)
{
	(void)state;
	requires_mode(UBLK_F_BATCH_IO);
	serves_with(UBLK_F_BATCH_IO | UBLK_F_USER_COPY, 1);
}

/* Their addresses have no place where a tag's buffer is an index, or has no field at all. */
static void lists_of_segments_are_refused_where_they_have_no_place(void **state)
{
	static const uint64_t modes[] = { UBLK_F_AUTO_BUF_REG, UBLK_F_BATCH_IO };

	(void)state;
	requires_feature(UAPI_F_SHMEM_SEGS);
	requires_mode(UBLK_F_AUTO_BUF_REG | UBLK_F_BATCH_IO);
	for (size_t i = 0; i < 2; i++) {
		struct abi_server s;

		assert_int_equal(abi_add(&s, ZC_FLAGS | UAPI_F_SHMEM_SEGS | modes[i]), -EINVAL);
	}
}

static void set_integrity(struct abi_server *s)
{
	struct params_with_integrity p = { .params.len = sizeof(p) };

	assert_int_equal(
		abi_command(s, UBLK_U_CMD_GET_PARAMS, s->device, (uintptr_t)&p, sizeof(p), 0), 0);
	p.params.len = sizeof(p); /* GET says what was set */
	p.params.types = UBLK_PARAM_TYPE_BASIC | PARAM_TYPE_INTEGRITY;
	p.interval_exp = 9;
	p.metadata_size = METADATA_BYTES;
	p.tag_size = METADATA_BYTES;
	assert_int_equal(
		abi_command(s, UBLK_U_CMD_SET_PARAMS, s->device, (uintptr_t)&p, sizeof(p), 0), 0);
}

/* The last request's integrity data can be read while its data is in place. */
static void integrity_data_beside(void **state)
{
	struct write_call {
		struct abi_server s;
		uint8_t *p;
	} c;
	uint8_t data[8 * METADATA_BYTES + 1];
	struct read_call read;
	pthread_t task;

	(void)state;
	requires_mode(UBLK_F_INTEGRITY);
	c.p = shared_pages(8);
	nr_tasks = 1;
	add_with(&c.s, UBLK_F_SHMEM_ZC | UBLK_F_USER_COPY | UBLK_F_INTEGRITY);
	set_integrity(&c.s);
	abi_start_with(&c.s, serve);
	assert_int_equal(abi_reg(&c.s, c.p, 8 * PAGE, 0), 0);
	assert_true(write_matches(&c.s, c.p + PAGE, 4 * PAGE));
	assert_last(&c.s, 0, PAGE);
	assert_true(c.s.last_op_flags & IO_F_INTEGRITY);
	read = (struct read_call){ .s = &c.s, .buf = c.p, .len = PAGE };
	c.s.nr_held = 0;
	c.s.hold = true;
	pthread_create(&task, NULL, read_thread, &read);
	while (!c.s.nr_held)
		usleep(1000);
	/* which tag it has is not known: exactly one has integrity data to fill in */
	memset(data, 0, sizeof(data));
	unsigned int nr = 0;

	for (uint64_t tag = 0; tag < ABI_DEPTH; tag++)
		nr += pwrite(c.s.char_fd, data, sizeof(data) - 1,
			     (off_t)(IO_INTEGRITY_OFFSET |
				     (UBLKSRV_IO_BUF_OFFSET + (tag << UBLK_TAG_OFF)))) ==
		      sizeof(data) - 1;
	assert_int_equal(nr, 1);
	c.s.hold = false;
	pthread_join(task, NULL);
	assert_int_equal(read.res, PAGE);
	assert_true(c.s.last_op_flags & UAPI_IO_F_SHMEM_ZC);
	assert_int_equal(abi_unreg(&c.s, 0), 0);
	abi_del(&c.s);
	munmap(c.p, 8 * PAGE);
	assert_nothing_pinned();
}

/* ---- commands ---- */

static void resized_while_a_request_is_in_place(void **state)
{
	struct abi_server s;
	uint8_t *p;
	struct read_call read;
	pthread_t task;

	(void)state;
	requires_mode(UBLK_F_UPDATE_SIZE);
	p = shared_pages(4);
	add_zc(&s);
	abi_start(&s);
	assert_int_equal(abi_reg(&s, p, 4 * PAGE, 0), 0);
	read = (struct read_call){ .s = &s, .buf = p, .len = 4 * PAGE };
	s.hold = true;
	pthread_create(&task, NULL, read_thread, &read);
	while (!s.nr_held)
		usleep(1000);
	assert_int_equal(
		abi_command(&s, UBLK_U_CMD_UPDATE_SIZE, s.device, 0, 0, 2 * ABI_DEVICE_BYTES >> 9),
		0);
	s.hold = false;
	pthread_join(task, NULL);
	assert_int_equal(read.res, 4 * PAGE);
	assert_int_equal(lseek(s.disk_fd, 0, SEEK_END), 2 * ABI_DEVICE_BYTES);
	assert_true(read_matches(&s, p, 4 * PAGE));
	assert_int_equal(abi_unreg(&s, 0), 0);
	abi_del(&s);
	munmap(p, 4 * PAGE);
	assert_nothing_pinned();
}

/* The server leaves by itself; its buffers stay and match again with the next one. */
static void quiesced_with_buffers(void **state)
{
	uint64_t flags =
		ZC_FLAGS | UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE | UBLK_F_QUIESCE;
	struct abi_server *s;
	uint8_t *p;

	(void)state;
	requires_mode(UBLK_F_QUIESCE);
	p = shared_pages(4);
	s = start_mortal(flags);
	assert_int_equal(abi_reg(s, p, 4 * PAGE, 0), 0);
	assert_true(read_matches(s, p, 4 * PAGE));
	assert_int_equal(abi_command(s, UBLK_U_CMD_QUIESCE_DEV, s->device, 0, 0, 10000), 0);
	waitpid(s->child, NULL, 0);
	s->char_fd = -1; /* was the child's */
	abi_begin_recovery(s);
	abi_end_recovery(s);
	assert_true(read_matches(s, p, 4 * PAGE));
	assert_last(s, 0, 0);
	assert_int_equal(abi_unreg(s, 0), 0);
	assert_false(read_matches(s, p, 4 * PAGE));
	munmap(p, 4 * PAGE);
	end_mortal(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_as_registered_buffers),
		cmocka_unit_test(requests_registered_by_themselves),
		cmocka_unit_test(requests_that_cannot_be_registered),
		cmocka_unit_test(several_tasks_for_a_queue),
		cmocka_unit_test(batches),
		cmocka_unit_test(lists_of_segments_are_refused_where_they_have_no_place),
		cmocka_unit_test(integrity_data_beside),
		cmocka_unit_test(resized_while_a_request_is_in_place),
		cmocka_unit_test(quiesced_with_buffers),
	};
	uint8_t fill[PAGE];

	memset(fill, ABI_FILL, sizeof(fill));
	fill_fd = memory_file(ABI_IO_BYTES, 0);
	for (off_t at = 0; at < (off_t)ABI_IO_BYTES; at += sizeof(fill))
		if (pwrite(fill_fd, fill, sizeof(fill), at) != (ssize_t)sizeof(fill))
			return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
