/* SPDX-License-Identifier: MIT */
/* The life of buffers with a driver that answers when the test says so. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "server/buffers.h"
#include "tests/unit/cmocka_all.h"

#define LEN 8192ULL

static struct registry registry;
static struct buffers b;

/* The fake driver: what it was asked last. */
static struct {
	void *cookie;
	unsigned int regs;
	unsigned int unregs;
	int refuse; /* returned instead of being asked */
} driver;

static int fake_reg(void *arg, const struct uapi_shmem_buf_reg *reg, void *cookie)
{
	(void)arg;
	if (driver.refuse)
		return driver.refuse;
	assert_int_equal(reg->len, LEN);
	driver.cookie = cookie;
	driver.regs++;
	return 0;
}

static int fake_unreg(void *arg, unsigned int index, void *cookie)
{
	(void)arg;
	(void)index;
	driver.cookie = cookie;
	driver.unregs++;
	return 0;
}

static struct {
	unsigned int nr;
	void *client;
	uint32_t seq;
	int status;
	unsigned int index;
} answer;

static void take_answer(void *arg, void *client, uint32_t seq, int status, enum wire_reason why,
			unsigned int index, uint64_t len)
{
	assert_true(len > 0);
	(void)arg;
	assert_int_equal(status == 0, why == WIRE_OK);
	answer.nr++;
	answer.client = client;
	answer.seq = seq;
	answer.status = status;
	answer.index = index;
}

static int memfd;
static char one, two; /* clients */

static int setup(void **state)
{
	(void)state;
	memset(&driver, 0, sizeof(driver));
	memset(&answer, 0, sizeof(answer));
	memset(&registry, 0, sizeof(registry));
	b = (struct buffers){ .registry = &registry,
			      .backend = { .reg = fake_reg, .unreg = fake_unreg },
			      .answer = take_answer,
			      .max_bytes = 4 * LEN };
	memfd = memfd_create("test", MFD_CLOEXEC);
	return ftruncate(memfd, 16 * LEN);
}

static int teardown(void **state)
{
	(void)state;
	buffers_close(&b);
	assert_int_equal(b.bytes, 0);
	assert_int_equal(b.nr, 0);
	assert_false(registry_any(&registry));
	close(memfd);
	return 0;
}

static enum wire_reason reason;

static int add(void *client, uint32_t seq, uint64_t offset)
{
	struct buffer_request req = {
		.fd = memfd,
		.offset = offset,
		.len = LEN,
		.client = client,
		.seq = seq,
	};

	return buffers_add(&b, &req, &reason);
}

static void is_published_once_the_kernel_named_it(void **state)
{
	struct buffer_view view;

	(void)state;
	assert_int_equal(add(&one, 5, 0), 0);
	assert_false(registry_any(&registry));
	assert_int_equal(answer.nr, 0);
	buffers_finished(&b, driver.cookie, 9);
	assert_true(registry_view(&registry, 9, &view));
	assert_int_equal(view.len, LEN);
	view.base[0] = 1; /* mapped */
	assert_int_equal(answer.nr, 1);
	assert_ptr_equal(answer.client, &one);
	assert_int_equal(answer.seq, 5);
	assert_int_equal(answer.index, 9);
}

static void the_same_memory_is_registered_once(void **state)
{
	(void)state;
	assert_int_equal(add(&one, 1, 0), 0);
	assert_int_equal(add(&two, 2, 0), 0);
	buffers_finished(&b, driver.cookie, 3);
	assert_int_equal(driver.regs, 1);
	assert_int_equal(answer.nr, 2);
	assert_int_equal(add(&two, 3, 0), 0);
	assert_int_equal(answer.nr, 3);
	assert_int_equal(answer.index, 3);
	assert_int_equal(b.bytes, LEN);

	buffers_forget_client(&b, &two); /* both of its uses */
	assert_int_equal(driver.unregs, 0);
	assert_int_equal(buffers_remove(&b, &two, 3), -ENOENT);
	assert_int_equal(buffers_remove(&b, &one, 3), 0);
	assert_int_equal(driver.unregs, 1);
	assert_true(registry_any(&registry)); /* until the kernel says so */
	buffers_finished(&b, driver.cookie, 0);
	assert_false(registry_any(&registry));
	assert_int_equal(b.nr, 0);
}

/*
 * The kernel may name an index again before we have read that its last buffer is
 * gone; a request for it must never find the old memory.
 */
static void nothing_is_registered_while_an_index_may_be_reused(void **state)
{
	struct buffer_view view;
	void *unregistering;

	(void)state;
	assert_int_equal(add(&one, 1, 0), 0);
	buffers_finished(&b, driver.cookie, 0);
	buffers_forget_client(&b, &one);
	assert_int_equal(driver.unregs, 1);
	unregistering = driver.cookie;
	assert_int_equal(add(&two, 2, LEN), 0);
	assert_int_equal(driver.regs, 1); /* not asked yet */
	assert_int_equal(answer.nr, 1);
	buffers_finished(&b, unregistering, 0);
	assert_false(registry_any(&registry));
	assert_int_equal(driver.regs, 2);
	buffers_finished(&b, driver.cookie, 0);
	assert_true(registry_view(&registry, 0, &view));
	assert_int_equal(answer.nr, 2);
	assert_ptr_equal(answer.client, &two);

	/* Who leaves while waiting is not registered at all. */
	buffers_forget_client(&b, &two);
	unregistering = driver.cookie;
	assert_int_equal(add(&one, 3, 0), 0);
	buffers_forget_client(&b, &one);
	assert_int_equal(b.nr, 2);
	buffers_finished(&b, unregistering, 0);
	assert_int_equal(driver.regs, 2);
	assert_int_equal(b.nr, 0);
}

static void a_client_that_leaves_while_registering(void **state)
{
	(void)state;
	assert_int_equal(add(&one, 1, 0), 0);
	buffers_forget_client(&b, &one);
	assert_int_equal(b.nr, 1);
	buffers_finished(&b, driver.cookie, 0);
	assert_int_equal(answer.nr, 0);
	assert_int_equal(driver.unregs, 1);
	buffers_finished(&b, driver.cookie, 0);
	assert_int_equal(b.nr, 0);
}

static void added_again_while_it_is_being_unregistered(void **state)
{
	struct buffer_view view;

	(void)state;
	add(&one, 1, 0);
	buffers_finished(&b, driver.cookie, 4);
	buffers_forget_client(&b, &one);
	assert_int_equal(add(&two, 2, 0), 0);
	assert_int_equal(driver.regs, 1);
	buffers_finished(&b, driver.cookie, 0); /* unregistered */
	assert_int_equal(driver.regs, 2);
	buffers_finished(&b, driver.cookie, 6); /* registered anew */
	assert_ptr_equal(answer.client, &two);
	assert_int_equal(answer.index, 6);
	assert_true(registry_view(&registry, 6, &view));
	assert_false(registry_view(&registry, 4, &view));
}

static void what_the_kernel_refuses_is_answered_and_forgotten(void **state)
{
	(void)state;
	assert_int_equal(add(&one, 1, 0), 0);
	buffers_finished(&b, driver.cookie, -EEXIST);
	assert_int_equal(answer.status, -EEXIST);
	assert_int_equal(b.nr, 0);
	driver.refuse = -EOPNOTSUPP;
	assert_int_equal(add(&one, 2, 0), -EOPNOTSUPP);
	assert_int_equal(reason, WIRE_NO_FEATURE);
	assert_int_equal(b.bytes, 0);
}

static void the_budget_of_the_device_holds(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		assert_int_equal(add(&one, i, i * LEN), 0);
		buffers_finished(&b, driver.cookie, (int)i);
	}
	assert_int_equal(add(&one, 9, 4 * LEN), -EDQUOT);
	assert_int_equal(buffers_remove(&b, &one, 2), 0);
	buffers_finished(&b, driver.cookie, 0);
	assert_int_equal(add(&one, 9, 4 * LEN), 0);
}

static void an_interrupted_unregistration_is_repeated(void **state)
{
	(void)state;
	add(&one, 1, 0);
	buffers_finished(&b, driver.cookie, 0);
	buffers_forget_client(&b, &one);
	buffers_finished(&b, driver.cookie, -EINTR);
	assert_int_equal(driver.unregs, 2);
	assert_true(registry_any(&registry));
	buffers_finished(&b, driver.cookie, 0);
	assert_false(registry_any(&registry));
}

/* ---- a successor ---- */

static uint64_t last_id;

static void inherit(enum vault_buffer_state state, unsigned int index, uint64_t offset)
{
	struct vault_record r = {
		.id = ++last_id,
		.kind = VAULT_BUFFER,
		.buffer = { .offset = offset, .len = LEN, .index = index, .state = (uint8_t)state },
	};

	b.paused = true;
	assert_int_equal(buffers_restore(&b, &r, memfd), 0);
}

static void inherit_use(uint64_t buffer, void *client, uint32_t seq)
{
	struct vault_record r = {
		.id = ++last_id,
		.kind = VAULT_USE,
		.use = { .buffer = buffer, .seq = seq },
	};
	uint64_t len;

	assert_int_equal(buffers_restore_use(&b, &r, client, &len), 0);
	assert_int_equal(len, LEN);
}

static void live_buffers_are_published_before_the_device_resumes(void **state)
{
	struct buffer_view view;

	(void)state;
	inherit(VAULT_LIVE, 7, 0);
	inherit_use(last_id, &one, 3);
	assert_int_equal(buffers_restored(&b), 0);
	assert_true(registry_view(&registry, 7, &view));
	buffers_resume(&b);
	/* The predecessor may not have got to the answer. */
	assert_int_equal(answer.nr, 1);
	assert_int_equal(answer.seq, 3);
	assert_int_equal(answer.index, 7);
	assert_int_equal(driver.regs + driver.unregs, 0);
	buffers_forget_client(&b, &one);
	assert_int_equal(driver.unregs, 1);
	buffers_finished(&b, driver.cookie, 0);
}

static void what_nobody_uses_is_unregistered(void **state)
{
	(void)state;
	inherit(VAULT_LIVE, 0, 0);
	assert_int_equal(buffers_restored(&b), 0);
	assert_int_equal(driver.unregs, 0);
	buffers_resume(&b);
	assert_int_equal(driver.unregs, 1);
	buffers_finished(&b, driver.cookie, 0);
	assert_int_equal(b.nr, 0);
}

/* It has the lowest index that was free, or none. */
static void an_unfinished_registration_is_found(void **state)
{
	struct buffer_view view;

	(void)state;
	inherit(VAULT_LIVE, 0, 0);
	inherit_use(last_id, &one, 1);
	inherit(VAULT_REGISTERING, 0, LEN);
	inherit_use(last_id, &one, 2);
	inherit(VAULT_LIVE, 2, 2 * LEN);
	inherit_use(last_id, &one, 3);
	assert_int_equal(buffers_restored(&b), 0);
	assert_true(registry_view(&registry, 1, &view));
	buffers_resume(&b);
	assert_int_equal(driver.unregs, 1);
	assert_int_equal(driver.regs, 0);
	buffers_finished(&b, driver.cookie, -ENOENT); /* none */
	assert_false(registry_view(&registry, 1, &view));
	assert_int_equal(driver.regs, 1);
	buffers_finished(&b, driver.cookie, 1);
	assert_int_equal(answer.nr, 3);
	assert_int_equal(answer.seq, 2);
	assert_int_equal(answer.index, 1);
}

static void unfinished_business_waits_for_the_device(void **state)
{
	struct buffer_view view;

	(void)state;
	inherit(VAULT_WAITING, 0, 0);
	inherit_use(last_id, &one, 1);
	inherit(VAULT_UNREGISTERING, 4, LEN);
	assert_int_equal(buffers_restored(&b), 0);
	assert_true(registry_view(&registry, 4, &view));
	assert_int_equal(add(&two, 2, 2 * LEN), 0);
	assert_int_equal(driver.regs + driver.unregs, 0);
	buffers_resume(&b);
	assert_int_equal(driver.unregs, 1);
	assert_int_equal(driver.regs, 0);
	buffers_finished(&b, driver.cookie, 0);
	assert_false(registry_view(&registry, 4, &view));
	assert_int_equal(driver.regs, 1); /* one at a time */
	buffers_finished(&b, driver.cookie, 4);
	assert_int_equal(answer.seq, 1);
	assert_int_equal(driver.regs, 2);
	buffers_finished(&b, driver.cookie, 5);
	assert_int_equal(answer.seq, 2);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(is_published_once_the_kernel_named_it),
		T(the_same_memory_is_registered_once),
		T(nothing_is_registered_while_an_index_may_be_reused),
		T(a_client_that_leaves_while_registering),
		T(added_again_while_it_is_being_unregistered),
		T(what_the_kernel_refuses_is_answered_and_forgotten),
		T(the_budget_of_the_device_holds),
		T(an_interrupted_unregistration_is_repeated),
		T(live_buffers_are_published_before_the_device_resumes),
		T(what_nobody_uses_is_unregistered),
		T(an_unfinished_registration_is_found),
		T(unfinished_business_waits_for_the_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
