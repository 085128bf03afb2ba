/* SPDX-License-Identifier: MIT */
/* Wishes become slices, with a driver that answers when the test says so. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/life/worker.h"
#include "server/memory/buffers.h"
#include "server/memory/guard.h"
#include "tests/unit/cmocka_all.h"

#define PAGE 4096ULL
#define LEN (2 * PAGE)
#define MIB (1ULL << 20)

static struct registry registry;
static struct buffers b;
static long long now = 1000000;
static unsigned int takes; /* a registration, ms */

/* ---- the driver ---- */

static struct asked {
	void *cookie;
	bool registering;
	unsigned int index;
	uint64_t len;
	void *at;
} asked[64];
static unsigned int nr_asked, regs, unregs;
static int refuse; /* what it says instead of 0 */
static bool taken[64];
static int missing; /* an index that it is said to have, and has not; -1: none */

static int fake_reg(void *arg, const struct uapi_shmem_buf_reg *reg, void *cookie)
{
	(void)arg;
	/* Never both at once. */
	assert_int_equal(nr_asked, 0);
	asked[nr_asked++] = (struct asked){ cookie, true, 0, reg->len, (void *)reg->addr };
	regs++;
	return 0;
}

static int fake_unreg(void *arg, unsigned int index, void *cookie)
{
	(void)arg;
	for (unsigned int i = 0; i < nr_asked; i++)
		assert_false(asked[i].registering);
	assert_true(taken[index] || (int)index == missing);
	asked[nr_asked++] = (struct asked){ cookie, false, index, 0, NULL };
	unregs++;
	return 0;
}

static void driver_says(int res)
{
	struct asked a;

	assert_true(nr_asked > 0);
	a = asked[0];
	memmove(asked, asked + 1, --nr_asked * sizeof(a));
	if (a.registering)
		now += takes;
	if (a.registering && res >= 0)
		taken[res] = true;
	if (!a.registering && !res)
		taken[a.index] = false;
	buffers_finished(&b, a.cookie, res);
}

/* As a real one does: the lowest free index, or EFAULT where there is no page. */
static void driver_works(void)
{
	while (nr_asked) {
		int index = 0;

		if (!asked[0].registering) {
			driver_says(0);
			continue;
		}
		while (taken[index])
			index++;
		if (refuse)
			driver_says(refuse);
		else if (madvise(asked[0].at, asked[0].len, MADV_POPULATE_WRITE))
			driver_says(-errno);
		else
			driver_says(index);
	}
}

/* ---- clients ---- */

static struct {
	unsigned int nr;
	void *client;
	uint32_t seq;
	int status;
	enum wire_reason reason;
	uint32_t number;
} answer;

static void take_answer(void *arg, void *client, uint32_t seq, int status, enum wire_reason why,
			uint32_t number)
{
	(void)arg;
	assert_int_equal(status == 0, why == WIRE_OK);
	answer.nr++;
	answer.client = client;
	answer.seq = seq;
	answer.status = status;
	answer.reason = why;
	answer.number = number;
}

static int memfd;
static char *memory; /* the client's mapping */
static char one, two;
static struct account account, other_account;

static long long clock_ms(void)
{
	return now;
}

static struct account fresh_account(void)
{
	return (struct account){
		.option = "it", .max_bytes = 1ULL << 40, .max_slices = 1000, .max_files = 1000
	};
}

#define FILE_BYTES (64 * MIB)

static int setup(void **state)
{
	(void)state;
	memset(&answer, 0, sizeof(answer));
	memset(&registry, 0, sizeof(registry));
	memset(taken, 0, sizeof(taken));
	nr_asked = regs = unregs = takes = 0;
	refuse = 0;
	missing = -1;
	account = fresh_account();
	other_account = fresh_account();
	b = (struct buffers){ .registry = &registry,
			      .backend = { .reg = fake_reg, .unreg = fake_unreg },
			      .answer = take_answer,
			      .clock = clock_ms,
			      .max_bytes = 1ULL << 40 };
	memfd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (ftruncate(memfd, FILE_BYTES) < 0)
		return -1;
	memory = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	return memory == MAP_FAILED ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	worker_wait();
	nr_asked = 0;
	buffers_close(&b);
	assert_int_equal(b.bytes, 0);
	assert_int_equal(b.nr, 0);
	assert_int_equal(b.nr_files, 0);
	assert_int_equal(account.bytes, 0);
	assert_int_equal(account.slices, 0);
	assert_false(registry_any(&registry));
	assert_false(registry_unanswered(&registry));
	munmap(memory, FILE_BYTES);
	close(memfd);
	return 0;
}

static void touch(uint64_t offset, uint64_t len)
{
	memset(memory + offset, 1, len);
}

static uint64_t allocated(void)
{
	struct stat st;

	fstat(memfd, &st);
	return (uint64_t)st.st_blocks * 512;
}

static enum wire_reason reason;

/* What was begun on threads is done. */
static int wait_for(int ret)
{
	worker_wait();
	return ret;
}

static int add_range(void *client, uint32_t seq, uint64_t offset, uint64_t len)
{
	struct buffer_request req = {
		.fd = memfd,
		.offset = offset,
		.len = len,
		.client = client,
		.account = client == &two ? &other_account : &account,
		.seq = seq,
	};

	return wait_for(buffers_add(&b, &req, &reason));
}

/* LEN bytes that exist. */
static int add(void *client, uint32_t seq, uint64_t offset)
{
	touch(offset, LEN);
	return add_range(client, seq, offset, LEN);
}

/* Time goes by, and the device copies requests meanwhile. */
static void copies_go_on(long long ms)
{
	static uint64_t copied;

	for (long long end = now + ms; now < end; now += 50) {
		buffers_tick(&b, ++copied);
		worker_wait();
		driver_works();
	}
}

/* ---- only what exists ---- */

static void a_sparse_file_costs_nothing(void **state)
{
	(void)state;
	assert_int_equal(add_range(&one, 1, 0, FILE_BYTES), 0);
	assert_int_equal(answer.nr, 1);
	assert_int_equal(answer.status, 0);
	assert_int_equal(regs, 0);
	assert_int_equal(b.bytes, 0);
	copies_go_on(60000);
	assert_int_equal(regs, 0);
	assert_int_equal(allocated(), 0);
}

static void what_exists_is_registered(void **state)
{
	(void)state;
	touch(MIB, MIB);
	touch(8 * MIB, 3 * PAGE);
	assert_int_equal(add_range(&one, 1, 0, FILE_BYTES), 0);
	driver_works();
	assert_int_equal(answer.status, 0);
	assert_int_equal(b.nr, 2);
	assert_int_equal(b.bytes, MIB + 3 * PAGE);
	assert_int_equal(account.bytes, b.bytes);
	assert_int_equal(allocated(), b.bytes);
}

static void what_comes_later_is_registered_later(void **state)
{
	(void)state;
	assert_int_equal(add_range(&one, 1, 0, FILE_BYTES), 0);
	touch(4 * MIB, MIB);
	buffers_tick(&b, 0); /* nothing is copied, so nobody misses anything */
	now += 60000;
	buffers_tick(&b, 0);
	assert_int_equal(regs, 0);
	copies_go_on(1000);
	assert_int_equal(b.bytes, MIB);
	assert_int_equal(answer.nr, 1); /* and nobody is told */
}

/* Memory that grows piece by piece ends in a few slices, each byte registered a few times. */
static void growing_memory_is_joined(void **state)
{
	const uint64_t step = 256 * 1024;

	(void)state;
	assert_int_equal(add_range(&one, 1, 0, FILE_BYTES), 0);
	for (uint64_t at = 0; at < FILE_BYTES; at += step) {
		touch(at, step);
		copies_go_on(500);
	}
	copies_go_on(10000);
	assert_int_equal(b.bytes, FILE_BYTES);
	assert_true(b.nr <= 16);
	assert_true(regs <= 2 * (FILE_BYTES / step));
}

static void neighbours_of_the_same_size_are_joined(void **state)
{
	(void)state;
	touch(0, 20 * MIB);
	assert_int_equal(add_range(&one, 1, 0, FILE_BYTES), 0);
	driver_works();
	touch(20 * MIB, 12 * MIB); /* too little to register it all again */
	copies_go_on(1000);
	assert_int_equal(b.nr, 2);
	touch(32 * MIB, 32 * MIB);
	copies_go_on(1000);
	assert_int_equal(b.nr, 1);
	assert_int_equal(b.bytes, 64 * MIB);
	assert_int_equal(allocated(), 64 * MIB);
}

/* A buffer across the border would be copied for as long as it lives. */
static void what_is_being_registered_is_joined_too(void **state)
{
	(void)state;
	touch(0, MIB);
	assert_int_equal(add_range(&one, 1, 0, FILE_BYTES), 0);
	assert_int_equal(nr_asked, 1); /* and the driver takes its time */
	touch(MIB, MIB);
	assert_int_equal(add_range(&two, 2, 0, FILE_BYTES), 0);
	driver_works();
	assert_int_equal(answer.nr, 2);
	assert_int_equal(b.nr, 1);
	assert_int_equal(b.bytes, 2 * MIB);
}

/* A hole that comes between the look and the registration is not filled by us. */
static void a_hole_punched_meanwhile_is_not_filled(void **state)
{
	(void)state;
	if (!guard_works())
		skip();
	touch(0, MIB);
	assert_int_equal(add_range(&one, 1, 0, FILE_BYTES), 0);
	assert_int_equal(
		fallocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, MIB / 2, PAGE), 0);
	driver_works();
	assert_int_equal(allocated(), MIB - PAGE);
	assert_int_equal(answer.status, 0);
	assert_int_equal(b.nr, 0);
	/* The rest is registered later. */
	copies_go_on(2000);
	assert_int_equal(b.bytes, MIB - PAGE);
	assert_int_equal(allocated(), MIB - PAGE);
}

/* The worst: every second page. Only so many pieces of it are taken. */
static void a_file_in_many_pieces_uses_up_nothing(void **state)
{
	(void)state;
	for (uint64_t at = 0; at < FILE_BYTES; at += 2 * PAGE)
		touch(at, PAGE);
	touch(32 * MIB, MIB); /* one that is worth it */
	account.max_slices = 100;
	assert_int_equal(add_range(&one, 1, 0, FILE_BYTES), 0);
	driver_works();
	assert_int_equal(answer.status, 0);
	assert_true(b.nr <= 100);
	assert_true(b.bytes >= MIB);
	copies_go_on(30000);
	assert_true(b.nr <= 100);
}

static void read_only_memory_is_not_allocated_either(void **state)
{
	struct buffer_request req = { .len = FILE_BYTES, .read_only = true, .client = &one };
	char path[32];

	(void)state;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", memfd);
	req.fd = open(path, O_RDONLY | O_CLOEXEC);
	touch(0, MIB);
	assert_int_equal(wait_for(buffers_add(&b, &req, &reason)), 0);
	close(req.fd);
	assert_int_equal(nr_asked, 1);
	if (guard_works()) {
		fallocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, MIB);
		assert_int_equal(madvise(asked[0].at, asked[0].len, MADV_POPULATE_READ), -1);
		assert_int_equal(allocated(), 0);
	}
	driver_says(0);
}

/* Whoever sent the descriptor has the position in it, too. */
static void the_position_of_the_clients_descriptor_stays(void **state)
{
	(void)state;
	touch(MIB, MIB);
	assert_int_equal(lseek(memfd, 77, SEEK_SET), 77);
	assert_int_equal(add_range(&one, 1, 0, FILE_BYTES), 0);
	driver_works();
	assert_int_equal(lseek(memfd, 0, SEEK_CUR), 77);
}

/* ---- one slice ---- */

static void is_published_once_the_kernel_named_it(void **state)
{
	struct buffer_view view;

	(void)state;
	assert_int_equal(add(&one, 5, 0), 0);
	assert_false(registry_any(&registry));
	assert_int_equal(answer.nr, 0);
	assert_true(registry_unanswered(&registry));
	driver_says(9);
	assert_false(registry_unanswered(&registry));
	assert_true(registry_view(&registry, 9, &view));
	assert_int_equal(view.len, LEN);
	view.base[0] = 1; /* mapped */
	assert_int_equal(answer.nr, 1);
	assert_ptr_equal(answer.client, &one);
	assert_int_equal(answer.seq, 5);
	assert_int_equal(b.indices, 10);
}

static void the_same_memory_is_registered_once(void **state)
{
	uint32_t first;

	(void)state;
	assert_int_equal(add(&one, 1, 0), 0);
	assert_int_equal(add(&two, 2, 0), 0);
	driver_works();
	assert_int_equal(regs, 1);
	assert_int_equal(answer.nr, 2);
	assert_int_equal(add(&two, 3, 0), 0);
	assert_int_equal(answer.nr, 3);
	assert_int_equal(b.bytes, LEN);
	assert_int_equal(account.bytes + other_account.bytes, LEN);

	buffers_forget_client(&b, &two); /* both of its uses */
	assert_int_equal(other_account.bytes, 0);
	assert_int_equal(account.bytes, LEN);
	assert_int_equal(unregs, 0);
	assert_int_equal(buffers_remove(&b, &two, answer.number), -ENOENT);
	for (first = 0; buffers_remove(&b, &one, first); first++)
		assert_true(first < 10);
	assert_int_equal(unregs, 1);
	assert_true(registry_any(&registry)); /* until the kernel says so */
	driver_works();
	assert_false(registry_any(&registry));
	assert_int_equal(b.nr, 0);
	assert_int_equal(b.nr_files, 0);
}

/* Ranges of one file that overlap, as programs map them, are never registered twice. */
static void ranges_that_overlap_share_slices(void **state)
{
	(void)state;
	touch(0, 8 * MIB);
	assert_int_equal(add_range(&one, 1, 2 * MIB, 2 * MIB), 0);
	driver_works();
	assert_int_equal(add_range(&two, 2, 0, 8 * MIB), 0);
	driver_works();
	assert_int_equal(b.bytes, 8 * MIB);
	assert_int_equal(answer.nr, 2);
	/* What only the second wanted goes with it; what both did stays. */
	buffers_forget_client(&b, &two);
	driver_works();
	copies_go_on(1000);
	assert_int_equal(b.bytes, 2 * MIB);
	assert_int_equal(other_account.bytes, 0);
}

/*
 * The kernel may name an index again before we have read that its last buffer is
 * gone; a request for it must never find the old memory.
 */
static void nothing_is_registered_while_an_index_may_be_reused(void **state)
{
	struct buffer_view view;

	(void)state;
	assert_int_equal(add(&one, 1, 0), 0);
	driver_says(0);
	buffers_forget_client(&b, &one);
	assert_int_equal(unregs, 1);
	assert_int_equal(add(&two, 2, MIB), 0);
	assert_int_equal(regs, 1); /* not asked yet */
	assert_int_equal(answer.nr, 1);
	driver_says(0);
	assert_false(registry_any(&registry));
	assert_int_equal(regs, 2);
	driver_says(0);
	assert_true(registry_view(&registry, 0, &view));
	assert_int_equal(answer.nr, 2);
	assert_ptr_equal(answer.client, &two);

	/* Who leaves while waiting is not registered at all. */
	buffers_forget_client(&b, &two);
	assert_int_equal(add(&one, 3, 0), 0);
	buffers_forget_client(&b, &one);
	driver_says(0);
	assert_int_equal(regs, 2);
	assert_int_equal(b.nr, 0);
}

static void a_client_that_leaves_while_registering(void **state)
{
	(void)state;
	assert_int_equal(add(&one, 1, 0), 0);
	buffers_forget_client(&b, &one);
	assert_int_equal(account.bytes, 0);
	assert_int_equal(b.nr, 1);
	driver_says(0);
	assert_int_equal(answer.nr, 0);
	assert_int_equal(unregs, 1);
	driver_says(0);
	assert_int_equal(b.nr, 0);
}

static void added_again_while_it_is_being_unregistered(void **state)
{
	struct buffer_view view;

	(void)state;
	add(&one, 1, 0);
	driver_says(4);
	buffers_forget_client(&b, &one);
	assert_int_equal(add(&two, 2, 0), 0);
	assert_int_equal(regs, 1);
	driver_says(0); /* unregistered */
	assert_int_equal(regs, 2);
	driver_says(6); /* registered anew */
	assert_ptr_equal(answer.client, &two);
	assert_true(registry_view(&registry, 6, &view));
	assert_false(registry_view(&registry, 4, &view));
}

static void what_the_kernel_refuses_is_answered_and_forgotten(void **state)
{
	(void)state;
	assert_int_equal(add(&one, 1, 0), 0);
	driver_says(-EEXIST);
	assert_int_equal(answer.status, -EEXIST);
	assert_int_equal(answer.reason, WIRE_KERNEL_REFUSED);
	assert_int_equal(b.nr, 0);
	assert_int_equal(b.nr_files, 0);
	b.no_feature = true;
	assert_int_equal(add(&one, 2, 0), -EOPNOTSUPP);
	assert_int_equal(reason, WIRE_NO_FEATURE);
}

/* ... but what is refused later, when some of it is there, is only tried ever less often. */
static void what_is_refused_later_is_not_tried_for_ever(void **state)
{
	unsigned int before;

	(void)state;
	assert_int_equal(add_range(&one, 1, 0, FILE_BYTES), 0);
	touch(0, MIB);
	refuse = -ENOMEM;
	copies_go_on(20000);
	before = regs;
	assert_true(before >= 1);
	copies_go_on(60000);
	assert_true(regs - before <= 8);
	refuse = 0;
	missing = -1;
	copies_go_on(20000);
	assert_int_equal(b.bytes, MIB);
}

static void an_interrupted_unregistration_is_repeated(void **state)
{
	(void)state;
	add(&one, 1, 0);
	driver_says(0);
	buffers_forget_client(&b, &one);
	driver_says(-EINTR);
	assert_int_equal(unregs, 2);
	assert_true(registry_any(&registry));
	driver_says(0);
	assert_false(registry_any(&registry));
}

/* A driver that says it does not know an index may still have it. */
static void what_the_driver_denies_stays_where_it_is(void **state)
{
	struct buffer_view view;

	(void)state;
	add(&one, 1, 0);
	driver_says(3);
	buffers_forget_client(&b, &one);
	driver_says(-ENOENT);
	assert_true(registry_view(&registry, 3, &view));
	assert_int_equal(b.nr, 1);
	/* Until the driver gives its index to another. */
	add(&two, 2, MIB);
	driver_says(3);
	assert_true(registry_view(&registry, 3, &view));
	view.base[0] = 77;
	assert_int_equal(memory[MIB], 77);
	assert_int_equal(b.nr, 1);
}

static void many_unregistrations_are_not_asked_at_once(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 40; i++) {
		assert_int_equal(add(&one, i, i * MIB), 0);
		driver_works();
	}
	buffers_forget_client(&b, &one);
	assert_int_equal(nr_asked, 16);
	driver_works();
	assert_int_equal(b.nr, 0);
}

/* ---- budgets ---- */

static void the_budget_of_the_device_holds(void **state)
{
	uint32_t first;

	(void)state;
	b.max_bytes = 4 * LEN;
	for (unsigned int i = 0; i < 4; i++) {
		assert_int_equal(add(&one, i, i * MIB), 0);
		driver_works();
	}
	first = answer.number;
	assert_int_equal(add(&one, 9, 4 * MIB), 0);
	assert_int_equal(answer.status, -EDQUOT);
	assert_int_equal(answer.reason, WIRE_OVER_BUDGET);
	assert_int_equal(buffers_remove(&b, &one, first), 0);
	driver_works();
	assert_int_equal(add(&one, 9, 4 * MIB), 0);
	driver_works();
	assert_int_equal(answer.status, 0);
}

/* Of more than is allowed, as much as is allowed. */
static void a_part_of_what_is_too_much(void **state)
{
	(void)state;
	account.max_bytes = 3 * MIB;
	touch(0, 8 * MIB);
	assert_int_equal(add_range(&one, 1, 0, FILE_BYTES), 0);
	driver_works();
	assert_int_equal(answer.status, 0);
	assert_int_equal(account.bytes, 3 * MIB);
	assert_ptr_equal(account_limit(&account), &account);
	/* Somebody else who wants it, too, has room for the rest. */
	assert_int_equal(add_range(&two, 2, 0, FILE_BYTES), 0);
	driver_works();
	assert_int_equal(b.bytes, 8 * MIB);
}

/* Who removes and adds the same memory again and again stops the device only once. */
static void little_memory_is_kept_for_a_while(void **state)
{
	(void)state;
	b.linger = 2000;
	for (uint32_t i = 0; i < 100; i++) {
		assert_int_equal(add(&one, i, 0), 0);
		driver_works();
		assert_int_equal(answer.status, 0);
		assert_int_equal(buffers_remove(&b, &one, answer.number), 0);
		now += 100;
		buffers_tick(&b, i);
	}
	assert_int_equal(regs, 1);
	assert_int_equal(unregs, 0);
	now += 3000;
	buffers_tick(&b, 0);
	driver_works();
	assert_int_equal(unregs, 1);
	buffers_tick(&b, 0);
	assert_int_equal(b.nr_files, 0);
}

/* ... but not when it is much, and not when somebody needs the room. */
static void memory_is_not_kept_for_long(void **state)
{
	static struct account user;

	(void)state;
	b.linger = 2000;
	touch(0, 8 * MIB);
	assert_int_equal(add_range(&one, 1, 0, 8 * MIB), 0);
	driver_works();
	assert_int_equal(buffers_remove(&b, &one, answer.number), 0);
	driver_works();
	assert_int_equal(unregs, 1);
	user = fresh_account();
	user.max_bytes = LEN;
	account.parent = &user;
	assert_int_equal(add(&one, 2, 16 * MIB), 0);
	driver_works();
	assert_int_equal(buffers_remove(&b, &one, answer.number), 0);
	assert_int_equal(unregs, 1);
	add(&two, 3, 20 * MIB); /* so that the file is known */
	driver_works();
	assert_int_equal(add(&one, 4, 24 * MIB), 0);
	driver_works();
	assert_int_equal(unregs, 2);
	copies_go_on(3000);
	assert_int_equal(user.bytes, LEN);
	buffers_forget_client(&b, &one);
	buffers_forget_accounts(&b);
}

/* Sparse files cost no memory, but a descriptor each. */
static void only_so_many_files_are_taken(void **state)
{
	int fds[8];

	(void)state;
	account.max_files = 5;
	for (unsigned int i = 0; i < 8; i++) {
		struct buffer_request req = { .len = PAGE, .client = &one, .account = &account };

		req.fd = fds[i] = memfd_create("one of many", MFD_CLOEXEC);
		assert_int_equal(ftruncate(fds[i], PAGE), 0);
		assert_int_equal(wait_for(buffers_add(&b, &req, &reason)), i < 5 ? 0 : -EDQUOT);
	}
	assert_int_equal(reason, WIRE_OVER_BUDGET);
	assert_int_equal(b.nr_files, 5);
	buffers_forget_client(&b, &one);
	assert_int_equal(account.files, 0);
	for (unsigned int i = 0; i < 8; i++)
		close(fds[i]);
}

/* One without a user ends with its client, while the driver has the memory still. */
static void what_has_ended_pays_for_no_file(void **state)
{
	struct account *ends = malloc(sizeof(*ends));
	struct buffer_request req = {
		.fd = memfd,
		.len = LEN,
		.client = &one,
		.account = ends,
		.seq = 1,
	};

	(void)state;
	*ends = fresh_account();
	assert_int_equal(wait_for(buffers_add(&b, &req, &reason)), 0);
	driver_works();
	assert_int_equal(ends->files, 1);
	/* Somebody else who wants it pays, */
	assert_int_equal(add(&two, 2, 0), 0);
	driver_works();
	buffers_forget_client(&b, &one);
	assert_int_equal(ends->files, 0);
	assert_int_equal(ends->bytes, 0);
	assert_int_equal(other_account.files, 1);
	assert_int_equal(other_account.bytes, LEN);
	free(ends);
	/* or nobody. */
	buffers_forget_client(&b, &two);
	assert_int_equal(b.nr_files, 1);
	assert_int_equal(other_account.files, 0);
	driver_works();
	assert_int_equal(b.nr_files, 0);
	assert_int_equal(other_account.files, 0);
}

/* How long the others of its device were stopped in that time, ms. */
static long long stopped(unsigned int regs_before)
{
	return 2LL * takes * (regs - regs_before); /* each comes to an end as well */
}

static void a_user_has_a_rate(void **state)
{
	struct buffer_request req = {
		.len = LEN,
		.client = &two,
		.account = &other_account,
		.seq = 1,
	};
	unsigned int before;
	long long began = now;

	(void)state;
	takes = 25;
	account.paced = true;
	for (uint32_t i = 0; i < 60; i++)
		assert_int_equal(add(&one, i, i * MIB), 0);
	driver_works();
	assert_int_equal(answer.nr, 60); /* nobody waits for his turn */
	assert_int_equal(answer.status, 0);
	assert_int_equal(regs, PACE_BURST / PACE_COST_FIRST);
	before = regs;
	copies_go_on(20000);
	assert_true(regs > before);
	assert_true(stopped(before) <=
		    20000 / PACE_SHARE + 2 * takes); /* one more was paid before */
	assert_true(stopped(0) <= (now - began) / PACE_SHARE + 2 * PACE_BURST);
	/* Others have their own. */
	other_account.paced = true;
	before = regs;
	req.fd = memfd_create("other", MFD_CLOEXEC);
	assert_int_equal(pwrite(req.fd, "", 1, LEN - 1), 1);
	assert_int_equal(posix_fallocate(req.fd, 0, LEN), 0);
	assert_int_equal(buffers_add(&b, &req, &reason), 0);
	driver_works();
	assert_int_equal(regs, before + 1);
	close(req.fd);
	copies_go_on(120000);
	assert_int_equal(b.nr, 61);
}

/* In a file that two use: who has no turn, or no room, does not hold up the other. */
static void who_cannot_pay_holds_up_nobody_else(void **state)
{
	(void)state;
	account.paced = true;
	account.pace = (struct pace){ .cost = 400, .at = now, .begun = true }; /* and no credit */
	touch(0, MIB);
	assert_int_equal(add_range(&one, 1, 0, MIB), 0);
	assert_int_equal(answer.status, 0);
	touch(8 * MIB, MIB);
	assert_int_equal(add_range(&two, 2, 8 * MIB, MIB), 0);
	driver_works();
	assert_int_equal(answer.client, &two);
	assert_int_equal(b.bytes, MIB);
	assert_int_equal(other_account.bytes, MIB);
	/* What both want is paid by who can; */
	assert_int_equal(add_range(&two, 3, 0, MIB), 0);
	driver_works();
	assert_int_equal(other_account.bytes, 2 * MIB);
	assert_int_equal(account.bytes, 0);
	/* and whoever has no room is no different. */
	account.max_bytes = 0;
	account.paced = false;
	touch(16 * MIB, MIB);
	assert_int_equal(add_range(&one, 4, 16 * MIB, MIB), 0);
	assert_int_equal(answer.reason, WIRE_OVER_BUDGET);
	touch(24 * MIB, MIB);
	assert_int_equal(add_range(&two, 5, 24 * MIB, MIB), 0);
	driver_works();
	assert_int_equal(answer.status, 0);
	assert_int_equal(other_account.bytes, 3 * MIB);
}

/* What costs little may be done often. */
static void a_quick_driver_may_be_asked_more_often(void **state)
{
	(void)state;
	takes = 1;
	account.paced = true;
	for (uint32_t i = 0; i < 60; i++)
		assert_int_equal(add(&one, i, i * MIB), 0);
	driver_works();
	copies_go_on(20000);
	assert_int_equal(regs, 60);
	takes = 1000; /* but a driver that is as slow as that is not given up */
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(add(&one, 100 + i, (60 + i) * MIB), 0);
	copies_go_on(60000);
	assert_int_equal(regs, 63);
}

/* ---- a successor ---- */

static uint64_t last_id;

static uint64_t inherit_file(bool suspect)
{
	struct vault_record r = {
		.id = ++last_id,
		.kind = VAULT_FILE,
		.file = { .suspect = suspect },
	};

	b.paused = true;
	assert_int_equal(buffers_restore(&b, &r, memfd), 0);
	return last_id;
}

static void inherit(uint64_t file, enum vault_buffer_state state, unsigned int index,
		    uint64_t offset)
{
	struct vault_record r = {
		.id = ++last_id,
		.kind = VAULT_BUFFER,
		.buffer = { .file = file,
			    .offset = offset,
			    .len = LEN,
			    .index = index,
			    .state = (uint8_t)state },
	};

	touch(offset, LEN);
	taken[index] = true;
	assert_int_equal(buffers_restore(&b, &r, -1), 0);
}

static void inherit_use(uint64_t file, void *client, uint32_t seq, uint64_t offset)
{
	struct vault_record r = {
		.id = ++last_id,
		.kind = VAULT_USE,
		.use = { .file = file, .offset = offset, .len = LEN, .seq = seq, .number = seq },
	};

	assert_int_equal(buffers_restore_use(&b, &r, client, &account), 0);
}

static void live_slices_are_published_before_the_device_resumes(void **state)
{
	struct buffer_view view;
	uint64_t file = inherit_file(false);

	(void)state;
	inherit_use(file, &one, 3, 0);
	inherit(file, VAULT_LIVE, 7, 0);
	assert_true(registry_view(&registry, 7, &view));
	buffers_resume(&b, 0);
	worker_wait();
	assert_int_equal(account.bytes, LEN);
	/* The predecessor may not have got to the answer. */
	assert_int_equal(answer.nr, 1);
	assert_int_equal(answer.seq, 3);
	assert_int_equal(answer.number, 3);
	assert_int_equal(regs + unregs, 0);
	assert_int_equal(add(&one, 4, MIB), 0);
	driver_says(1);
	assert_int_equal(answer.number, 4); /* never one that is taken */
	now += 60000;
	buffers_forget_client(&b, &one);
	assert_int_equal(unregs, 2);
	driver_works();
}

/* Who scans asks again only after the device has resumed. */
static void what_nobody_wants_is_unregistered_after_a_while(void **state)
{
	uint64_t file = inherit_file(false);

	(void)state;
	inherit(file, VAULT_LIVE, 0, 0);
	buffers_resume(&b, 0);
	worker_wait();
	buffers_tick(&b, 0);
	assert_int_equal(unregs, 0);
	now += 20000;
	buffers_tick(&b, 0);
	assert_int_equal(unregs, 1);
	driver_works();
	buffers_tick(&b, 0);
	assert_int_equal(b.nr, 0);
	assert_int_equal(b.nr_files, 0);
}

/* It has the lowest index that was free, or none; and is not registered again. */
static void an_unfinished_registration_is_found_and_not_repeated(void **state)
{
	struct buffer_view view;
	uint64_t file = inherit_file(false);

	(void)state;
	inherit_use(file, &one, 1, 0);
	inherit_use(file, &one, 2, MIB);
	inherit_use(file, &one, 3, 2 * MIB);
	inherit(file, VAULT_LIVE, 0, 0);
	inherit(file, VAULT_REGISTERING, 1, MIB);
	inherit(file, VAULT_LIVE, 2, 2 * MIB);
	buffers_resume(&b, 0);
	worker_wait();
	assert_false(buffers_all_known(&b));
	assert_int_equal(unregs, 1);
	assert_int_equal(asked[0].index, 1);
	assert_false(registry_view(&registry, 1, &view)); /* copied */
	driver_says(-ENOENT); /* none */
	assert_true(buffers_all_known(&b));
	copies_go_on(60000);
	assert_int_equal(regs, 0);
	assert_int_equal(b.nr, 2);
	assert_int_equal(answer.nr, 3);
	assert_int_equal(answer.status, 0); /* copied, not refused */

	/* Nor by the next one. */
	buffers_close(&b);
	b.paused = false;
	memset(taken, 0, sizeof(taken));
	file = inherit_file(true);
	inherit_use(file, &one, 2, MIB);
	buffers_resume(&b, 0);
	worker_wait();
	copies_go_on(60000);
	assert_int_equal(regs, 0);
}

/* ---- a driver that says what it has ---- */

static int list_error;

static int fake_list(void *arg, unsigned int first, struct uapi_shmem_buf_info *ret,
		     unsigned int nr)
{
	unsigned int found = 0;

	(void)arg;
	if (list_error)
		return list_error;
	for (unsigned int i = first; i < 64 && found < nr && found < 3; i++)
		if (taken[i])
			ret[found++] = (struct uapi_shmem_buf_info){ .index = i };
	return (int)found;
}

static void resume_with_list(int error)
{
	b.backend.list = fake_list;
	list_error = error;
	buffers_resume(&b, error ? 10 : 0);
	worker_wait();
}

/* By the record of a use and by nobody; nothing is registered before all that is nobody's has gone. */
static void what_the_driver_has_and_nobody_knows_of_is_unregistered_first(void **state)
{
	struct buffer_view view;
	uint64_t file = inherit_file(false);

	(void)state;
	inherit_use(file, &one, 1, 0);
	inherit_use(file, &one, 2, MIB);
	inherit(file, VAULT_LIVE, 5, 0);
	touch(MIB, LEN);
	for (unsigned int i = 0; i < 10; i += 3)
		taken[i] = true; /* 0 3 6 9 */
	resume_with_list(0);
	assert_int_equal(b.nr, 6); /* the sixth is on its way */
	assert_int_equal(regs, 0);
	while (unregs < 4 || nr_asked)
		driver_works();
	assert_int_equal(unregs, 4);
	assert_true(buffers_all_known(&b));
	assert_true(taken[5] && registry_view(&registry, 5, &view));
	assert_int_equal(regs, 1);
	assert_int_equal(b.nr, 2);
	assert_int_equal(answer.nr, 2);
	assert_int_equal(answer.status, 0);
}

static void what_a_record_tells_of_and_the_driver_has_not_is_registered_anew(void **state)
{
	struct buffer_view view;
	uint64_t file = inherit_file(false);

	(void)state;
	inherit_use(file, &one, 1, 0);
	inherit(file, VAULT_LIVE, 5, 0);
	taken[5] = false;
	missing = 5;
	resume_with_list(0);
	assert_int_equal(unregs, 1);
	driver_says(-ENOENT);
	copies_go_on(60000);
	driver_works();
	assert_int_equal(regs, 1);
	assert_false(registry_view(&registry, 5, &view));
	assert_true(registry_view(&registry, 0, &view));
	assert_int_equal(b.nr, 1);
}

/* Nor does one that says what it has always say it. */
static void a_driver_that_cannot_say_is_asked_for_each_index(void **state)
{
	uint64_t file = inherit_file(false);

	(void)state;
	inherit_use(file, &one, 1, 0);
	inherit(file, VAULT_LIVE, 2, 0);
	for (unsigned int i = 0; i < 11; i++)
		taken[i] = true;
	resume_with_list(-EIO);
	while (!buffers_all_known(&b))
		driver_says(asked[0].index % 2 ? 0 : -ENOENT);
	assert_int_equal(unregs, 9); /* of 10 that there may be, but for ours */
	assert_true(taken[2] && taken[10]);
	assert_int_equal(b.nr, 1);
	assert_int_equal(regs, 0);
}

static void a_buffer_that_cannot_be_unregistered_keeps_nobody(void **state)
{
	(void)state;
	taken[0] = taken[1] = true;
	b.paused = true;
	resume_with_list(0);
	driver_says(-EIO);
	driver_says(0);
	assert_true(buffers_all_known(&b));
	touch(0, LEN);
	assert_int_equal(add(&one, 1, 0), 0);
	driver_says(1);
	assert_int_equal(answer.status, 0);
}

static void unfinished_business_waits_for_the_device(void **state)
{
	struct buffer_view view;
	uint64_t file = inherit_file(false);

	(void)state;
	inherit_use(file, &one, 1, 0);
	inherit(file, VAULT_UNREGISTERING, 4, 4 * MIB);
	touch(0, LEN);
	assert_true(registry_view(&registry, 4, &view));
	assert_int_equal(add(&two, 2, 2 * MIB), 0);
	assert_int_equal(regs + unregs, 0);
	buffers_resume(&b, 0);
	worker_wait();
	assert_int_equal(unregs, 1);
	assert_int_equal(regs, 0);
	driver_says(0);
	assert_false(registry_view(&registry, 4, &view));
	assert_int_equal(regs, 1); /* one at a time */
	driver_says(4);
	assert_int_equal(regs, 2);
	driver_says(5);
	assert_int_equal(answer.nr, 2);
	assert_int_equal(b.bytes, 2 * LEN);
}

/* What cannot be mapped again is copied, and unregistered; the rest is as it was. */
static void a_slice_that_cannot_be_mapped_is_copied(void **state)
{
	struct buffer_view view;
	uint64_t file = inherit_file(false);
	struct vault_record r = {
		.id = ++last_id,
		.kind = VAULT_BUFFER,
		.buffer = { .file = file,
			    .offset = 0,
			    .len = 1ULL << 62,
			    .index = 0,
			    .state = VAULT_LIVE },
	};

	(void)state;
	inherit_use(file, &one, 1, MIB);
	assert_int_equal(buffers_restore(&b, &r, -1), 0);
	inherit(file, VAULT_LIVE, 1, MIB);
	taken[0] = true;
	assert_false(registry_view(&registry, 0, &view));
	assert_true(registry_view(&registry, 1, &view));
	buffers_resume(&b, 0);
	worker_wait();
	assert_int_equal(unregs, 1);
	driver_works();
	assert_int_equal(b.nr, 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

/* ---- what queues keep ---- */

static bool queues_have_any;
static unsigned int recalls;

static bool fake_recall(void *arg)
{
	(void)arg;
	recalls++;
	return queues_have_any;
}

static bool is_mapped(void *at)
{
	unsigned char in_core;

	return mincore(at, PAGE, &in_core) == 0;
}

static void what_queues_have_pinned_stays_until_they_let_go(void **state)
{
	uint64_t first, second;
	void *at;

	(void)state;
	b.backend.recall = fake_recall;
	queues_have_any = true;
	recalls = 0;
	assert_int_equal(add(&one, 1, 0), 0);
	at = asked[0].at;
	driver_works();
	assert_true(registry_entry(&registry, 0)->pinnable == guard_works());
	buffers_forget_client(&b, &one);
	driver_works();
	first = registry_withdrawals(&registry);
	assert_int_equal(recalls, 1);
	assert_null(registry_entry(&registry, 0));
	assert_true(is_mapped(at));
	/* The index is another's meanwhile, whose end is another's too. */
	assert_int_equal(add(&two, 2, 0), 0);
	driver_works();
	assert_ptr_not_equal(registry_entry(&registry, 0)->base, at);
	assert_int_equal(b.bytes, 2 * LEN);
	buffers_forget_client(&b, &two);
	driver_works();
	second = registry_withdrawals(&registry);
	buffers_let_go(&b, first - 1);
	assert_true(is_mapped(at));
	buffers_let_go(&b, second - 1);
	assert_false(is_mapped(at));
	assert_int_equal(b.bytes, LEN);
	assert_int_equal(b.nr_files, 1);
	buffers_let_go(&b, second);
	assert_int_equal(b.bytes, 0);
	assert_int_equal(account.bytes + other_account.bytes, 0);
	assert_int_equal(b.nr_files, 0);
}

static void what_queues_do_not_have_goes_at_once(void **state)
{
	(void)state;
	b.backend.recall = fake_recall;
	queues_have_any = false;
	assert_int_equal(add(&one, 1, 0), 0);
	driver_works();
	buffers_forget_client(&b, &one);
	driver_works();
	assert_int_equal(b.bytes, 0);
	/* And what the queues still have goes with the device: see teardown(). */
	queues_have_any = true;
	assert_int_equal(add(&one, 2, 0), 0);
	driver_works();
	buffers_forget_client(&b, &one);
	driver_works();
	assert_int_equal(b.bytes, LEN);
}

/* Rings pin what is mapped for writing only; and what may not be is registered all the same. */
static void what_is_only_to_be_read_can_be_pinned(void **state)
{
	struct buffer_request req = {
		.fd = memfd,
		.len = LEN,
		.read_only = true,
		.client = &one,
		.account = &account,
	};
	uint64_t addr = 0;

	(void)state;
	b.backend.recall = fake_recall;
	queues_have_any = false;
	touch(0, FILE_BYTES);
	assert_int_equal(wait_for(buffers_add(&b, &req, &reason)), 0);
	driver_says(0);
	assert_true(registry_entry(&registry, 0)->pinnable == guard_works());
	assert_null(registry_find(&registry, addr, 512, true));
	assert_non_null(registry_find(&registry, addr, 512, false));
	buffers_forget_client(&b, &one);
	driver_works();
	munmap(memory, FILE_BYTES);
	assert_int_equal(fcntl(memfd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
	assert_int_equal(wait_for(buffers_add(&b, &req, &reason)), 0);
	driver_says(0);
	assert_false(registry_entry(&registry, 0)->pinnable);
	assert_non_null(registry_find(&registry, addr, 512, false));
	memory = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, memfd, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_queues_have_pinned_stays_until_they_let_go),
		T(what_queues_do_not_have_goes_at_once),
		T(what_is_only_to_be_read_can_be_pinned),
		T(a_sparse_file_costs_nothing),
		T(what_exists_is_registered),
		T(what_comes_later_is_registered_later),
		T(growing_memory_is_joined),
		T(neighbours_of_the_same_size_are_joined),
		T(what_is_being_registered_is_joined_too),
		T(a_hole_punched_meanwhile_is_not_filled),
		T(a_file_in_many_pieces_uses_up_nothing),
		T(read_only_memory_is_not_allocated_either),
		T(the_position_of_the_clients_descriptor_stays),
		T(is_published_once_the_kernel_named_it),
		T(the_same_memory_is_registered_once),
		T(ranges_that_overlap_share_slices),
		T(nothing_is_registered_while_an_index_may_be_reused),
		T(a_client_that_leaves_while_registering),
		T(added_again_while_it_is_being_unregistered),
		T(what_the_kernel_refuses_is_answered_and_forgotten),
		T(what_is_refused_later_is_not_tried_for_ever),
		T(an_interrupted_unregistration_is_repeated),
		T(what_the_driver_denies_stays_where_it_is),
		T(many_unregistrations_are_not_asked_at_once),
		T(the_budget_of_the_device_holds),
		T(a_part_of_what_is_too_much),
		T(little_memory_is_kept_for_a_while),
		T(memory_is_not_kept_for_long),
		T(only_so_many_files_are_taken),
		T(what_has_ended_pays_for_no_file),
		T(a_user_has_a_rate),
		T(who_cannot_pay_holds_up_nobody_else),
		T(a_quick_driver_may_be_asked_more_often),
		T(live_slices_are_published_before_the_device_resumes),
		T(what_nobody_wants_is_unregistered_after_a_while),
		T(an_unfinished_registration_is_found_and_not_repeated),
		T(what_the_driver_has_and_nobody_knows_of_is_unregistered_first),
		T(what_a_record_tells_of_and_the_driver_has_not_is_registered_anew),
		T(a_driver_that_cannot_say_is_asked_for_each_index),
		T(a_buffer_that_cannot_be_unregistered_keeps_nobody),
		T(unfinished_business_waits_for_the_device),
		T(a_slice_that_cannot_be_mapped_is_copied),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
