/* SPDX-License-Identifier: MIT */
/* test_nbd.c - the engine nbd with a server that is well: what is asked, what is offered, in which
 * order. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fixture.h"

#define LEN 65536U

static uint8_t wrote[HOST_MAX_IO], got[HOST_MAX_IO];

static void what_is_written_is_read(void **state)
{
	(void)state;
	assert_int_equal(host_open(uri, NULL), 0);
	write_and_read(300, FAKE_MAX, fake_bytes());
	host_close();
}

static void many_at_once(const char *connections, const struct fake_options *options)
{
	struct task tasks[HOST_DEPTH];
	static uint8_t data[HOST_DEPTH][8192];

	fake_stop(false);
	fake_restart(options);
	assert_int_equal(host_open(uri, connections, NULL), 0);
	for (unsigned int op = UBLKZC_WRITE; op + 1 > UBLKZC_READ; op--) {
		for (unsigned int i = 0; i < HOST_DEPTH; i++) {
			if (op == UBLKZC_WRITE)
				fill(data[i], sizeof(data[i]), i);
			else
				memset(data[i], 0, sizeof(data[i]));
			begin(&tasks[i], op, i * sizeof(data[i]), data[i], sizeof(data[i]), 1);
		}
		for (unsigned int i = 0; i < HOST_DEPTH; i++) {
			assert_true(await(&tasks[i], 60));
			assert_int_equal(tasks[i].res, 0);
			assert_bytes(data[i], sizeof(data[i]), i);
		}
	}
	host_close();
}

static void answers_come_in_any_order(void **state)
{
	struct fake_options backwards = all;

	(void)state;
	backwards.backwards = true;
	many_at_once("connections=1", &backwards);
}

static void several_connections_share_the_work(void **state)
{
	unsigned int before = fake_connections();

	(void)state;
	many_at_once("connections=4", &all);
	assert_int_equal(fake_connections() - before, 4);
}

static void one_connection_where_more_would_be_wrong(void **state)
{
	struct fake_options alone = { .size = FAKE_MAX, .flags = FAKE_FLUSH };

	(void)state;
	fake_stop(false);
	fake_restart(&alone);
	assert_int_equal(host_open(uri, "connections=2", NULL), -EINVAL);
	assert_non_null(strstr(host_said, "-o connections=1"));
	assert_int_equal(host_open(uri, NULL), 0);
	host_close();
}

static void the_export_says_what_the_device_is(void **state)
{
	struct fake_options o = {
		.size = 500000,
		.flags = FAKE_READ_ONLY | FAKE_ROTATIONAL,
		.minimum = 4096,
		.preferred = 65536,
		.maximum = 31 * 4096,
	};

	(void)state;
	assert_int_equal(host_open(uri, NULL), 0);
	assert_int_equal(target.size, FAKE_MAX);
	assert_int_equal(target.block_size, 512);
	assert_int_equal(target.max_io, HOST_MAX_IO);
	assert_true(target.volatile_cache && target.discard && target.write_zeroes);
	assert_false(target.read_only);
	host_close();
	fake_stop(false);
	fake_restart(&o);
	assert_int_equal(host_open(uri, NULL), 0);
	assert_int_equal(target.size, 500000 / 4096 * 4096);
	assert_int_equal(target.block_size, 4096);
	assert_int_equal(target.max_io, 126976);
	assert_false(target.volatile_cache || target.discard || target.write_zeroes);
	assert_true(target.read_only && target.rotational);
	assert_int_equal(target.preferred, 65536);
	host_close();
}

static void blocks_that_no_device_has_are_refused(void **state)
{
	struct fake_options o = { .size = FAKE_MAX,
				  .flags = FAKE_ALL,
				  .minimum = 8192,
				  .preferred = 8192,
				  .maximum = 65536 };

	(void)state;
	fake_stop(false);
	fake_restart(&o);
	assert_int_equal(host_open(uri, NULL), -EINVAL);
	assert_non_null(strstr(host_said, "8192"));
}

static void each_command_with_its_flags(void **state)
{
	struct task t;

	(void)state;
	assert_int_equal(host_open(uri, NULL), 0);
	fill(wrote, 4096, 1);
	assert_int_equal(do_io(UBLKZC_WRITE, 0, wrote, 4096), 0);
	assert_int_equal(fake_last_flags(), 0);
	begin(&t, UBLKZC_WRITE, 4096, wrote, 4096, 1);
	assert_true(await(&t, 60));
	assert_int_equal(do_io(UBLKZC_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(fake_count(FLUSH), 1);
	assert_int_equal(do_io(UBLKZC_DISCARD, 0, NULL, 4096), 0);
	assert_int_equal(fake_count(TRIM), 1);
	assert_int_equal(do_io(UBLKZC_WRITE_ZEROES, 4096, NULL, 4096), 0);
	assert_int_equal(fake_count(WRITE_ZEROES), 1);
	assert_int_equal(fake_last_flags(), 0);
	assert_int_equal(fake_bytes()[4096], 0);
	host_close();
}

static void do_fua(enum ublkzc_op op, void *data)
{
	struct task t = { 0 };
	struct ublkzc_request *rq = &t.rq;

	t.iov[0] = (struct iovec){ data, 4096 };
	*rq = (struct ublkzc_request){ .queue = &queue,
				       .op = op,
				       .fua = true,
				       .no_unmap = op == UBLKZC_WRITE_ZEROES,
				       .len = 4096,
				       .iov = t.iov,
				       .nr_iov = data ? 1 : 0 };
	engine->submit(rq);
	assert_true(await(&t, 60));
	assert_int_equal(t.res, 0);
}

static void fua_is_a_flag_or_a_flush(void **state)
{
	struct fake_options o = { .size = FAKE_MAX, .flags = FAKE_FLUSH | FAKE_ZERO };

	(void)state;
	assert_int_equal(host_open(uri, NULL), 0);
	do_fua(UBLKZC_WRITE, wrote);
	assert_int_equal(fake_last_flags(), 1);
	do_fua(UBLKZC_WRITE_ZEROES, NULL);
	assert_int_equal(fake_last_flags(), 1 | 2); /* NO_HOLE */
	assert_int_equal(fake_count(FLUSH), 0);
	host_close();
	fake_stop(false);
	fake_restart(&o);
	assert_int_equal(host_open(uri, NULL), 0);
	do_fua(UBLKZC_WRITE, wrote);
	assert_int_equal(fake_count(FLUSH), 1);
	do_fua(UBLKZC_WRITE_ZEROES, NULL);
	assert_int_equal(fake_count(FLUSH), 2);
	host_close();
}

static void writethrough_leaves_nothing_to_flush(void **state)
{
	struct fake_options o = { .size = FAKE_MAX, .flags = FAKE_FLUSH };

	(void)state;
	assert_int_equal(host_open(uri, "cache=writethrough", NULL), 0);
	assert_false(target.volatile_cache);
	assert_int_equal(do_io(UBLKZC_WRITE, 0, wrote, 4096), 0);
	assert_int_equal(fake_last_flags(), 1);
	host_close();
	fake_stop(false);
	fake_restart(&o);
	assert_int_equal(host_open(uri, "cache=writethrough", NULL), -EOPNOTSUPP);
	assert_non_null(strstr(host_said, "FUA"));
}

static void errors_are_the_server_s(void **state)
{
	static const struct {
		uint32_t theirs;
		int ours;
	} errors[] = {
		{ 5, -EIO }, { 28, -ENOSPC }, { 1, -EPERM }, { 95, -EOPNOTSUPP }, { 12, -ENOMEM }
	};

	(void)state;
	assert_int_equal(host_open(uri, NULL), 0);
	for (unsigned int i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		fake_error = errors[i].theirs;
		fake_trick(FAKE_ERROR);
		assert_int_equal(do_io(i % 2 ? UBLKZC_READ : UBLKZC_WRITE, 0, wrote, LEN),
				 errors[i].ours);
	}
	fake_error = 77777; /* no error of the protocol's */
	fake_trick(FAKE_ERROR);
	assert_true(do_io(UBLKZC_FLUSH, 0, NULL, 0) < 0);
	assert_int_equal(do_io(UBLKZC_READ, 0, got, LEN), 0);
	assert_int_equal(fake_connections(), 1);
	host_close();
}

static void a_larger_export_is_seen(void **state)
{
	struct fake_options small = all;
	uint64_t size = 0;

	(void)state;
	small.size = FAKE_MAX / 2;
	fake_stop(false);
	fake_restart(&small);
	assert_int_equal(host_open(uri, NULL), 0);
	assert_int_equal(do_io(UBLKZC_READ, 0, got, LEN), 0);
	fake_stop(false);
	fake_restart(&all);
	assert_int_equal(engine->grow(&target, &size), 0);
	assert_int_equal(size, FAKE_MAX);
	fill(wrote, LEN, 3);
	assert_int_equal(do_io(UBLKZC_WRITE, FAKE_MAX - LEN, wrote, LEN), 0);
	assert_memory_equal(fake_bytes() + FAKE_MAX - LEN, wrote, LEN);
	size = FAKE_MAX * 2;
	assert_int_equal(engine->grow(&target, &size), -EINVAL);
	host_close();
}

static void says_no(const char *path, const char *name, const char *value, const char *why)
{
	struct ublkzc_setting setting = { name, value };
	struct ublkzc_target t = {
		.path = path, .settings = &setting, .nr_settings = name ? 1 : 0, .nr_queues = 32
	};
	char said[512] = "";

	assert_int_equal(ublkzc_module.engine->check(&t, said, sizeof(said)), -EINVAL);
	if (!strstr(said, why))
		fail_msg("%s: %s does not say %s", path, said, why);
}

static void mistakes_are_told(void **state)
{
	(void)state;
	says_no("/dev/sda", NULL, NULL, "/dev/sda is no NBD URI: give nbd://");
	says_no("http://host/", NULL, NULL, "is no NBD URI");
	says_no("nbd+unix:///?socket=here", NULL, NULL, "an absolute path in 'socket=here'");
	says_no("nbds://host/?tls-certificates=pki", NULL, NULL, "'tls-certificates=pki'");
	says_no("nbds://host/?a=b&tls-psk-file=keys&c=d", NULL, NULL, "'tls-psk-file=keys'");
	says_no("nbd://host", "connections", "0",
		"-o connections=0: give a whole number from 1 to 16");
	says_no("nbd://host", "connections", "16x", "connections=16x");
	says_no("nbd://host", "connections", "-1", "connections=-1");
	says_no("nbd://host", "reconnect-delay", "0", "from 1 to 86400");
	says_no("nbd://host", "dead-timeout", "99999999999999999999", "from 0 to 86400");
	says_no("nbd://host", "cache", "writeback", "give volatile, durable or writethrough");
	assert_int_equal(host_open("nbd+unix:///?socket=/nowhere/socket", NULL), -ENOENT);
	assert_non_null(strstr(host_said, "/nowhere/socket"));
	assert_true(host_open("nbd://127.0.0.1:1", NULL) < 0);
	assert_non_null(strstr(host_said, "127.0.0.1"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		UNIT(what_is_written_is_read),
		UNIT(answers_come_in_any_order),
		UNIT(several_connections_share_the_work),
		UNIT(one_connection_where_more_would_be_wrong),
		UNIT(the_export_says_what_the_device_is),
		UNIT(blocks_that_no_device_has_are_refused),
		UNIT(each_command_with_its_flags),
		UNIT(fua_is_a_flag_or_a_flush),
		UNIT(writethrough_leaves_nothing_to_flush),
		UNIT(errors_are_the_server_s),
		UNIT(a_larger_export_is_seen),
		UNIT(mistakes_are_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
